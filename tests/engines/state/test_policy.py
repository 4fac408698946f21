"""The policy: what it is asked, when an answer counts, and how little it may do."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import TRUSTING, Driver, answer, asked, control, last, no_answer, priced, signal, targets, tick

from engines.handlers.policy_request import FEATURES
from engines.models.policy_gate import Gate
from engines.parameters import DecisionParams, tree_hash
from engines.state import policy
from schemas.rl import RlRequest
from streams.journal import entries as journal

OPEN = Gate(status="open", windows=40, lower=0.1, difference_square_sum=0.01)


def live(mode="live", gate=OPEN, **changes):
    """Return a driver that asks, whose gate has been opened by hand, and on which BTC-USD is claimed."""
    tree = TRUSTING.model_dump()
    tree["rl"] |= {"enabled": True, "mode": mode, **changes}
    driver = priced(Driver(DecisionParams.model_validate(tree), partitions=1))
    if gate is not None:
        state(driver).gates.put(("main",), gate)
    claim(driver)
    return driver


def state(driver):
    return driver.processors["journal", 0][0].state


def claim(driver, **given_):
    driver.advance(0.1)
    fields = {"expected_return": 0.004, "signal_id": f"s-{driver.now_ns}", **given_}
    driver.publish("signals", signal(driver.now_ns, **fields))
    driver.run()


def settle(driver, signal_id, realised, **given_):
    outcome = {"strategy_id": "momentum", "symbol": "BTC-USD", "signal_id": signal_id, "side": 1, "holding_s": 0.5}
    fields = {**outcome, "realized_return": realised, "timestamp_ns": driver.now_ns, **given_}
    driver.publish("outcomes", fields)
    driver.advance(1.0)


def order(driver, mode, scope="all", control_id="c-1"):
    driver.publish("control", control(driver.now_ns, "rl_mode", {"mode": mode, "scope": scope}, control_id))
    driver.run()
    return [
        each["result"]
        for each in map(orjson.loads, (record.value for record in driver.read("alerts")))
        if each["subject"] == control_id
    ][-1]


def same(fields, others):
    """Return whether two allocations hold the same, but for the cent that a held quantity loses."""
    return targets(fields) == pytest.approx(targets(others), abs=0.011)


def cell_of(fields, symbol="BTC-USD"):
    return next(cell for cell in fields["rl"]["cells"] if cell["symbol"] == symbol)


# -- the nudge -------------------------------------------------------------------------------------------------------
books = st.lists(
    st.tuples(st.integers(-(10**9), 10**9), st.floats(-0.3, 0.3), st.integers(0, 3)), min_size=1, max_size=8
)


@given(books)
def test_a_nudge_is_bounded_flips_nothing_and_lifts_no_cut(book):
    cents, changes, levels = zip(*book, strict=True)
    after, reasons = policy.blend(cents, changes, levels)
    for index, (size, change, level) in enumerate(book):
        now = after[index]
        assert now * size >= 0
        assert abs(now) <= abs(size) * 1.3
        assert abs(now) >= abs(size) * 0.7 - 1
        if level:
            assert abs(now) <= abs(size)
        assert (now != size) <= (index in reasons)
        assert now == size or abs(now - size * (1.0 + change)) <= 1.0


def test_an_answer_nudges_the_size_by_its_confidence_and_says_what_it_revises():
    driver = live()
    baseline = last(driver)
    assert (baseline["final"], baseline["rl"]["mode"], cell_of(baseline)["status"]) == (False, "live", "open")
    answer(driver, asked(driver)[0], -0.2, 0.8)
    revised = last(driver)
    assert revised["trigger"] == {"id": baseline["decision_id"], "kind": "advice"}
    assert (revised["final"], revised["revises"], baseline["revises"]) == (True, baseline["decision_id"], None)
    assert cell_of(revised) == {
        "confidence": 0.8,
        "model_version": "test-1",
        "nudge": -0.2,
        "status": "counted",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
    }
    assert targets(revised)["BTC-USD"] == pytest.approx(targets(baseline)["BTC-USD"] * (1.0 - 0.2 * 0.8), abs=0.011)
    stages = [row["stage"] for row in revised["waterfall"]]
    assert stages == ["kept", "caps", "rl", "limits", "band", "lots"]


@pytest.mark.parametrize(("nudge", "factor"), [(5.0, 1.3), (-5.0, 0.7), (0.0, 1.0)])
def test_a_nudge_goes_no_further_than_its_bound(nudge, factor):
    driver = live()
    before = targets(last(driver))["BTC-USD"]
    answer(driver, asked(driver)[0], nudge)
    assert targets(last(driver))["BTC-USD"] == pytest.approx(before * factor, abs=0.011)


def test_a_nudge_grows_nothing_above_its_cap():
    driver = live()
    claim(driver, expected_return=0.01)
    before = last(driver)
    assert targets(before) == {"BTC-USD": 13_500.0}
    answer(driver, asked(driver)[-1], 0.3)
    after = last(driver)
    assert same(after, before)
    assert (after["trigger"]["kind"], after["bound"]) == ("advice", ["cell:momentum/BTC-USD"])


def test_a_cascade_cut_is_not_lifted_but_may_be_deepened():
    for nudge, factor in ((0.3, 1.0), (-0.3, 0.7)):
        driver = live()
        driver.publish(
            "cascade-indicators", {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "onchain_whale_pressure": 0.75}
        )
        driver.run()
        claim(driver)
        before = last(driver)
        assert before["cascade_recommendation"] != "MONITOR"
        answer(driver, asked(driver)[-1], nudge)
        assert targets(last(driver))["BTC-USD"] == pytest.approx(targets(before)["BTC-USD"] * factor, rel=1e-3)


def test_an_exit_stays_zero_and_is_not_even_asked_about():
    driver = live()
    readings = {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "onchain_whale_pressure": 1.0}
    driver.publish("cascade-indicators", {**readings, "oi_change_pct": -0.4})
    driver.run()
    answer(driver, asked(driver)[0], 0.3)
    assert targets(last(driver)).get("BTC-USD", 0.0) == 0.0
    questions = len(asked(driver))
    claim(driver)
    assert last(driver)["cascade_recommendation"] == "EXIT"
    assert len(asked(driver)) == questions
    assert last(driver)["final"] is True


# -- when an answer counts ------------------------------------------------------------------------------------------
def test_the_first_answer_wins():
    driver = live()
    request = asked(driver)[0]
    answer(driver, request, -0.2)
    after = driver.allocations()
    answer(driver, request, 0.3)
    no_answer(driver, request, "timeout")
    assert driver.allocations() == after


def test_an_answer_past_the_deadline_changes_nothing_and_the_deadline_makes_the_baseline_final():
    driver = live()
    baseline, request = last(driver), asked(driver)[0]
    driver.advance(6.0)
    closed = last(driver)
    assert closed["trigger"] == {"id": baseline["decision_id"], "kind": "deadline"}
    assert (closed["final"], cell_of(closed)["status"]) == (True, "deadline")
    assert same(closed, baseline)
    after = driver.allocations()
    answer(driver, request, -0.3)
    assert driver.allocations() == after


@pytest.mark.parametrize(("late_ns", "counts"), [(0, True), (1, False)])
def test_the_deadline_is_the_last_moment_that_counts(late_ns, counts):
    driver = live()
    request = asked(driver)[0]
    driver.now_ns = request["deadline_ns"] + late_ns
    answer(driver, request, -0.3)
    assert (last(driver)["trigger"]["kind"] == "advice") == counts


def test_a_reason_for_no_answer_makes_the_baseline_final():
    driver = live()
    baseline = last(driver)
    no_answer(driver, asked(driver)[0], "open")
    closed = last(driver)
    assert (closed["final"], cell_of(closed)["status"]) == (True, "breaker_open")
    assert same(closed, baseline)


def test_an_answer_to_a_question_that_is_none_is_noted_and_changes_nothing():
    driver = live()
    request = asked(driver)[0]
    after = driver.allocations()
    answer(driver, {**request, "symbol": "ETH-USD"}, 0.2)
    answer(driver, {**request, "portfolio_id": "other"}, 0.2)
    answer(driver, {**request, "decision_id": request["decision_id"].replace("-main", "-mine")}, 0.2)
    assert driver.allocations() == after


def test_a_newer_signal_puts_the_question_and_its_answer_aside():
    driver = live()
    first = asked(driver)[0]
    answer(driver, first, -0.3)
    nudged = targets(last(driver))["BTC-USD"]
    driver.advance(1.0)
    claim(driver)
    baseline = last(driver)
    assert targets(baseline)["BTC-USD"] == pytest.approx(nudged / 0.7, rel=1e-3)
    claim(driver)
    second, third = asked(driver)[1:]
    after = driver.allocations()
    answer(driver, second, -0.3)
    assert driver.allocations() == after
    answer(driver, third, -0.3)
    assert last(driver)["trigger"]["kind"] == "advice"


def test_an_answer_lasts_as_long_as_its_forecast_through_decisions_about_other_symbols():
    driver = live()
    answer(driver, asked(driver)[0], -0.3)
    nudged = targets(last(driver))["BTC-USD"]
    claim(driver, symbol="ETH-USD")
    both = last(driver)
    assert cell_of(both)["status"] == "counted"
    row = next(cell for cell in both["cells"] if cell["symbol"] == "BTC-USD")
    assert row["cents"] / 100 == pytest.approx(nudged, rel=0.2)
    answer(driver, asked(driver)[1], -0.3)
    again = last(driver)
    assert targets(again)["ETH-USD"] == pytest.approx(targets(both)["ETH-USD"] * 0.7, abs=0.02)
    assert targets(again)["BTC-USD"] == targets(both)["BTC-USD"]


def test_an_answer_never_brings_back_what_was_cut_since():
    driver = live()
    request = asked(driver)[0]
    state(driver)
    driver.publish(
        "cascade-indicators", {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "onchain_whale_pressure": 0.9}
    )
    driver.run()
    cut = last(driver)
    assert cut["trigger"]["kind"] == "cascade"
    answer(driver, request, 0.3)
    assert targets(last(driver)) == targets(cut)
    assert last(driver)["final"] is True


def test_little_confidence_counts_for_nothing():
    driver = live()
    before = last(driver)
    answer(driver, asked(driver)[0], -0.3, 0.49)
    assert cell_of(last(driver))["status"] == "low_confidence"
    assert same(last(driver), before)
    driver = live()
    answer(driver, asked(driver)[0], -0.3, 0.5)
    assert targets(last(driver))["BTC-USD"] == pytest.approx(targets(before)["BTC-USD"] * 0.85, abs=0.011)


# -- who lets it act -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("mode", "gate"), [("shadow", OPEN), ("live", None), ("live", Gate(status="closed"))])
def test_without_an_operator_and_without_evidence_it_is_asked_and_changes_nothing(mode, gate):
    driver = live(mode, gate)
    assert last(driver)["final"] is True
    after = driver.allocations()
    answer(driver, asked(driver)[0], -0.3)
    assert driver.allocations() == after
    advised = state(driver).predictions.get(("main", "momentum", "BTC-USD")).claims[-1].advised
    assert advised[1] == pytest.approx(advised[0] * 0.7, abs=1e-7)


def test_off_means_not_asked():
    driver = live("off")
    assert asked(driver) == []
    assert last(driver)["final"] is True
    assert last(driver)["rl"]["mode"] == "off"


def test_a_strategy_that_is_off_is_not_asked_about():
    driver = live()
    order(driver, "off", "strategy:carry")
    before = len(asked(driver))
    claim(driver, strategy_id="carry", symbol="ETH-USD")
    assert len(asked(driver)) == before
    claim(driver, symbol="ETH-USD")
    assert len(asked(driver)) == before + 1


def test_settings_that_end_the_asking_drop_the_questions():
    driver = live()
    held = state(driver)
    tree = held.params.model_dump()
    tree["rl"]["enabled"] = False
    wanted = DecisionParams.model_validate(tree)
    payload = {"base_hash": tree_hash(held.params), "hash": tree_hash(wanted), "tree": wanted.model_dump()}
    driver.publish("control", control(driver.now_ns, "settings", payload))
    driver.run()
    assert (last(driver)["final"], last(driver)["rl"]) == (True, None)
    assert held.questions.get(("main",)) is None
    answer(driver, asked(driver)[0], -0.3)
    assert last(driver)["trigger"]["kind"] == "settings"


def test_who_does_not_ask_shows_nothing_of_a_policy():
    driver = live(enabled=False)
    assert asked(driver) == []
    assert (last(driver)["rl"], last(driver)["final"]) == (None, True)
    assert "rl" not in [row["stage"] for row in last(driver)["waterfall"]]


@pytest.mark.parametrize(
    ("orders", "mode"),
    [
        ((), "shadow"),
        ((("live", "all"),), "live"),
        ((("live", "all"), ("off", "portfolio:main")), "off"),
        ((("off", "all"), ("live", "portfolio:main")), "live"),
        ((("live", "all"), ("off", "strategy:momentum")), "off"),
        ((("off", "all"), ("live", "strategy:momentum")), "off"),
        ((("live", "all"), ("off", "strategy:carry")), "live"),
    ],
)
def test_a_portfolios_mode_goes_before_that_of_all_and_a_strategys_only_restricts(orders, mode):
    driver = live("shadow")
    for number, (wanted, scope) in enumerate(orders):
        assert order(driver, wanted, scope, f"c-{number}") == "applied"
    assert policy.mode_of(state(driver), "main", "momentum") == mode


def test_an_order_that_makes_no_sense_is_refused():
    driver = live()
    payload = {"mode": "live", "scope": "symbol:BTC-USD"}
    driver.publish("control", control(driver.now_ns, "rl_mode", payload))
    driver.run()
    (letter,) = driver.read("control.dlq")
    assert dict(letter.headers)["himari.error.field"] == b"payload.scope"
    assert order(live(enabled=False), "live") == "rejected: rl.enabled is false"


def test_an_operator_takes_a_nudge_back_at_once():
    driver = live()
    before = targets(last(driver))["BTC-USD"]
    answer(driver, asked(driver)[0], -0.3)
    order(driver, "shadow")
    after = last(driver)
    assert after["trigger"] == {"id": "c-1", "kind": "control"}
    assert targets(after)["BTC-USD"] == pytest.approx(before, abs=0.011)


def test_only_an_operator_opens_a_gate_that_has_closed_and_with_fresh_evidence():
    driver = live(gate=Gate(status="closed", windows=99, lower=0.5))
    order(driver, "live", "portfolio:other")
    assert policy.gate_of(state(driver), "main").windows == 99
    order(driver, "live", "portfolio:main", "c-2")
    assert policy.gate_of(state(driver), "main") == Gate()
    driver = live()
    order(driver, "live")
    assert policy.gate_of(state(driver), "main") == OPEN


def settle_on(driver, **gate):
    """Order other settings of the gate."""
    base = state(driver).params
    tree = base.model_dump()
    tree["rl"]["gate"] |= gate
    wanted = DecisionParams.model_validate(tree)
    payload = {"base_hash": tree_hash(base), "hash": tree_hash(wanted), "tree": tree}
    driver.publish("control", control(driver.now_ns, "settings", payload))
    driver.run()
    assert state(driver).params == wanted


@pytest.mark.parametrize("gate", [{"bound": 0.2}, {"alpha": 0.5}])
@pytest.mark.parametrize("status", ["collecting", "open", "closed"])
def test_evidence_in_other_units_or_of_another_error_rate_is_none_and_what_is_closed_stays_closed(gate, status):
    driver = live(gate=OPEN._replace(status=status))
    settle_on(driver, **gate)
    assert policy.gate_of(state(driver), "main") == Gate("closed" if status == "closed" else "collecting")


def test_other_ways_to_bet_or_to_close_leave_the_evidence_as_it_is():
    driver = live()
    settle_on(driver, max_bet=0.4, cusum_slack=0.1, cusum_threshold=9.0)
    assert policy.gate_of(state(driver), "main") == OPEN


# -- evidence --------------------------------------------------------------------------------------------------------
def settle_newest(driver, realised, symbol="BTC-USD", **given_):
    """Let the outcome of a cell's newest claim come."""
    claims = state(driver).predictions.get(("main", "momentum", symbol)).claims
    settle(driver, claims[-1].signal_id, realised, symbol=symbol, **given_)


