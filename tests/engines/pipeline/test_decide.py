"""Decisions: what they hold to, whatever came before; triggers, cuts by ratio, trading states, positions."""

from decimal import Decimal
from itertools import permutations
from math import ulp

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, SYMBOLS, TRUSTING, Driver, control, last, play, priced, scripts, signal, targets, tick

from engines.allocation import DECISION_VERSION
from engines.fold import apply
from engines.handlers.effects import Journaled
from engines.parameters import DecisionParams, tree_hash
from engines.pipeline.decide import MODES, RANKS, Trigger, stronger
from engines.pipeline.lots import in_lots
from engines.pipeline.sizing_modes import trading_states
from engines.state.partition import MARKET_WIDE, State
from engines.state.records import ScopeOverrides

NOW_NS = 1_700_000_000_000_000_000


def buy(driver, **given):
    driver.publish("signals", signal(driver.now_ns, **{"valid_for_s": 86_400, **given}))
    driver.advance(1.0)


def order(driver, kind, control_id="c-1", **payload):
    driver.publish("control", control(driver.now_ns, kind, payload, control_id))
    driver.run()


def resume(driver, control_id="c-1"):
    """Have everything sized again: a resume of what was only reduced, which takes nothing from what is held."""
    order(driver, "trading_state", f"before-{control_id}", scope="all", state="REDUCING")
    order(driver, "trading_state", control_id, scope="all", state="ACTIVE")


def move(driver, price, symbol="BTC-USD"):
    driver.publish("prices", tick(driver.now_ns, symbol, price), key=symbol.encode())
    driver.advance(2.0)


def level(driver, drop, symbol="BTC-USD"):
    driver.publish("cascade-indicators", {"symbol": symbol, "timestamp_ns": driver.now_ns, "oi_change_pct": -drop})
    driver.run()


def positions(driver, **quantities):
    known = {name.replace("_", "-"): quantity for name, quantity in quantities.items()}
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": known}
    driver.publish("positions", body)
    driver.advance(1.0)


def held(driver, portfolio="main"):
    """Return quantities by symbol, as last published."""
    return {symbol: target["quantity"] for symbol, target in last(driver, portfolio)["targets"].items()}


# -- triggers --------------------------------------------------------------------------------------------------------
triggers = st.builds(
    Trigger,
    st.sampled_from(RANKS),
    st.sampled_from("xyz"),
    st.sampled_from(tuple(MODES)),
    st.sampled_from((None, ("a", "BTC"), ("b", "ADA"))),
)


@given(st.lists(triggers, min_size=1, max_size=5))
def test_of_several_triggers_the_highest_names_the_decision_and_one_full_one_makes_it_full(given_):
    named = None
    for trigger in given_:
        named = stronger(named, trigger)
    assert RANKS.index(named.kind) == min(RANKS.index(trigger.kind) for trigger in given_)
    modes = [trigger.mode for trigger in given_]
    assert named.mode == next(mode for mode in ("full", "scale_down", "reuse") if mode in modes)
    assert named.full == ("full" in modes)


SEVERITIES = ("ACTIVE", "REDUCING", "HALTED")


@given(st.dictionaries(st.sampled_from(("all", "portfolio:p", "strategy:s", "symbol:x")), st.sampled_from(SEVERITIES)))
def test_the_most_severe_of_its_scopes_is_a_cells_state(scopes):
    state = State(0)
    state.scopes.put((MARKET_WIDE,), ScopeOverrides(tuple(sorted(scopes.items()))))
    worst = max((SEVERITIES.index(each) for each in scopes.values()), default=0)
    strangers = {scope: each for scope, each in scopes.items() if scope == "all"}
    others = max((SEVERITIES.index(each) for each in strangers.values()), default=0)
    assert trading_states(state, "p", [("s", "x")]) == [SEVERITIES[worst]]
    assert trading_states(state, "q", [("t", "y")]) == [SEVERITIES[others]]


