"""Outcomes: which claim one settles, and what is learnt from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.handlers.outcomes import SPANS, NotLearnt, round_trip
from engines.handlers.outcomes import learn as learn_at
from engines.models import bars, calibration, conformal
from engines.parameters import DecisionParams
from engines.pipeline.claims import remember
from engines.state.partition import PartitionProgress, State
from engines.state.records import CellRecord, Claim, Market

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS
KEY = ("main", "momentum", "BTC-USD")
PARAMS = DecisionParams()


def claim(offset=7, **given):
    fields = {
        "offset": offset,
        "signal_id": f"s-{offset}",
        "timestamp_ns": NOW_NS,
        "side": 1,
        "confidence": 0.8,
        "expected_return": 0.01,
        "volatility": 0.02,
        "mean": 0.003,
        "costs": 0.001,
        "variance": 0.0004,
        "scale": 1.0,
        "horizon_s": 3600.0,
        "weight": 0.1,
        **given,
    }
    return Claim(**fields)


def world(*claims, key=KEY):
    state = State(3)
    params = state.params.model_dump()
    state.progress = PartitionProgress("JQURNAL2", 4, NOW_NS, "", params, state.settings_hash, {}, {}, 1)
    state.put_cell(key, CellRecord(None, claims, NOW_NS, ()))
    return state


def outcome(realised=0.004, **given):
    fields = {
        "portfolio_id": "main",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "side": 1,
        "realized_return": realised,
        "timestamp_ns": NOW_NS + 3600 * SECOND_NS,
    }
    named = fields if "decision_id" in given else {**fields, "signal_id": "s-7"}
    return {**named, **given}


def learn(state, body, offset=1_000):
    """Learn from an outcome whose entry is the thousandth."""
    return learn_at(state, body, offset)


# -- which claim -----------------------------------------------------------------------------------------------------
def test_a_signal_settles_its_own_claim_once():
    state = world(claim(7), claim(9))
    learnt = learn(state, outcome(signal_id="s-7"))
    assert learnt.claim == claim(7)
    assert state.predictions.get(KEY).claims == (claim(9),)
    assert learn(state, outcome(signal_id="s-7")) == NotLearnt(
        "unmatched", "signal_id", "signal_id s-7: no open claim of signal s-7"
    )


def test_a_decision_settles_the_claim_that_it_made():
    assert learn(world(claim(7), claim(9)), outcome(decision_id="JQURNAL2-3-7-main")).claim == claim(7)


def test_another_cells_decision_settles_the_latest_claim_before_it():
    assert learn(world(claim(7), claim(9)), outcome(decision_id="JQURNAL2-3-8-main")).claim == claim(7)
    assert learn(world(claim(7), claim(9)), outcome(decision_id="JQURNAL2-3-90-main")).claim == claim(9)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"signal_id": "s-1"}, "no open claim of signal s-1"),
        ({"decision_id": "JQURNAL2-3-6-main"}, "no open claim at decision"),
        ({"decision_id": "ANQTHER2-3-7-main"}, "not of this journal"),
        ({"decision_id": "JQURNAL2-2-7-main"}, "not of this journal"),
        ({"decision_id": "JQURNAL2-3-7-alpha"}, "not of this journal"),
        ({"decision_id": "JQURNAL2-3-x-main"}, "not of this journal"),
        ({"decision_id": "nonsense"}, "not of this journal"),
        ({"decision_id": "JQURNAL2-3-1000-main"}, "decision JQURNAL2-3-1000-main was never made"),
        ({"decision_id": "JQURNAL2-3-7-main", "signal_id": "s-9"}, "no open claim of signal s-9"),
        ({"decision_id": "ANQTHER2-3-7-main", "signal_id": "s-7"}, "not of this journal"),
        ({"timestamp_ns": NOW_NS - 3600 * SECOND_NS}, f"must not be before its claim at {NOW_NS}"),
        ({"timestamp_ns": 1_400_000_000 * SECOND_NS}, f"must not be before its claim at {NOW_NS}"),
        ({"strategy_id": "carry"}, "has made no claim"),
        ({"side": -1}, "contradicts the claim's side +1"),
        ({"side": "short"}, "contradicts the claim's side +1"),
    ],
)
def test_what_settles_no_claim_says_so_and_teaches_nothing(given, problem):
    state = world(claim(7))
    state.touched.clear()
    assert problem in learn(state, outcome(**given)).text
    assert not state.touched


def test_a_decision_and_a_signal_must_name_the_same_claim():
    both = {"decision_id": "JQURNAL2-3-8-main", "signal_id": "s-7"}
    assert learn(world(claim(7), claim(9)), outcome(**both)).claim == claim(7)
    refused = learn(world(claim(7), claim(9)), outcome(**both | {"decision_id": "JQURNAL2-3-9-main"}))
    assert refused == NotLearnt(
        "unmatched", "signal_id", "signal_id s-7: decision JQURNAL2-3-9-main was about signal s-9"
    )


def test_clocks_may_be_five_seconds_apart():
    assert learn(world(claim(7)), outcome(timestamp_ns=NOW_NS - 5 * SECOND_NS, holding_s=1)).claim == claim(7)
    refused = learn(world(claim(7)), outcome(timestamp_ns=NOW_NS - 5 * SECOND_NS - 1, holding_s=1))
    assert (refused.code, refused.field) == ("inconsistent", "timestamp_ns")


def test_a_portfolio_with_dashes_in_its_name_is_told_apart():
    key = ("a-b", "momentum", "BTC-USD")
    found = learn(world(claim(7), key=key), outcome(portfolio_id="a-b", decision_id="JQURNAL2-3-7-a-b"))
    assert found.key == key


# -- what is learnt --------------------------------------------------------------------------------------------------
@given(
    st.sampled_from((1, -1)),
    st.floats(-0.2, 0.2),
    st.floats(0, 1),
    st.floats(0, 0.05),
    st.floats(0.001, 0.1),
    st.floats(0.2, 3),
)
def test_learning_uses_what_was_claimed_at_that_decision(side, realised, confidence, expected, volatility, scale):
    made = claim(side=side, confidence=confidence, expected_return=expected, volatility=volatility, scale=scale)
    state = world(made)
    learnt = learn(state, outcome(realised, side=side))
    x, z = confidence * expected / volatility, realised * side / volatility
    won = realised * side > made.costs
    wanted = calibration.observe(None, x, z, won, 1.0, PARAMS.position_sizing.bayesian_kelly)
    assert state.posteriors.get(KEY).posterior == wanted
    scored = conformal.observe(
        None, realised * side, made.mean + made.costs, volatility, PARAMS.position_sizing.conformal_prediction, scale
    )
    assert state.scores.get(KEY) == scored
    assert learnt.won == won
    assert learnt.residual == abs(realised * side - (made.mean + made.costs)) / (volatility * scale)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=20))
def test_an_outcome_weighs_less_by_those_it_overlaps(spans):
    state = world(*(claim(n) for n in range(len(spans))))
    seen = []
    for number, (end_s, holding_s) in enumerate(spans):
        end_ns = NOW_NS + end_s * SECOND_NS
        learnt = learn(state, outcome(signal_id=f"s-{number}", timestamp_ns=end_ns, holding_s=holding_s))
        start_ns = end_ns - holding_s * SECOND_NS
        meeting = sum(1 for start, end in seen if max(start, start_ns) < min(end, end_ns))
        assert learnt.weight == 1.0 / (1 + meeting)
        seen.append((start_ns, end_ns))


def test_without_a_holding_time_it_is_the_horizon():
    state = world(claim(7, horizon_s=60.0))
    learn(state, outcome())
    end_ns = outcome()["timestamp_ns"]
    assert state.posteriors.get(KEY).spans == ((end_ns - 60 * SECOND_NS, end_ns),)


def test_the_last_256_holding_times_are_kept():
    state = world(*(claim(n) for n in range(SPANS + 10)))
    for number in range(SPANS + 10):
        end_ns = NOW_NS + number * SECOND_NS
        learn(state, outcome(signal_id=f"s-{number}", timestamp_ns=end_ns, holding_s=0.5))
    spans = state.posteriors.get(KEY).spans
    assert len(spans) == SPANS
    assert spans[-1][1] == NOW_NS + (SPANS + 9) * SECOND_NS


# -- what prices say -------------------------------------------------------------------------------------------------
def known(moved, closed=100, hourly_variance=0.0001, age_s=0):
    """Bars of an hour with a volatility of 1 %, and a last price that has moved so far from 40,000."""
    end_ns = NOW_NS + (3600 - age_s) * SECOND_NS
    price = 40_000.0 * (1.0 + moved)
    made = bars.fold(None, price, price, price, price, 1.0, end_ns, PARAMS.market)
    return Market(made._replace(variance=hourly_variance, closed=closed), (None,) * 7, None, None, 0)


@pytest.mark.parametrize(
    ("realised", "moved", "given", "refused"),
    [
        (0.0699, 0.0, {}, False),
        (0.0701, 0.0, {}, True),
        (-0.0701, 0.0, {}, True),
        (0.0701, 0.05, {}, False),
        (0.3, 0.3, {}, False),
        (-0.3, 0.3, {}, True),
        (0.139, 0.0, {"age_s": 121}, False),
        (0.141, 0.0, {"age_s": 121}, True),
        (0.139, 0.0, {"price": 0.0}, False),
        (0.141, 0.0, {"price": 0.0}, True),
        (0.141, 0.0, {"price": 0.0, "closed": 23}, False),
        (0.9, 0.0, {"hourly_variance": None}, False),
        (0.04, 0.0, {"holding_s": 900.0}, False),
        (0.0801, 0.0, {"holding_s": 900.0}, True),
    ],
)
def test_a_return_that_prices_contradict_teaches_nothing(realised, moved, given, refused):
    # 6 volatilities of 1 % and 1 %: 7 % about what prices made; twice that about 0 where they cannot tell.
    state = world(claim(7, price=given.pop("price", 40_000.0)))
    holding = {name: given.pop(name) for name in ("holding_s",) if name in given}
    state.put_market("BTC-USD", known(moved, **given))
    state.touched.clear()
    learnt = learn(state, outcome(realised, **holding))
    assert isinstance(learnt, NotLearnt) == refused
    assert bool(state.touched) != refused
    if refused:
        assert f"was {realised}" in learnt.text


def test_on_walks_no_honest_return_is_refused_and_slips_of_a_hundred_are():
    chance, refused, slipped = np.random.default_rng(5), 0, 0
    for _ in range(200):
        moved = float(chance.normal() * 0.01)
        for realised, count in ((moved, False), (100.0 * moved, True)):
            state = world(claim(7, price=40_000.0))
            state.put_market("BTC-USD", known(moved))
            wrong = isinstance(learn(state, outcome(realised)), NotLearnt)
            refused += wrong and not count
            slipped += wrong and count
    assert refused == 0
    assert slipped > 180, "but for those of walks that hardly moved"


@given(st.floats(-0.05, 0.05), st.floats(0.0, 0.02))
def test_scores_miss_what_was_predicted_before_costs(realised, gross):
    state = world(claim(7, gross=gross))
    learnt = learn(state, outcome(realised))
    assert learnt.residual == abs(realised - gross) / 0.02


# -- what is remembered ----------------------------------------------------------------------------------------------
def test_claims_are_kept_for_four_horizons():
    old = claim(1, timestamp_ns=NOW_NS - 4 * 3600 * SECOND_NS - 1)
    edge = claim(2, timestamp_ns=NOW_NS - 4 * 3600 * SECOND_NS)
    kept = remember(CellRecord(None, (old, edge), NOW_NS, ()), claim(3), NOW_NS)
    assert kept.claims == (edge, claim(3))


def test_at_most_so_many_claims_are_kept_the_newest():
    cell = CellRecord(None, tuple(claim(n) for n in range(5)), NOW_NS, ())
    assert [each.offset for each in remember(cell, claim(9), NOW_NS, most=3).claims] == [3, 4, 9]


def test_costs_are_paid_twice():
    tree = PARAMS.model_dump()
    tree["position_sizing"]["costs"] = {"fee_ratio": 0.001, "slippage_ratio": 0.0005}
    assert round_trip(DecisionParams.model_validate(tree)) == 0.003