def scored(driver):
    gate = policy.gate_of(state(driver), "main")
    return gate.windows, gate.decisions


def test_both_sizes_are_scored_on_the_same_outcome_net_of_costs():
    driver = live("shadow", None)
    request = asked(driver)[0]
    answer(driver, request, 0.5)
    settle_newest(driver, 0.03)
    w_base = request["w_base"]
    w_policy = int(w_base * 100_000 * 100 * 1.3) / 10_000_000
    gate = policy.gate_of(state(driver), "main")
    assert (gate.decisions, gate.windows) == (1, 0)
    assert gate.summed_base == pytest.approx(w_base * 0.03 - 0.001 * w_base, rel=1e-9)
    assert gate.summed_policy == pytest.approx(w_policy * 0.03 - 0.001 * w_policy, rel=1e-9)
    driver.advance(3_600.0)
    priced(driver)
    claim(driver)
    answer(driver, asked(driver)[-1], 0.5)
    settle_newest(driver, 0.0)
    claim(driver)
    shown = last(driver)["rl"]["gate"]
    assert shown["advantage"] == pytest.approx(gate.summed_policy - gate.summed_base, rel=1e-12)
    assert (shown["windows"], shown["decisions"], shown["status"]) == (1, 2, "collecting")


def test_all_cells_of_a_window_make_one_sum():
    """BTC at 0, ETH a quarter of an hour later, SOL after .6 h, an hour of horizon each: SOL is in no window."""
    driver = live("shadow", None)
    answer(driver, asked(driver)[-1], 0.2)
    for symbol, wait_s in (("ETH-USD", 900.0), ("SOL-USD", 1_260.0)):
        driver.advance(wait_s)
        priced(driver)
        claim(driver, symbol=symbol)
        answer(driver, asked(driver)[-1], 0.2)
    for symbol in ("BTC-USD", "ETH-USD", "SOL-USD"):
        settle_newest(driver, 0.01, symbol)
    gate = policy.gate_of(state(driver), "main")
    assert (gate.windows, gate.decisions, gate.summed_decisions) == (0, 2, 2)
    driver.advance(3_600.0)
    priced(driver)
    claim(driver, symbol="SOL-USD")
    assert scored(driver) == (0, 2)
    answer(driver, asked(driver)[-1], 0.2)
    assert scored(driver) == (0, 2), "a decision alone closes nothing: late outcomes of the window may come"
    settle_newest(driver, 0.01, "SOL-USD")
    after = policy.gate_of(state(driver), "main")
    assert (after.windows, after.decisions) == (1, 3)
    assert after.policy_return == gate.summed_policy