# -- lots ------------------------------------------------------------------------------------------------------------
@given(st.floats(-1e5, 1e5), st.sampled_from(("1e-8", "0.001", "0.01", "0.1", "0.5", "1", "3", "0.3", "100")))
def test_lots_are_whole_and_toward_zero(quantity, lot):
    found = in_lots(quantity, float(lot))
    count = Decimal(found) / Decimal(lot)
    assert abs(count - round(count)) <= Decimal(ulp(found)) / Decimal(lot)
    assert abs(found) <= abs(quantity) * (1 + 1e-12)
    assert abs(quantity) - abs(found) < float(lot) * (1 + 1e-6)
    assert found * quantity >= 0


@pytest.mark.parametrize(
    ("quantity", "lot", "found"),
    [
        (0.31034482, 1e-8, 0.31034482),
        (0.29999999999, 0.1, 0.2),
        (-7.9, 3.0, -6.0),
        (0.0009, 0.001, 0.0),
        (12.5, 0.5, 12.5),
    ],
)
def test_lots_by_hand(quantity, lot, found):
    assert in_lots(quantity, lot) == found


def test_a_target_is_published_in_whole_lots_of_its_symbol():
    tree = TRUSTING.model_dump()
    tree["position_sizing"]["lots"] = {"BTC-USD": 0.05}
    driver = priced(Driver(DecisionParams.model_validate(tree)))
    buy(driver)
    assert last(driver)["targets"]["BTC-USD"] == {"notional_usd": 13_050.0, "quantity": 0.3, "weight": 0.1305}


# -- one call --------------------------------------------------------------------------------------------------------
def folded(entries):
    """Fold Genesis and entries (kind, body) of one second each; return the state and the last one's effects."""
    state = State(0)
    params = TRUSTING
    genesis = {
        "decision_version": DECISION_VERSION,
        "journal_id": "CALLS222",
        "partitions": 1,
        "settings": params.model_dump(),
        "settings_hash": tree_hash(params),
    }
    found = None
    for offset, (kind, body) in enumerate([("genesis", genesis), *entries]):
        now_ns = NOW_NS + offset * 1_000_000_000
        found = apply(state, Journaled(offset, kind, "", 0, 0, 0, now_ns, body, orjson.dumps(body)))
    return state, found


HASHES = {"inputs_hash", "previous_hash"}


def known(state):
    """Return all records, without what only names bytes."""
    tables = {table: dict(records) for table, records in state.tables.items()}
    tables["books"] = {key: book._replace(last_hash="") for key, book in tables["books"].items()}
    tables["predictions"] = {k: c._replace(seen=tuple(sorted(c.seen))) for k, c in tables["predictions"].items()}
    return tables


calls = st.lists(
    st.builds(
        lambda strategy, symbol, portfolio, action, size, regime: signal(
            NOW_NS,
            strategy_id=strategy,
            symbol=symbol,
            portfolio_id=portfolio,
            action=action,
            expected_return=-size if "sell" in action else size,
            regime=regime,
        ),
        st.sampled_from(("a", "b", "c")),
        st.sampled_from(SYMBOLS),
        st.sampled_from(("main", "other")),
        st.sampled_from(("buy", "sell", "hold", "strong_buy")),
        st.floats(0.001, 0.05),
        st.sampled_from(("ranging", "crisis", "trending_up", "high_volatility")),
    ),
    min_size=2,
    max_size=5,
    unique_by=lambda each: (each["portfolio_id"], each["strategy_id"], each["symbol"]),
)


@settings(max_examples=50)
@given(calls, calls, st.randoms(use_true_random=False))
def test_the_order_of_the_signals_of_one_call_changes_nothing(before, signals, chance):
    before = [{**each, "signal_id": f"s-{i}"} for i, each in enumerate(before)]
    signals = [{**each, "signal_id": f"t-{i}"} for i, each in enumerate(signals)]
    shuffled = chance.sample(signals, len(signals))
    first = ("call", {"prices": PRICES, "signals": before})
    one, its = folded([first, ("call", {"prices": PRICES, "signals": signals})])
    other, others = folded([first, ("call", {"prices": PRICES, "signals": shuffled})])
    assert known(one) == known(other)
    for here, there in zip(its.allocations, others.allocations, strict=True):
        left, right = orjson.loads(here.value), orjson.loads(there.value)
        assert {k: v for k, v in left.items() if k not in HASHES} == {k: v for k, v in right.items() if k not in HASHES}


