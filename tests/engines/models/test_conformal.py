"""How wide an interval must be, against exact ranks, crepes, a slow implementation and the theorems."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from crepes import ConformalRegressor
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from engines.models import conformal
from engines.models.conformal import Scores
from engines.parameters import ConformalParams

PARAMS = ConformalParams()
TARGET = 0.1

errors = st.floats(min_value=-50.0, max_value=50.0)
histories = st.lists(st.tuples(errors, st.floats(0.01, 4.0)), max_size=60)


def learn(history, params=PARAMS, scores=None):
    """Take (error, volatility) pairs of predictions of 0."""
    for error, volatility in history:
        scores = conformal.observe(scores, error, 0.0, volatility, params)
    return scores


def walk(errors, variance=1.0, params=PARAMS):
    """Return inverse inflation before each error, whether its interval covered it, and the last scores."""
    scores, kept, covered = None, [], []
    for error in errors:
        kept.append(variance / conformal.decide(scores, variance, 1.0, params).variance)
        before = scores or conformal.begin(params)
        q = conformal.quantile(before.ranked, before.level)
        covered.append(q is None or abs(error) <= q * math.sqrt(before.mean_square))
        scores = conformal.observe(scores, error, 0.0, 1.0, params)
    return kept, covered, scores


# -- ranks -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "k"), [(20, 19), (50, 46), (100, 91), (200, 181)])
def test_the_exact_ranks_at_90_percent(n, k):
    assert conformal.rank(n, 1.0 - PARAMS.coverage) == k
    assert conformal.quantile(tuple(map(float, range(1, n + 1))), 1.0 - PARAMS.coverage) == k


def test_fewer_than_nine_scores_cover_90_percent_only_with_an_infinite_interval():
    finite = [conformal.quantile((1.0,) * n, 1.0 - PARAMS.coverage) is not None for n in range(12)]
    assert finite == [False] * 9 + [True] * 3


@given(st.integers(0, 10_000), st.integers(50, 99))
@example(99, 55)  # 100·.55 is 55.00000000000001 in doubles
def test_a_rank_is_the_exact_ceiling_for_every_coverage_in_percent(n, percent):
    exact = math.ceil((n + 1) * Fraction(percent, 100))
    assert conformal.rank(n, 1.0 - percent / 100) == exact


@given(st.lists(st.floats(0.0, 1e6), max_size=30), st.floats(-0.1, 1.1))
def test_an_infinite_level_has_no_quantile_and_an_empty_one_reaches_nowhere(scores, level):
    q = conformal.quantile(tuple(sorted(scores)), level)
    assert level > 0.0 or q is None
    assert level < 1.0 or q == 0.0
    assert q is None or level >= 1.0 or q in scores


@pytest.mark.parametrize("n", [20, 50, 57, 101, 200])  # at whole ranks, n = 9 or 19, crepes truncates 1.9999… to 1
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_the_quantile_is_that_of_crepes(n, coverage):
    scores = np.random.default_rng(n).exponential(size=n)
    low, high = ConformalRegressor().fit(residuals=scores).predict_int(np.zeros(1), confidence=coverage, y_min=-1e9)[0]
    q = conformal.quantile(tuple(sorted(scores.tolist())), 1.0 - coverage)
    assert (low, high) == (-q, q)


@pytest.mark.parametrize(("n", "covered", "naive"), [(20, 0.905, 0.862), (50, 0.902, 0.885), (200, 0.9005, 0.896)])
def test_independent_scores_are_covered_as_often_as_their_rank_says(n, covered, naive):
    # For uniform scores the reach of the interval is its probability.
    ranked = np.sort(np.random.default_rng(n).uniform(size=(20_000, n)), axis=1)
    reach = ranked[:, conformal.rank(n, TARGET) - 1]
    assert reach.mean() == pytest.approx(covered, abs=0.0015)
    assert np.quantile(ranked, 0.9, axis=1).mean() == pytest.approx(naive, abs=0.0015)
    assert reach[0] == conformal.quantile(tuple(ranked[0].tolist()), TARGET)


# -- the level ---------------------------------------------------------------------------------------------------------
def adversary(steps):
    """Return the share of misses where what comes is always just outside of a finite interval."""
    scores, misses = conformal.begin(PARAMS), 0
    for _ in range(steps):
        q = conformal.quantile(scores.ranked, scores.level)
        misses += q is not None
        reach = 1.0 if q is None else 1.01 * q + 0.001
        scores = conformal.observe(scores, reach * math.sqrt(scores.mean_square), 0.0, 1.0, PARAMS)
    return misses / steps


def test_the_adversary_who_always_misses_gains_one_percent_in_500_steps():
    assert adversary(500) - TARGET == pytest.approx(0.01, abs=1e-9)


@given(st.lists(st.tuples(errors, st.floats(0.01, 4.0)), min_size=1, max_size=200), st.sampled_from([0.02, 0.1, 0.5]))
def test_over_any_sequence_misses_come_to_one_minus_coverage(history, rate):
    params = ConformalParams(adaptation_rate=rate, window_size=20)
    scores, misses = None, 0
    for error, volatility in history:
        before = scores or conformal.begin(params)
        scores = conformal.observe(scores, error, 0.0, volatility, params)
        misses += scores.level < before.level
        assert -rate <= scores.level <= 1.0 + rate
    steps = len(history)
    assert abs(misses / steps - TARGET) <= (max(TARGET, 1.0 - TARGET) + rate) / (steps * rate) + 1e-9


def test_an_empty_interval_misses_even_what_was_predicted_exactly():
    scores = learn([(1.0, 1.0)] * 30)._replace(level=1.0)
    assert conformal.observe(scores, 0.0, 0.0, 1.0, PARAMS).level < 1.0


# -- the state ---------------------------------------------------------------------------------------------------------
@given(histories, st.sampled_from([10, 17, 200]))
def test_the_state_is_that_of_a_slow_implementation(history, size):
    params = ConformalParams(window_size=size)
    window, level, square = [], 1.0 - params.coverage, 1.0
    for error, volatility in history:
        miss = abs(error) / volatility
        score = miss / math.sqrt(square)
        k = math.ceil((len(window) + 1) * (1.0 - level) - 1e-9)
        outside = level >= 1.0 or (k <= len(window) and score > sorted(window)[max(k, 1) - 1])
        level += 0.02 * (1.0 - params.coverage - outside)
        square = max(0.94 * square + 0.06 * min(miss, 5.0 * math.sqrt(square)) ** 2, 1e-8)
        window = [*window, score][-size:]
    scores = learn(history, params) or conformal.begin(params)
    assert scores.window == pytest.approx(window)
    assert scores.ranked == tuple(sorted(scores.window))
    assert (scores.level, scores.mean_square) == pytest.approx((level, square))
    assert scores.samples == len(history)


@given(histories)
def test_scores_survive_json(history):
    scores = learn(history) or conformal.begin(PARAMS)
    window, ranked, *rest = json.loads(json.dumps(scores))
    assert Scores(tuple(window), tuple(ranked), *rest) == scores


def test_a_smaller_window_keeps_the_newest():
    scores = learn([(float(n), 1.0) for n in range(30)])
    smaller = conformal.observe(scores, 1.0, 0.0, 1.0, ConformalParams(window_size=10))
    assert smaller.window[:-1] == scores.window[-9:]
    assert smaller.ranked == tuple(sorted(smaller.window))


def test_the_score_is_the_miss_over_volatility_and_earlier_misses():
    first = conformal.observe(None, 0.03, 0.01, 0.01, PARAMS)
    assert first.window == pytest.approx((2.0,))
    assert first.mean_square == pytest.approx(0.94 + 0.06 * 4.0)
    second = conformal.observe(first, -0.01, 0.01, 0.02, PARAMS)
    assert second.window[1] == pytest.approx(1.0 / math.sqrt(1.18))
    wild = conformal.observe(first, 5.0, 0.0, 0.01, PARAMS)
    assert wild.mean_square == pytest.approx(1.18 * (0.94 + 0.06 * 25.0))
    assert wild.window[1] == pytest.approx(500.0 / math.sqrt(1.18))


@pytest.mark.parametrize(
    ("realised", "predicted", "counts"),
    [
        (None, 0.0, (1, 0, 0)),
        (0.0, None, (1, 0, 0)),
        (math.nan, 0.0, (0, 1, 0)),
        (math.inf, math.nan, (0, 1, 0)),
        (math.inf, 0.0, (0, 0, 1)),
        (0.0, -math.inf, (0, 0, 1)),
    ],
)
def test_what_is_not_two_numbers_is_counted_by_kind_and_changes_nothing_else(realised, predicted, counts):
    for start in (None, learn([(0.5, 1.0)] * 3)):
        rejected = conformal.observe(start, realised, predicted, 1.0, PARAMS)
        assert rejected[-3:] == counts
        assert rejected[:-3] == (start or conformal.begin(PARAMS))[:-3]


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.floats(5e-324, 1e308)), max_size=40))
def test_no_outcome_makes_the_state_infinite(history):
    scores = learn(history) or conformal.begin(PARAMS)
    assert all(math.isfinite(value) for value in (*scores.window, scores.level, scores.mean_square))


def test_after_a_long_run_of_perfect_predictions_a_miss_is_a_miss():
    scores = learn([(0.0, 1.0)] * 3000)
    assert scores.mean_square == 1e-8
    assert conformal.observe(scores, 1.0, 0.0, 1.0, PARAMS).window[-1] == pytest.approx(1e4)


# -- the scale ---------------------------------------------------------------------------------------------------------
def test_twenty_scores_of_two_by_hand():
    # The 19th of 20 is q = 2; u² = 1.2; v = 1.2·(2/1.6449)² = 1.7741 of s², over 1.5·S.
    scores = Scores((2.0,) * 20, (2.0,) * 20, 0.1, 1.2, 20, 0, 0, 0)
    scale = conformal.decide(scores, 0.0004 / 3, 0.02, PARAMS)
    assert scale.quantile == 2.0
    assert scale.inflation == pytest.approx(1.2 * (2 / 1.6448536) ** 2 * 3 / 1.5, rel=1e-7)
    assert scale.variance == pytest.approx(0.0004 / 3 * scale.inflation)
    assert (scale.status, scale.samples) == ("ok", 20)
    assert conformal.decide(scores, 0.0005, 0.02, PARAMS).inflation == 1.0
    assert conformal.decide(scores, 1e-9, 0.02, PARAMS).inflation == PARAMS.max_inflation


def test_an_infinite_interval_inflates_as_far_as_allowed():
    scores = learn([(0.5, 1.0)] * 40)._replace(level=0.0)
    scale = conformal.decide(scores, 0.5, 1.0, PARAMS)
    assert (scale.variance, scale.quantile, scale.inflation, scale.status) == (5.0, None, 10.0, "infinite")


@pytest.mark.parametrize(
    ("coverage", "min_samples", "waits_for"), [(0.9, 20, 20), (0.9, 1, 9), (0.99, 20, 99), (0.5, 1, 1)]
)
def test_the_scale_waits_for_its_samples(coverage, min_samples, waits_for):
    params = ConformalParams(coverage=coverage, min_samples=min_samples)
    assert conformal.needed(params) == waits_for
    history = [(30.0, 1.0)] * waits_for
    early, late = learn(history[1:], params), learn(history, params)
    assert conformal.decide(early, 1.0, 1.0, params)[:4] == (1.0, None, 1.0, "insufficient_samples")
    assert conformal.decide(late, 1.0, 1.0, params).status != "insufficient_samples"
    assert conformal.decide(None, 1.0, 1.0, params).samples == 0


@given(histories, st.floats(1e-8, 10.0), st.floats(1e-4, 4.0))
def test_the_variance_never_shrinks_and_grows_ten_times_at_most(history, variance, volatility):
    scale = conformal.decide(learn(history), variance, volatility, PARAMS)
    assert 1.0 <= scale.inflation <= 10.0
    assert scale.variance == variance * scale.inflation


@given(histories, st.floats(1e-4, 1e4))
def test_units_do_not_matter(history, unit):
    ours = conformal.decide(learn(history), 1.0, 1.0, PARAMS)
    theirs = conformal.decide(learn([(e * unit, s * unit) for e, s in history]), unit * unit, unit, PARAMS)
    assert ours.status == theirs.status
    assert theirs.inflation == pytest.approx(ours.inflation, rel=1e-6)


# -- what it must reach ------------------------------------------------------------------------------------------------
def test_calibrated_errors_keep_their_size():
    chance = np.random.default_rng(3)
    kept = np.array([walk(chance.normal(size=2_000).tolist())[0] for _ in range(60)])
    assert kept[:, :200].mean() >= 0.96
    assert kept.mean() >= 0.97


def test_calibrated_errors_are_covered_nine_times_in_ten():
    covered = walk(np.random.default_rng(5).standard_t(3, size=10_000).tolist())[1]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.002)


def test_when_errors_triple_the_interval_follows_and_the_size_goes():
    chance = np.random.default_rng(11)
    runs = [walk(np.concatenate([chance.normal(size=200), 3 * chance.normal(size=60)]).tolist()) for _ in range(300)]
    kept = np.mean([kept for kept, _, _ in runs], axis=0)
    assert np.mean([covered[200:] for _, covered, _ in runs]) >= 0.875
    assert kept[205] == pytest.approx(0.42, abs=0.03)
    assert kept[220] == pytest.approx(0.16, abs=0.02)
    # The naive interval, the fixed quantile of the old errors, keeps 55 to 60 % of the new ones.
    assert 2 * stats.norm.cdf(stats.norm.ppf(0.95) / 3) - 1 < 0.6