def test_a_cell_is_scored_once_a_window_as_long_as_its_decision_is_open():
    driver = live("shadow", None)
    for number in range(3):
        claim(driver, signal_id=f"o-{number}")
        answer(driver, asked(driver)[-1], 0.2)
    for number in range(3):
        settle(driver, f"o-{number}", 0.01, holding_s=100.0)
    assert scored(driver) == (0, 1)
    claim(driver, signal_id="after")
    answer(driver, asked(driver)[-1], 0.2)
    settle(driver, "after", 0.01)
    assert scored(driver) == (0, 2)


def test_decisions_without_an_answer_are_not_scored():
    driver = live("shadow", None)
    settle_newest(driver, 0.01)
    assert scored(driver) == (0, 0)
    claim(driver)
    answer(driver, asked(driver)[-1], 0.2, 0.1)
    settle_newest(driver, 0.01)
    assert scored(driver) == (0, 0)


# -- the question ----------------------------------------------------------------------------------------------------
def test_the_policy_is_told_what_the_rules_know():
    driver = live()
    (record,) = driver.read("rl-requests")
    request = orjson.loads(record.value)
    RlRequest.model_validate_json(record.value)
    baseline = last(driver)
    assert record.key == b"main"
    assert request["decision_id"] == baseline["decision_id"]
    assert request["w_base"] == pytest.approx(targets(baseline)["BTC-USD"] / 100_000, abs=1e-7)
    assert request["deadline_ns"] == baseline["timestamp_ns"] + 5_000_000_000
    assert (request["action"], request["regime"], request["price"]) == ("buy", "ranging", 43_500.0)
    told = dict(zip(FEATURES, request["state"], strict=True))
    diagnostics = baseline["diagnostics"]
    assert told["side"] == 1.0
    assert told["expected_return"] == request["expected_return"] == diagnostics["expected_return"]
    assert told["predicted_return"] == diagnostics["kelly"]["mean"]
    assert told["inflation"] == diagnostics["conformal"]["inflation"]
    assert told["cap_factor"] == diagnostics["cap_factor"]
    assert told["regime_ranging"] == 1.0
    assert sum(told[f"regime_{name}"] for name in ("trending_up", "trending_down", "high_volatility", "crisis")) == 0.0