def test_every_signal_of_a_call_leaves_a_claim():
    signals = [signal(NOW_NS, symbol=symbol, signal_id=f"s-{symbol}") for symbol in SYMBOLS]
    for order_ in permutations(signals):
        state, _ = folded([("call", {"prices": PRICES, "signals": list(order_)})])
        for symbol in SYMBOLS:
            (claim,) = state.predictions.get(("main", "momentum", symbol)).claims
            assert claim.signal_id == f"s-{symbol}"
            assert claim.weight > 0


# -- a decision again ------------------------------------------------------------------------------------------------
@settings(max_examples=50)
@given(scripts)
def test_deciding_again_changes_nothing(script):
    """A portfolio in which nothing lives any more is not decided; main's first forecast outlives every script."""
    driver = priced()
    buy(driver, strategy_id="patient", valid_for_s=86_400 * 30)
    play(driver, script)
    for number in range(2):
        resume(driver, f"again-{number}")
    found = {portfolio: _again(driver, portfolio) for portfolio in ("main", "alpha", "beta")}
    assert len(found["main"]) == 2
    assert {len(each) for each in found.values()} <= {0, 2}
    for one, other in (each for each in found.values() if each):
        _same_targets(one, other)


def _again(driver, portfolio):
    """Return what the orders to decide again led to, oldest first."""
    found = sorted(driver.allocations(portfolio), key=lambda each: each["sequence"])
    return [each for each in found if each["trigger"]["id"].startswith("again")]


@settings(max_examples=50)
@given(scripts, st.sampled_from(SYMBOLS))
def test_a_hold_leaves_every_target_as_it_is(script, symbol):
    driver = priced()
    play(driver, script)
    resume(driver, "fresh")
    for number in range(2):
        hold = signal(driver.now_ns, action="hold", symbol=symbol, strategy_id="carry", signal_id=f"hold-{number}")
        driver.publish("signals", hold)
        driver.run()
    found = sorted(driver.allocations("main"), key=lambda each: each["sequence"])
    assert [each["trigger"]["id"] for each in found[-2:]] == ["hold-0", "hold-1"]
    for one, other in zip(found[-3:], found[-2:], strict=False):
        _same_targets(one, other)


def _same_targets(one, other):
    """Quantities to the last digit; notionals to what a lot of 1e-8 coins leaves of a cent."""
    for symbol in one["targets"].keys() & other["targets"].keys():
        before, after = one["targets"][symbol], other["targets"][symbol]
        assert after["quantity"] == before["quantity"], symbol
        assert after["notional_usd"] == pytest.approx(before["notional_usd"], abs=0.02), symbol
    gone = one["targets"].keys() - other["targets"].keys()
    assert all(one["targets"][symbol]["quantity"] == 0 for symbol in gone)


# -- cuts ------------------------------------------------------------------------------------------------------------
def test_a_cut_is_taken_once_and_a_deeper_one_takes_the_rest():
    driver = priced()
    buy(driver, expected_return=0.004)
    before = held(driver)["BTC-USD"]
    for drop, left in ((0.095, 1 / 2), (0.096, 1 / 2), (0.115, 1 / 4), (0.1, 1 / 4), (0.0, 1 / 4)):
        level(driver, drop)
        assert held(driver)["BTC-USD"] == pytest.approx(before * left, rel=1e-5)
    assert [each["trigger"]["kind"] for each in driver.allocations()] == ["signal", "cascade", "cascade"]


