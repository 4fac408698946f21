"""Strategies of a portfolio: they join, learn, drift and leave, and all of it is in the checkpoint."""

from itertools import permutations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, TRUSTING, Driver, last, priced, signal, tick

from engines.models import ensemble
from engines.models.ensemble import StrategyWeight
from engines.parameters import DecisionParams
from engines.state import strategies
from engines.state.partition import State

HOUR_NS = 3_600 * 10**9
NAMES = ("carry", "momentum", "value")


def params(**changed):
    tree = TRUSTING.model_dump()
    tree["position_sizing"]["ensemble"] |= changed
    return DecisionParams.model_validate(tree)


def world(**changed):
    driver = Driver(params(**changed), partitions=1)
    return priced(driver)


def state_of(driver):
    return driver.processors["journal", 0][0].state


def known(driver, portfolio="main"):
    """Return {strategy: (weight, reference)}."""
    record = state_of(driver).strategies.get((portfolio,))
    return dict(zip(record.names, zip(record.weights, record.references, strict=True), strict=True))


def claim(driver, strategy, number=0, **given_):
    driver.publish("prices", tick(driver.now_ns), key=b"BTC-USD")
    driver.advance(2.0)
    fields = signal(driver.now_ns, strategy_id=strategy, signal_id=f"{strategy}-{number}", **given_)
    driver.publish("signals", fields)
    driver.run()


def settle(driver, strategy, realised, number=0, **given_):
    body = {
        "strategy_id": strategy,
        "symbol": "BTC-USD",
        "signal_id": f"{strategy}-{number}",
        "side": 1,
        "realized_return": realised,
        "holding_s": 1,
        "timestamp_ns": driver.now_ns,
        **given_,
    }
    driver.publish("outcomes", body)
    driver.advance(2.0)


def alerts(driver):
    found = [orjson.loads(record.value) for record in driver.read("alerts")]
    return [each for each in found if each["kind"] == "drift"]


def test_a_strategy_joins_with_an_equal_part_at_its_first_signal():
    driver = world()
    for count, name in enumerate(NAMES, start=1):
        claim(driver, name)
        weights = known(driver)
        assert len(weights) == count
        assert all(pair == pytest.approx((1 / count, 1 / count)) for pair in weights.values())


def test_an_outcome_moves_the_weights_as_hedge_does():
    driver = world()
    for name in NAMES[:2]:
        claim(driver, name)
    settle(driver, "carry", 0.03)
    loss = ensemble.loss(1, 0.03, 0.02)
    halves = {name: StrategyWeight(0.5, 0.5) for name in NAMES[:2]}
    expected = ensemble.observe(halves, "carry", loss, params().position_sizing.ensemble)
    assert known(driver) == {name: tuple(each) for name, each in expected.items()}
    assert known(driver)["carry"][0] > 0.5


def test_outcomes_that_overlap_count_for_less():
    driver = world()
    claim(driver, "momentum")
    for number in range(2):
        claim(driver, "carry", number)
    settle(driver, "carry", 0.03, 0, holding_s=3_600)
    once = known(driver)["carry"][0]
    settle(driver, "carry", 0.03, 1, holding_s=3_600)
    first, second = once - 0.5, known(driver)["carry"][0] - once
    assert second == pytest.approx(first / 2, rel=0.05)


def test_a_drift_alerts_once_until_it_is_over():
    driver = world(horizon_outcomes=20, reference_outcomes=10.0)
    for name in NAMES[:2]:
        claim(driver, name)
    for number in range(1, 9):
        claim(driver, "carry", number)
        settle(driver, "carry", 0.06, number)
    [found] = alerts(driver)
    assert found["subject"] == "main"
    assert found["value"] >= found["threshold"] == 0.2
    assert state_of(driver).strategies.get(("main",)).drift.drifted == ("carry", "momentum")
    claim(driver, "carry", 99)
    assert last(driver)["drift"]["alert"] is True
    assert last(driver)["drifted_strategies"] == ["carry", "momentum"]


def test_a_strategy_that_is_silent_for_too_long_leaves_to_the_others():
    driver = world(inactive_after_s=7_200)
    for name in NAMES[:2]:
        claim(driver, name)
    for number in range(1, 6):
        driver.advance(3_700.0)
        claim(driver, "carry", number)
    assert list(known(driver)) == ["carry"]
    assert known(driver)["carry"] == (1.0, 1.0)


def test_a_drift_that_the_leaving_of_others_brings_about_is_told_of_too():
    driver = world(inactive_after_s=7_200)
    state = state_of(driver)
    for name in NAMES:
        claim(driver, name)
    record = state.strategies.get(("main",))
    record = record._replace(weights=(0.36, 0.04, 0.6), references=(0.22, 0.18, 0.6))
    state.strategies.put(("main",), record)
    for number in range(1, 5):
        driver.advance(3_700.0)
        claim(driver, "carry", number)
        claim(driver, "momentum", number)
    [found] = alerts(driver)
    assert list(known(driver)) == ["carry", "momentum"]
    assert found["value"] == pytest.approx(0.14 / 0.4)
    assert last(driver)["drift"] == {"alert": True, "ratio": found["value"]}


