"""Which regime is believed, against a slow reading of the rule and as a state machine."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models import regime
from engines.models.regime import SEVERITY, RegimeChange
from engines.parameters import RegimeMultipliers, RegimeParams

PARAMS = RegimeParams()
MINUTE_NS = 60 * 10**9
START_NS = 27_000_000 * MINUTE_NS
NAMES = list(SEVERITY)
UP, RANGING, DOWN, WILD, CRISIS = NAMES

names = st.sampled_from(NAMES)
histories = st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=20)


def follow(periods, params=PARAMS, state=None):
    """Feed lists of labels, one list a period; return the last state and every change."""
    changes = []
    for number, labels in enumerate(periods):
        for label in labels:
            state, change = regime.step(state, label, START_NS + number * MINUTE_NS, params)
            changes += [change] if change else []
    return state, changes


def believed(periods, h):
    """The rule, read slowly: over whole periods, counting from the last change."""
    confirmed, since = "ranging", []
    for labels in periods:
        vote = max(labels, key=SEVERITY.__getitem__)
        since = [*since, vote][-(2 * h - 1) :]
        if vote != confirmed and (vote == "crisis" or since.count(vote) >= h):
            confirmed, since = vote, [vote]
    return confirmed


# -- confirmation ------------------------------------------------------------------------------------------------------
def test_a_portfolio_begins_in_ranging_and_one_vote_changes_nothing():
    state, changes = follow([[UP]])
    assert (state.confirmed, state.candidate, changes) == ("ranging", "trending_up", [])
    assert regime.progress(state, PARAMS) == pytest.approx(1 / 3)


def test_three_votes_of_the_last_five_confirm():
    state, changes = follow([[UP], [RANGING], [UP], [RANGING], [UP]])
    assert state.confirmed == UP
    assert changes == [RegimeChange("transition", "ranging", UP)]
    assert follow([[UP], [RANGING], [RANGING], [UP], [RANGING], [UP]])[0].confirmed == "ranging"


def test_a_crisis_needs_one_vote_to_enter_and_three_to_leave():
    state, changes = follow([[RANGING]] * 5 + [[CRISIS]])
    assert state.confirmed == CRISIS
    assert changes == [RegimeChange("transition", "ranging", CRISIS)]
    for number, expected in ((1, CRISIS), (2, CRISIS), (3, "ranging")):
        assert follow([[RANGING]] * 5 + [[CRISIS]] + [[RANGING]] * number)[0].confirmed == expected


def test_signals_of_one_period_are_one_vote_the_most_severe():
    state, _ = follow([[UP, UP, UP, UP]])
    assert state.confirmed == "ranging"
    assert len(state.votes) == 1
    state, _ = follow([[UP, WILD, DOWN]])
    assert state.votes[-1][1] == WILD


def test_a_worse_signal_of_the_same_period_takes_a_confirmation_back():
    state, changes = follow([[UP], [UP], [UP, WILD]])
    assert state.confirmed == "ranging"
    assert changes == [RegimeChange("transition", "ranging", UP), RegimeChange("transition", UP, "ranging")]


def test_a_candidate_given_up_is_a_false_flip():
    state, changes = follow([[WILD], *[[RANGING]] * 4])
    assert state.candidate == WILD
    assert changes == []
    state, changes = follow([[WILD], *[[RANGING]] * 5])
    assert state.candidate is None
    assert changes == [RegimeChange("false_flip", "ranging", WILD)]


def test_the_candidate_has_the_most_votes_and_of_equals_it_is_the_newest():
    assert follow([[WILD], [WILD], [UP]])[0].candidate == WILD
    assert follow([[WILD], [UP]])[0].candidate == UP
    assert follow([[WILD], [UP], [RANGING]])[1] == [RegimeChange("false_flip", "ranging", WILD)]


def test_a_late_warning_counts_now_and_one_from_long_ago_does_not():
    state, _ = follow([[RANGING]] * 6)
    open_ns = START_NS + 5 * MINUTE_NS
    assert regime.step(state, CRISIS, open_ns - 4 * MINUTE_NS, PARAMS)[0].confirmed == CRISIS
    assert regime.step(state, CRISIS, open_ns - 5 * MINUTE_NS, PARAMS) == (state, None)


def test_hysteresis_and_period_are_settings():
    assert follow([[UP]], RegimeParams(hysteresis_periods=1))[0].confirmed == UP
    assert follow([[UP]] * 4, RegimeParams(hysteresis_periods=5))[0].confirmed == "ranging"
    assert follow([[UP]] * 5, RegimeParams(hysteresis_periods=5))[0].confirmed == UP
    assert len(follow([[UP]] * 4, RegimeParams(regime_period_s=3600))[0].votes) == 1


@given(histories, st.integers(1, 4))
def test_it_is_the_rule_read_slowly(periods, h):
    assert follow(periods, RegimeParams(hysteresis_periods=h))[0].confirmed == believed(periods, h)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_signals_within_a_period_changes_nothing(periods, chance):
    shuffled = [chance.sample(labels, len(labels)) for labels in periods]
    assert follow(shuffled)[0] == follow(periods)[0]


@given(histories)
def test_transitions_lead_from_ranging_to_what_is_confirmed_and_false_flips_name_what_was_not(periods):
    state, changes = follow(periods)
    path = ["ranging"]
    for change in changes:
        assert change.from_regime == path[-1]
        assert change.to_regime != change.from_regime
        if change.kind == "transition":
            path.append(change.to_regime)
    assert path[-1] == state.confirmed
    assert state.candidate != state.confirmed
    assert 0.0 <= regime.progress(state, PARAMS) < 1.0
    assert len(state.votes) <= 5


# -- multipliers and labels --------------------------------------------------------------------------------------------
def test_a_short_likes_what_a_long_fears_of_the_two_trends():
    long = [regime.multiplier(name, 1, PARAMS) for name in (UP, DOWN, RANGING, WILD, CRISIS)]
    short = [regime.multiplier(name, -1, PARAMS) for name in (UP, DOWN, RANGING, WILD, CRISIS)]
    assert long == [1.2, 0.8, 1.0, 0.6, 0.2]
    assert short == [0.8, 1.2, 1.0, 0.6, 0.2]
    calm = RegimeParams(multipliers=RegimeMultipliers(crisis=0.0))
    assert regime.multiplier(CRISIS, -1, calm) == 0.0


@pytest.mark.parametrize("label", ["high_volatility", "HIGH_VOLATILITY", "High Volatility", " high-volatility "])
def test_a_label_may_be_written_in_any_case_with_spaces_or_hyphens(label):
    assert regime.resolve(label, PARAMS) == WILD


def test_a_crisis_flight_is_a_crisis_and_an_unknown_label_is_none():
    assert regime.resolve("CRISIS_FLIGHT", PARAMS) == CRISIS
    assert regime.resolve("sideways", PARAMS) is None
    assert regime.resolve("", PARAMS) is None


def test_aliases_add_labels_and_take_no_known_one_away():
    params = RegimeParams(regime_aliases={"Side-Ways": "ranging", "crisis": "trending_up"})
    assert regime.resolve("SIDE WAYS", params) == RANGING
    assert regime.resolve("Crisis", params) == CRISIS


def test_severity_is_the_order_of_the_specification():
    worst_first = [CRISIS, WILD, DOWN, RANGING, UP]
    assert all(SEVERITY[worse] > SEVERITY[better] for worse, better in itertools.pairwise(worst_first))