def test_what_was_cut_stays_cut_while_the_level_falls_and_a_signal_restores_it():
    driver = priced()
    buy(driver, expected_return=0.004, valid_for_s=86_400 * 3)
    before = held(driver)["BTC-USD"]
    level(driver, 0.10)
    half = held(driver)["BTC-USD"]
    level(driver, 0.0)
    for _ in range(6):
        driver.advance(3_600.0)
    move(driver, PRICES["BTC-USD"])
    order(driver, "portfolio_value", portfolio_id="main", value_usd=100_000.0)
    assert last(driver)["trigger"]["kind"] == "value"
    assert held(driver)["BTC-USD"] == half
    buy(driver, expected_return=0.004)
    assert held(driver)["BTC-USD"] > before, "all of it, and more: it has been renewed"


def test_a_level_that_comes_again_takes_nothing_more_of_what_it_cut():
    driver = priced()
    buy(driver, expected_return=0.004, valid_for_s=86_400 * 3)
    for wave in range(3):
        level(driver, 0.095)
        if not wave:
            half = held(driver)["BTC-USD"]
        level(driver, 0.0)
        for _ in range(6):
            driver.advance(3_600.0)
    kinds = [each["trigger"]["kind"] for each in driver.allocations()]
    assert kinds.count("cascade") == 1, "the next waves change nothing, and nor does a level that is left"
    assert held(driver)["BTC-USD"] == half


def test_a_hold_leaves_the_forecast_too():
    driver = priced()
    buy(driver, expected_return=0.004, signal_id="s-1")
    before = held(driver)
    buy(driver, action="hold", expected_return=0.0, signal_id="s-2")
    resume(driver)
    assert last(driver)["trigger"]["kind"] == "resume"
    assert held(driver) == before


def test_cuts_of_drawdown_and_cascade_multiply():
    driver = priced()
    order(driver, "portfolio_value", "v-1", portfolio_id="main", value_usd=100_000.0)
    buy(driver, expected_return=0.004)
    before = held(driver)["BTC-USD"]
    level(driver, 0.10)
    order(driver, "portfolio_value", "v-2", portfolio_id="main", value_usd=90_000.0)
    fall = (1 - 0.7 / 0.9) / 0.3
    assert held(driver)["BTC-USD"] == pytest.approx(before * 0.5 * fall, rel=1e-5)


def test_by_ratio_the_cap_is_cut_with_the_cell():
    driver = priced()
    buy(driver)
    assert targets(last(driver)) == {"BTC-USD": 13_500.0}
    level(driver, 0.10)
    assert targets(last(driver))["BTC-USD"] == pytest.approx(6_750.0, abs=0.02)
    move(driver, PRICES["BTC-USD"] * 1.09)
    move(driver, PRICES["BTC-USD"] * 1.2)
    assert last(driver)["trigger"]["kind"] == "cap"
    assert targets(last(driver))["BTC-USD"] == pytest.approx(0.99 * 6_750.0, abs=0.02)


def test_a_level_of_the_other_side_cuts_nothing():
    driver = priced()
    buy(driver, expected_return=0.004)
    before = held(driver)
    reading = {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "exchange_netflow_zscore": -5.0}
    driver.publish("cascade-indicators", reading)
    driver.run()
    assert held(driver) == before
    buy(driver, symbol="ETH-USD", signal_id="eth")
    assert held(driver)["BTC-USD"] == before["BTC-USD"]


# -- trading states --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scope", ["all", "portfolio:main", "strategy:momentum", "symbol:BTC-USD"])
def test_reducing_lets_only_smaller_sizes_of_the_same_sign_pass(scope):
    driver = priced()
    buy(driver, expected_return=0.004, signal_id="s-1")
    before = targets(last(driver))["BTC-USD"]
    order(driver, "trading_state", scope=scope, state="REDUCING")
    buy(driver, expected_return=0.006, signal_id="s-2")
    assert targets(last(driver))["BTC-USD"] == pytest.approx(before, abs=0.02)
    assert last(driver)["waterfall"][-3]["reason"] == "REDUCING"
    assert last(driver)["waterfall"][-3]["after_cents"] == pytest.approx(100 * before, abs=2)
    buy(driver, expected_return=0.001, signal_id="s-3")
    smaller = targets(last(driver))["BTC-USD"]
    assert 0 < smaller < before
    buy(driver, action="sell", expected_return=-0.01, signal_id="s-4")
    assert targets(last(driver))["BTC-USD"] == 0.0
    buy(driver, action="buy", expected_return=0.01, signal_id="s-5")
    assert targets(last(driver)).get("BTC-USD", 0.0) == 0.0, "nothing is opened"