def test_each_signal_of_one_call_has_its_question():
    driver = live()
    body = {
        "prices": {"BTC-USD": 43_500.0, "ETH-USD": 2_280.0},
        "signals": [
            signal(driver.now_ns + 1, symbol=symbol, signal_id=f"call-{symbol}", expected_return=0.004)
            for symbol in ("BTC-USD", "ETH-USD")
        ],
    }
    driver.cluster.log(journal.TOPIC, 0).append(None, journal.internal("call", body, driver.now_ns + 1))
    driver.run()
    both = asked(driver)[-2:]
    assert [each["symbol"] for each in both] == ["BTC-USD", "ETH-USD"]
    assert len({each["decision_id"] for each in both}) == 1
    answer(driver, both[1], -0.3)
    assert last(driver)["final"] is False
    answer(driver, both[0], -0.3)
    assert last(driver)["final"] is True


def test_hold_and_expiry_ask_nothing():
    driver = live()
    claim(driver, action="hold", expected_return=None)
    driver.publish("prices", tick(driver.now_ns + 3_600_000_000_000, price=43_000.0), key=b"BTC-USD")
    driver.advance(3_601.0)
    assert last(driver)["trigger"]["kind"] in {"expiry", "deadline", "signal"}
    assert len(asked(driver)) == 1