def test_a_strategy_that_has_spoken_within_the_time_stays():
    driver = world(inactive_after_s=3_600)
    claim(driver, "carry")
    driver.advance(3_500.0)
    claim(driver, "carry", 1)
    driver.advance(200.0)
    claim(driver, "momentum")
    assert list(known(driver)) == ["carry", "momentum"]


def test_a_strategy_that_has_left_comes_back_by_its_next_signal_as_a_new_one():
    driver = world(inactive_after_s=3_600)
    for name in NAMES[:2]:
        claim(driver, name)
    settle(driver, "carry", 0.06)
    driver.advance(3 * 3_600.0)
    claim(driver, "momentum", 1)
    assert list(known(driver)) == ["momentum"]
    claim(driver, "carry", 1)
    assert known(driver) == {"carry": (0.5, 0.5), "momentum": (0.5, 0.5)}


def test_the_order_of_the_signals_of_one_call_makes_no_other_record():
    from engines.fold import apply  # noqa: PLC0415
    from engines.handlers.effects import Journaled  # noqa: PLC0415 (only here)

    records = []
    for order in permutations(NAMES):
        driver = world()
        state = state_of(driver)
        rows = [signal(driver.now_ns, strategy_id=name, signal_id=name) for name in order]
        body = {"signals": [*rows, signal(driver.now_ns, strategy_id="carry", symbol="ETH-USD", signal_id="eth")]}
        folded = apply(state, Journaled(99, "call", "", 0, 0, 0, driver.now_ns, body, b"a call"))
        fields = orjson.loads(folded.allocations[0].value)
        assert fields["strategy_weights"] == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
        records.append((state.strategies.get(("main",)), fields["targets"], fields["strategy_weights"]))
    assert all(record == records[0] for record in records)


def test_forecasts_of_one_symbol_tell_how_alike_strategies_are():
    driver = world(correlation_samples=5)
    for number in range(6):
        for name in NAMES[:2]:
            claim(driver, name, number, expected_return=0.01 + 0.002 * number)
    record = state_of(driver).strategies.get(("main",))
    assert record.forecasts.samples == 11
    assert strategies.rho_of(state_of(driver), "main") == pytest.approx(1.0, abs=0.05)


def test_a_portfolio_of_one_strategy_has_nothing_to_learn_of_likeness():
    driver = world()
    claim(driver, "carry")
    record = state_of(driver).strategies.get(("main",))
    assert record.forecasts is None
    assert strategies.rho_of(state_of(driver), "main") == 0.7


def test_portfolios_learn_apart():
    driver = world()
    for portfolio in ("a", "b"):
        for name in NAMES[:2]:
            claim(driver, name, portfolio, portfolio_id=portfolio)
    settle(driver, "carry", 0.05, "a", portfolio_id="a")
    assert known(driver, "a")["carry"][0] > 0.5
    assert known(driver, "b")["carry"][0] == 0.5


def test_what_was_learnt_survives_a_crash():
    driver = world()
    for name in NAMES[:2]:
        claim(driver, name)
    settle(driver, "carry", 0.05)
    before = state_of(driver).strategies.get(("main",))
    driver.checkpoint()
    driver.crash()
    assert state_of(driver).strategies.get(("main",)) == before


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.floats(-0.2, 0.2), st.sampled_from((1.0, 0.5, 0.2))),
        min_size=1,
        max_size=30,
    )
)
def test_weights_and_references_sum_to_one_whatever_is_learnt(rows):
    state = State(0)
    for name, realised, weight in rows:
        strategies.seen(state, "main", name)
        strategies.learn(state, "main", name, 1, realised, 0.02, weight)
        record = state.strategies.get(("main",))
        assert sum(record.weights) == pytest.approx(1.0)
        assert sum(record.references) == pytest.approx(1.0)
        assert record.names == tuple(sorted(record.names))
        assert 0.0 <= record.drift.largest <= 1.0
        assert sum(strategies.weights_of(state, "main", record.names).values()) == pytest.approx(1.0)


def test_live_strategies_without_a_record_share_equally():
    state = State(0)
    for order in permutations(NAMES):
        assert strategies.weights_of(state, "main", order) == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    assert strategies.weights_of(state, "main", ["carry"]) == {"carry": 1.0}
    assert strategies.weights_of(state, "main", []) == {}


def test_a_signal_of_a_strategy_that_is_there_costs_no_record():
    driver = world()
    claim(driver, "carry")
    driver.checkpoint()
    fold = driver.processors["journal", 0][0]
    assert PRICES["BTC-USD"]
    claim(driver, "carry", 1)
    assert ("strategies", b"main") not in fold.touched


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.floats(-0.1, 0.1), st.lists(st.sampled_from(NAMES), unique=True)),
        min_size=1,
        max_size=20,
    )
)
def test_the_weights_of_live_strategies_are_those_of_now_however_often_they_are_asked_for(rows):
    state = State(0)
    for name, realised, live in rows:
        strategies.learn(state, "main", name, 1, realised, 0.02, 1.0)
        strategies.weights_of(state, "main", NAMES)
        record = state.strategies.get(("main",))
        known = {name: StrategyWeight(weight, 0.0) for name, weight in zip(record.names, record.weights, strict=True)}
        for asked in (live, NAMES, live, live[::-1]):
            assert strategies.weights_of(state, "main", asked) == ensemble.renormalised(known, asked)