def test_a_halt_of_one_strategy_leaves_the_others():
    driver = priced()
    buy(driver, strategy_id="a", signal_id="s-1", expected_return=0.004)
    buy(driver, strategy_id="b", signal_id="s-2", expected_return=0.004)
    both = targets(last(driver))["BTC-USD"]
    order(driver, "trading_state", scope="strategy:a", state="HALTED")
    assert targets(last(driver))["BTC-USD"] == pytest.approx(both / 2, abs=0.02)
    assert last(driver)["portfolio_waterfall"][1]["stage"] == "cut"


# -- sides, expiry, sizes --------------------------------------------------------------------------------------------
def test_opposite_cells_are_set_off_before_the_caps():
    driver = priced()
    buy(driver, strategy_id="a", signal_id="s-1")
    buy(driver, strategy_id="b", signal_id="s-2", action="sell", expected_return=-0.01)
    found = last(driver)
    assert targets(found) == {"BTC-USD": 0.0}
    assert found["totals"] == {"gross_usd": 0.0, "net_usd": 0.0, "utilization_ratio": 0.0}
    assert held(driver) == {"BTC-USD": 0.0}
    buy(driver, strategy_id="b", signal_id="s-3", action="sell", expected_return=-0.003)
    assert targets(last(driver))["BTC-USD"] == pytest.approx(13_500.0, abs=0.02)
    assert [(row["strategy_id"], row["symbol"]) for row in last(driver)["cells"]] == [("a", "BTC-USD")]


def test_shorts_are_a_reduction_to_zero_where_they_are_off():
    tree = TRUSTING.model_dump()
    tree["risk_management"]["allow_short"] = False
    driver = priced(Driver(DecisionParams.model_validate(tree)))
    buy(driver, signal_id="s-1")
    buy(driver, signal_id="s-2", action="sell", expected_return=-0.01)
    assert targets(last(driver)) == {"BTC-USD": 0.0}
    assert last(driver)["waterfall"][0]["reason"] == "shorts are off"


def test_a_forecast_that_is_sent_again_lives_from_then_on():
    driver = priced()
    buy(driver, valid_for_s=30, signal_id="s-1", expected_return=0.004)
    driver.advance(20.0)
    buy(driver, valid_for_s=30, signal_id="s-2", expected_return=0.004)
    driver.advance(20.0)
    driver.advance(1.0)
    assert targets(last(driver))["BTC-USD"] > 0
    driver.advance(20.0)
    driver.advance(1.0)
    assert targets(last(driver)) == {"BTC-USD": 0.0}
    assert [each["trigger"]["kind"] for each in driver.allocations()] == ["signal", "signal", "expiry"]


def test_one_cell_that_expires_leaves_the_other_as_it_is():
    driver = priced()
    buy(driver, strategy_id="a", valid_for_s=30, signal_id="s-1", expected_return=0.004)
    alone = held(driver)["BTC-USD"]
    buy(driver, strategy_id="b", valid_for_s=3_000, signal_id="s-2", expected_return=0.004)
    driver.advance(31.0)
    driver.advance(1.0)
    assert last(driver)["trigger"] == {"id": "a/BTC-USD", "kind": "expiry"}
    assert held(driver)["BTC-USD"] == pytest.approx(alone, rel=1e-6)


def test_the_largest_position_holds_for_each_side_of_a_symbol():
    tree = TRUSTING.model_dump()
    tree["validation_criteria"]["max_position_usd"] = 5_000.0
    driver = priced(Driver(DecisionParams.model_validate(tree)))
    buy(driver, strategy_id="a", signal_id="s-1")
    buy(driver, strategy_id="b", signal_id="s-2")
    assert targets(last(driver))["BTC-USD"] == pytest.approx(5_000.0, abs=0.02)
    buy(driver, strategy_id="c", signal_id="s-3", action="sell", expected_return=-0.01)
    found = last(driver)
    assert found["totals"]["gross_usd"] <= 10_000.0
    assert found["waterfall"][-3]["reason"] in {"", "max_position_usd"}
    move(driver, PRICES["BTC-USD"] * 1.3)
    assert last(driver)["totals"]["gross_usd"] <= 10_000.0


def test_a_book_at_its_cap_calls_for_nothing_while_prices_stand():
    driver = priced()
    buy(driver, strategy_id="c", signal_id="s-0", expected_return=0.0, risk_score=0.0)
    for name in "ab":
        buy(driver, strategy_id=name, signal_id=f"s-{name}", expected_return=0.02, risk_score=0.9)
    assert last(driver)["bound"] == ["symbol:BTC-USD"], "a symbol's cap is that of its freest cell, held or not"
    count = len(driver.allocations())
    for _ in range(3):
        move(driver, PRICES["BTC-USD"])
    assert len(driver.allocations()) == count
    move(driver, PRICES["BTC-USD"] * 1.05)
    assert last(driver)["trigger"] == {"id": "BTC-USD", "kind": "cap"}
    assert targets(last(driver))["BTC-USD"] == pytest.approx(0.99 * 15_000.0, abs=0.02)


# -- positions -------------------------------------------------------------------------------------------------------
def test_a_report_moves_no_target_and_the_next_signal_measures_the_band_against_it():
    driver = priced()
    buy(driver, expected_return=0.004)
    wanted = held(driver)["BTC-USD"]
    driver.advance(30.0)
    positions(driver, BTC_USD=wanted / 2)
    assert len(driver.allocations()) == 1
    buy(driver, expected_return=0.004, signal_id="s-2")
    assert (last(driver)["basis"], last(driver)["kept"]) == ("positions", [])
    assert held(driver)["BTC-USD"] == pytest.approx(wanted, rel=0.02), "renewed after a part of its horizon"
    driver.advance(30.0)
    positions(driver, BTC_USD=wanted * 0.95)
    buy(driver, expected_return=0.004, signal_id="s-3")
    assert last(driver)["kept"] == ["BTC-USD"]
    assert held(driver)["BTC-USD"] == wanted * 0.95


def test_a_report_that_was_made_before_the_newest_target_says_nothing_of_it():
    driver = priced()
    buy(driver, expected_return=0.004)
    wanted = held(driver)["BTC-USD"]
    positions(driver, BTC_USD=wanted / 2)
    buy(driver, expected_return=0.004, signal_id="s-2")
    assert (last(driver)["basis"], last(driver)["kept"]) == ("targets", ["BTC-USD"])
    assert held(driver)["BTC-USD"] == wanted


def test_a_position_without_a_target_of_ours_is_shown_and_left_alone():
    driver = priced()
    positions(driver, ETH_USD=100.0)
    found = last(driver)
    assert found["targets"] == {"ETH-USD": {"notional_usd": 228_000.0, "quantity": 100.0, "weight": 2.28}}
    assert (found["unmanaged"], found["allocations"], found["cells"]) == (["ETH-USD"], {}, [])
    assert found["totals"] == {"gross_usd": 0.0, "net_usd": 0.0, "utilization_ratio": 0.0}
    buy(driver)
    assert held(driver) == {"BTC-USD": pytest.approx(0.31034482), "ETH-USD": 100.0}
    positions(driver, ETH_USD=90.0, BTC_USD=held(driver)["BTC-USD"])
    assert len(driver.allocations()) == 2, "the same coins are unmanaged"
    positions(driver, BTC_USD=held(driver)["BTC-USD"])
    assert (last(driver)["sequence"], last(driver)["unmanaged"]) == (3, [])


def test_a_first_target_takes_charge_of_what_was_unmanaged():
    driver = priced()
    positions(driver, BTC_USD=0.1)
    buy(driver)
    assert (held(driver)["BTC-USD"], last(driver)["unmanaged"]) == (pytest.approx(0.31034482), [])
    buy(driver, signal_id="s-2", action="sell", expected_return=0.0)
    assert held(driver)["BTC-USD"] == 0.0, "a decision closes it now"


def test_a_signal_that_is_sized_to_nothing_does_not_close_what_is_unmanaged():
    driver = priced()
    positions(driver, BTC_USD=0.1)
    buy(driver, expected_return=0.0)
    assert (held(driver)["BTC-USD"], last(driver)["unmanaged"]) == (0.1, ["BTC-USD"])
    assert last(driver)["allocations"] == {"BTC-USD": 0.0}


def test_what_is_unmanaged_is_closed_where_the_settings_say_so():
    tree = TRUSTING.model_dump()
    tree["portfolio"]["unmanaged"] = "flatten"
    driver = priced(Driver(DecisionParams.model_validate(tree)))
    positions(driver, ETH_USD=1.0)
    assert (held(driver), last(driver)["unmanaged"]) == ({"ETH-USD": 0.0}, [])
    positions(driver, ETH_USD=0.9)
    assert len(driver.allocations()) == 1, "asked for once; the target stands"


def test_a_reduction_that_is_not_carried_out_yet_is_not_undone():
    driver = priced()
    buy(driver, expected_return=0.004)
    wanted = held(driver)["BTC-USD"]
    positions(driver, BTC_USD=wanted)
    level(driver, 0.10)
    cut = held(driver)["BTC-USD"]
    assert cut == pytest.approx(wanted / 2, rel=1e-5)
    order(driver, "portfolio_value", "v-1", portfolio_id="main", value_usd=100_500.0)
    assert held(driver)["BTC-USD"] == cut
    assert last(driver)["waterfall"] == []
    positions(driver, BTC_USD=wanted * 0.9)
    order(driver, "portfolio_value", "v-2", portfolio_id="main", value_usd=100_000.0)
    assert held(driver)["BTC-USD"] == cut


def test_a_cut_never_buys_back_what_is_not_held_any_more():
    driver = priced()
    buy(driver, expected_return=0.004, valid_for_s=86_400)
    wanted = held(driver)["BTC-USD"]
    driver.advance(30.0)
    positions(driver, BTC_USD=wanted / 4)
    level(driver, 0.10)
    assert held(driver)["BTC-USD"] == pytest.approx(wanted / 4, rel=1e-5), "half is asked for, a quarter is there"
    reasons = {row["stage"]: row for row in last(driver)["portfolio_waterfall"]}
    assert reasons["limits"]["gross_cents"] == pytest.approx(2 * reasons["band"]["gross_cents"], rel=1e-4)
    positions(driver, BTC_USD=0.0)
    driver.advance(31.0)
    positions(driver, BTC_USD=0.0)
    level(driver, 0.115)
    assert held(driver)["BTC-USD"] == 0.0, "a stop was hit at the exchange"
    buy(driver, expected_return=0.004, signal_id="s-2", timestamp_ns=driver.now_ns)
    assert held(driver)["BTC-USD"] > 0.0, "the next signal may"


def test_a_cut_below_the_band_is_not_published_and_not_forgotten():
    driver = priced()
    order(driver, "portfolio_value", "v-0", portfolio_id="main", value_usd=100_000.0)
    buy(driver, expected_return=0.004)
    first = held(driver)["BTC-USD"]
    seen = len(driver.allocations())
    for equity in (99_500.0, 99_000.0, 98_500.0, 98_000.0):
        reported(driver, equity)
    assert len(driver.allocations()) == seen, "each takes less than a tenth of what is left"
    reported(driver, 95_000.0)
    fall = (1 - 0.7 * 100 / 95) / 0.3
    assert held(driver)["BTC-USD"] == pytest.approx(first * fall, rel=1e-5), "all of it at once"
    assert last(driver)["trigger"] == {"id": "positions", "kind": "value"}


def reported(driver, equity):
    """Report what is held exactly as intended, and an equity."""
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "equity": equity, "quantities": held(driver)}
    driver.publish("positions", body)
    driver.advance(1.0)


def test_an_exit_that_is_not_carried_out_yet_stays_an_exit():
    driver = priced()
    buy(driver, expected_return=0.004)
    positions(driver, BTC_USD=held(driver)["BTC-USD"])
    readings = {"symbol": "BTC-USD", "oi_change_pct": -0.6, "onchain_whale_pressure": 1.0}
    driver.publish("cascade-indicators", {"timestamp_ns": driver.now_ns, **readings})
    driver.run()
    assert held(driver)["BTC-USD"] == 0.0
    order(driver, "portfolio_value", "v-1", portfolio_id="main", value_usd=100_500.0)
    assert held(driver).get("BTC-USD", 0.0) == 0.0


def test_a_broken_cap_is_reported_once_a_breach():
    driver = priced()
    buy(driver)
    seen = len(driver.allocations())
    wanted = held(driver)["BTC-USD"]
    driver.advance(30.0)
    positions(driver, BTC_USD=wanted * 1.5)
    assert breaches(driver) == [pytest.approx(1.5, rel=1e-3)]
    for _ in range(5):
        move(driver, PRICES["BTC-USD"] * 1.001)
        positions(driver, BTC_USD=wanted * 1.5)
    assert len(breaches(driver)) == 1
    assert len(driver.allocations()) == seen, "the target is within its cap: only its execution is missing"
    positions(driver, BTC_USD=wanted)
    move(driver, PRICES["BTC-USD"])
    positions(driver, BTC_USD=wanted)
    positions(driver, BTC_USD=wanted * 1.5)
    assert len(breaches(driver)) == 2, "it was over in between"


def breaches(driver):
    alerts = (orjson.loads(record.value) for record in driver.read("alerts"))
    return [alert["value"] for alert in alerts if alert["kind"] == "risk_budget"]


def test_prices_cut_at_a_hundredth_over_the_cap_to_a_hundredth_below():
    driver = priced()
    buy(driver)
    seen = len(driver.allocations())
    for rise in (1.002, 1.005, 1.0099):
        move(driver, PRICES["BTC-USD"] * rise)
    assert (len(driver.allocations()), breaches(driver)) == (seen, [])
    move(driver, PRICES["BTC-USD"] * 1.0101)
    assert last(driver)["trigger"] == {"id": "BTC-USD", "kind": "cap"}
    assert targets(last(driver))["BTC-USD"] == pytest.approx(0.99 * 13_500.0, abs=0.02)
    assert breaches(driver) == [pytest.approx(1.0101, abs=1e-4)]
    for fall in (1.0, 1.01, 1.005, 1.019):
        move(driver, PRICES["BTC-USD"] * fall)
    assert (len(driver.allocations()), len(breaches(driver))) == (seen + 1, 1)


def test_older_positions_change_nothing():
    driver = priced()
    positions(driver, BTC_USD=0.1)
    count = len(driver.allocations())
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns - 10**10, "quantities": {"BTC-USD": 5.0}}
    driver.publish("positions", body)
    driver.advance(1.0)
    assert len(driver.allocations()) == count
    assert held(driver) == {"BTC-USD": 0.1}
    assert last(driver)["unmanaged"] == ["BTC-USD"]


def test_positions_may_bring_the_equity():
    driver = priced()
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": {}, "equity": 200_000.0}
    driver.publish("positions", body)
    driver.advance(1.0)
    assert not driver.allocations(), "there is nothing to cut"
    buy(driver)
    assert last(driver)["portfolio_value"] == 200_000.0
    assert targets(last(driver)) == {"BTC-USD": 27_000.0}
