"""What to believe of a claim and what to bet on it, against textbook numbers and slower ways to the same thing."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from engines.models import calibration, kelly
from engines.models.calibration import Posterior
from engines.models.kelly import Standing
from engines.numerics import exact
from engines.parameters import DrawdownBound, KellyParams

PARAMS = KellyParams()
WON, LOST = True, False
FOREVER = 1e18
"""So many effective outcomes that nothing is forgotten."""
PLAIN = KellyParams(
    prior_strength=1.0,
    prior_calibration=0.0,
    prior_shape=3.0,
    prior_variance=4e-4,
    effective_outcomes=FOREVER,
    first_claim=1.0,
    guard_sd=1e9,
)
WINS = PARAMS.win_prior

claims = st.floats(min_value=0.0, max_value=3.0)
results = st.floats(min_value=-8.0, max_value=8.0)
weights = st.sampled_from([1.0, 0.5, 1.0 / 3.0, 0.1])
histories = st.lists(st.tuples(claims, results, st.booleans(), weights), max_size=30)


def learn(history, params=PARAMS, posterior=None):
    for x, z, won, weight in history:
        posterior = calibration.observe(posterior, x, z, won, weight, params)
    return posterior


def normal_inverse_gamma(data, params=PARAMS):
    """(m, k, a, B) of the natural parameters, the prior included."""
    posterior = calibration.with_prior(data, params)
    b = posterior.h2 / posterior.h1
    return b, posterior.h1, posterior.h3 / 2, (posterior.h4 - posterior.h2 * b) / 2


def numbers(size):
    return [value for value in size if not isinstance(value, str)]


# -- the posterior -----------------------------------------------------------------------------------------------------
def test_five_returns_give_the_textbook_normal_inverse_gamma():
    data = [0.01, -0.02, 0.03, 0.015, -0.005]
    posterior = learn([(1.0, z, z > 0, 1.0) for z in data], PLAIN)
    m, k, a, B = normal_inverse_gamma(posterior, PLAIN)
    assert (m, k, a, B) == pytest.approx((0.005, 6.0, 5.5, 0.00155), rel=1e-12)
    assert math.sqrt(B * (k + 1) / (a * k)) == pytest.approx(0.0181325088939, rel=1e-11)
    size = kelly.decide(posterior, 1.0, 1.0, 1.0, 0.0, PLAIN)
    assert size.mean == pytest.approx(0.005, rel=1e-12)
    assert size.variance == pytest.approx(0.000401851851852, rel=1e-11)
    assert size.full_fraction == pytest.approx(11.71366594, rel=1e-9)


def test_the_prior_is_counted_in_usual_claims():
    first = calibration.observe(None, 0.1, 0.3, WON, 1.0, PARAMS)
    assert first.mean_square_claim == PARAMS.first_claim**2
    assert normal_inverse_gamma(first)[1] == pytest.approx(41 * 0.01)
    second = calibration.observe(first, 0.2, 0.3, WON, 1.0, PARAMS)
    assert second.mean_square_claim == pytest.approx(0.01 + (0.04 - 0.01) / 3), "the mean of all at first"
    many = learn([(0.1, 0.1, True, 1.0)] * 200)
    last = calibration.observe(many, 0.2, 0.3, WON, 1.0, PARAMS)
    assert last.mean_square_claim == pytest.approx(0.99 * 0.01 + 0.01 * 0.04), "then an EWMA"
    assert second.outcomes == 2


def test_the_prior_of_bold_claims_weighs_no_more_than_its_limit():
    for usual in (0.05, 0.1, 0.3, 0.32, 1.0, 50.0):
        data = calibration.begin(KellyParams(first_claim=usual))
        assert normal_inverse_gamma(data)[1] == pytest.approx(min(40 * usual**2, 4.0))
    bold = KellyParams(first_claim=3.0, max_claim=3.0)
    assert kelly.decide(None, 3.0, 0.06, 0.02, 0.001, bold).shrink < 0.5


@given(st.lists(st.tuples(st.floats(0.01, 0.3), st.floats(-1.0, 1.0)), min_size=1, max_size=20))
def test_without_forgetting_it_is_ridge_regression_about_the_prior(pairs):
    params = KellyParams(effective_outcomes=FOREVER, winsor_sd=1e9, max_usual_claims=1e9)
    posterior = learn([(x, z, True, 1.0) for x, z in pairs], params)
    rho = math.sqrt(40.0 * posterior.mean_square_claim)
    rows = np.array([x for x, _ in pairs] + [rho])
    targets = np.array([z for _, z in pairs] + [0.4 * rho])
    slope = np.linalg.lstsq(rows[:, None], targets, rcond=None)[0][0]
    residual = float(((targets - slope * rows) ** 2).sum())
    m, _, a, B = normal_inverse_gamma(posterior)
    expected = (slope, 5.0 + len(pairs) / 2, 4.0 + residual / 2)
    assert (m, a, B) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_memory_ends_at_its_1_500_outcomes_and_the_prior():
    history = [(0.1, 0.1, True, 1.0), (0.1, 0.1, False, 1.0)] * 8_000
    posterior = learn(history)
    known = calibration.with_prior(posterior, PARAMS)
    assert known.h1 == pytest.approx(1_540 * 0.01, rel=1e-3)
    assert known.h2 / known.h1 == pytest.approx((1_500 + 16) / 1_540, rel=1e-3)
    assert known.h3 == pytest.approx(1_500 + 10, rel=1e-3)
    assert known.wins + known.losses == pytest.approx(1_500 + 20, rel=1e-3)
    assert posterior.recent_h1 == pytest.approx(150 * 0.01, rel=1e-3)
    assert calibration.win_rate(posterior, PARAMS) == pytest.approx(0.5, abs=2e-3)


def test_a_quarter_of_an_outcome_adds_and_forgets_a_quarter():
    start = learn([(0.2, 1.0, True, 1.0)] * 10)
    part = calibration.observe(start, 0.2, 0.7, LOST, 0.25, PARAMS)
    whole = calibration.observe(start, 0.2, 0.7, LOST, 1.0, PARAMS)
    for before, quarter, full in zip(start[:4] + start[5:7], part[:4] + part[5:7], whole[:4] + whole[5:7], strict=True):
        assert quarter - before == pytest.approx((full - before) / 4, rel=1e-9)


@given(histories)
def test_the_win_rate_is_a_beta_posterior_that_forgets(history):
    wins = losses = 10.0
    for _, _, won, weight in history:
        keep = 1 - weight / 1_500
        wins, losses = (
            keep * wins + (1 - keep) * 10 + weight * won,
            keep * losses + (1 - keep) * 10 + weight * (not won),
        )
    posterior = learn(history)
    if posterior is not None:
        assert calibration.win_rate(posterior, PARAMS) == pytest.approx(stats.beta(wins, losses).mean())


def test_an_impossible_outcome_counts_as_four_standard_deviations():
    start = learn([(0.2, 0.5, True, 1.0)] * 30)
    b, K, a, B = normal_inverse_gamma(start)
    edge = b * 0.2 + 4 * math.sqrt(B / (a - 1) * (1 + 0.04 / K))
    wild = calibration.observe(start, 0.2, 1e300, WON, 1.0, PARAMS)
    assert wild == calibration.observe(start, 0.2, math.inf, WON, 1.0, PARAMS)
    assert wild == pytest.approx(calibration.observe(start, 0.2, edge, WON, 1.0, PARAMS))
    assert wild != calibration.observe(start, 0.2, edge * 0.99, WON, 1.0, PARAMS)


@given(histories, claims, st.floats(1e-4, 0.5))
def test_whatever_came_the_size_is_finite_and_within_its_bounds(history, x, volatility):
    size = kelly.decide(learn(history), x, x * volatility, volatility, 0.0005, PARAMS)
    assert all(math.isfinite(value) for value in numbers(size))
    assert size.variance > 0.0
    assert size.residual_variance > 0.0
    assert 0.0 <= size.shrink < 1.0
    assert 0.0 <= size.fraction <= PARAMS.kelly_fraction * size.full_fraction
    assert (size.fraction == 0.0) == bool(size.reason)


@given(histories)
def test_a_posterior_survives_json(history):
    posterior = learn(history)
    assert posterior is None or Posterior(*json.loads(json.dumps(posterior))) == posterior


@pytest.mark.parametrize("x", [1e4, 1e9, 1e300, math.inf])
def test_a_claim_beyond_all_measure_leaves_the_state_finite(x):
    posterior = learn([(x, z, True, 1.0) for z in (0.3, -math.inf, 1e300, math.inf)] * 200)
    assert all(math.isfinite(value) for value in posterior)
    size = kelly.decide(posterior, x, 1.0, 5e-324, 0.0, PARAMS)
    assert all(math.isfinite(value) for value in numbers(size))


@given(st.lists(st.floats(0.01, 1e4), min_size=30, max_size=60))
def test_rounding_cannot_make_the_residual_variance_negative(history):
    certain = KellyParams(prior_variance=1e-30)
    posterior = learn([(x, x / 3.0, True, 1.0) for x in history], certain)
    assert kelly.decide(posterior, 1.0, 0.02, 0.02, 0.0, certain).residual_variance > 0.0


# -- a claim of nothing ------------------------------------------------------------------------------------------------
def test_a_claim_of_nothing_gives_a_clean_zero():
    for posterior in (None, learn([(0.0, 0.4, True, 1.0)] * 3), learn([(0.1, 0.4, True, 1.0)] * 3)):
        size = kelly.decide(posterior, 0.0, 0.0, 0.02, 0.0, PARAMS)
        assert (size.mean, size.full_fraction, size.fraction, size.reason) == (0.0, 0.0, 0.0, "no edge")
        assert kelly.resize(size, 1.0, PARAMS) == 0.0


def test_after_claims_of_nothing_the_first_real_one_finds_the_prior():
    silent = learn([(0.0, z, True, 1.0) for z in (0.5, -1.5, 1.0)])
    fresh = kelly.decide(None, 0.1, 0.002, 0.02, 0.0, PARAMS)
    size = kelly.decide(silent, 0.1, 0.002, 0.02, 0.0, PARAMS)
    assert (size.mean, size.calibration) == (fresh.mean, fresh.calibration)
    assert size.residual_variance != fresh.residual_variance
    assert silent.mean_square_claim == PARAMS.first_claim**2


# -- claims that are believed only so far ------------------------------------------------------------------------------
@pytest.mark.parametrize(("x", "believed"), [(0.1, 0.1), (0.3, 0.3), (0.31, 0.3), (2.0, 0.3), (1e300, 0.3)])
def test_a_first_claim_counts_as_at_most_three_usual_ones(x, believed):
    size = kelly.decide(None, x, x * 0.02, 0.02, 0.001, PARAMS)
    assert size.claim == pytest.approx(believed)
    if x < 1e9:
        assert size.mean == pytest.approx(0.4 * believed * 0.02 - 0.001)
    assert size == kelly.decide(None, size.claim, size.claim * 0.02, 0.02, 0.001, PARAMS)
    learnt = calibration.observe(None, x, 0.5, WON, 1.0, PARAMS)
    assert learnt == calibration.observe(None, size.claim, 0.5, WON, 1.0, PARAMS)


def test_whoever_claims_much_again_and_again_is_believed_up_to_one_standard_deviation():
    posterior, believed = None, []
    for _ in range(30):
        believed.append(calibration.bounded(5.0, posterior, PARAMS))
        posterior = calibration.observe(posterior, 5.0, 1.0, WON, 1.0, PARAMS)
    assert believed == sorted(believed)
    assert believed[0] == pytest.approx(0.3)
    assert believed[-1] == 1.0


def test_one_slipped_claim_leaves_the_learning_almost_as_it_was():
    history = [(0.1, 0.1 + 0.5 * (-1) ** n, n % 2 == 0, 1.0) for n in range(200)]
    clean = learn(history)
    slipped = calibration.observe(clean, 10.0, 0.1, WON, 1.0, PARAMS)
    before, after = (kelly.decide(each, 0.1, 0.002, 0.02, 0.0005, PARAMS).calibration for each in (clean, slipped))
    assert after == pytest.approx(before, abs=0.03)
    assert slipped.mean_square_claim == pytest.approx(0.01 * (0.99 + 0.01 * 9))


@given(histories, st.floats(0.0, 1e6))
def test_what_is_believed_is_a_bound_and_never_more_than_was_claimed(history, x):
    posterior = learn(history)
    usual = 0.1 if posterior is None else math.sqrt(posterior.mean_square_claim)
    assert calibration.bounded(x, posterior, PARAMS) == pytest.approx(min(x, 1.0, 3 * usual), abs=1e-9)


# -- the guard ---------------------------------------------------------------------------------------------------------
def test_the_guard_holds_b_against_the_last_150_outcomes_and_from_above_alone():
    good = [(0.2, 0.2 + 0.5 * (-1) ** n, n % 2 == 0, 1.0) for n in range(1_500)]
    bad = [(0.2, -0.1 + 0.5 * (-1) ** n, n % 2 == 0, 1.0) for n in range(300)]
    free = KellyParams(guard_sd=1e9)
    for history, held in ((good, False), (good + bad, True), (bad + good, False)):
        posterior = learn(history)
        b = kelly.decide(posterior, 0.2, 0.004, 0.02, 0.0, free)
        guarded = kelly.decide(posterior, 0.2, 0.004, 0.02, 0.0, PARAMS)
        memory = np.power(1 - 1 / 150, np.arange(len(history))[::-1])
        x, z = (np.array([row[place] for row in history]) for place in (0, 1))
        recent = (memory * x * z).sum() / (memory * x * x).sum()
        most = recent + 0.5 * math.sqrt(b.residual_variance / (memory * x * x).sum())
        assert guarded.calibration == pytest.approx(min(b.calibration, most), rel=1e-6)
        assert (guarded.calibration < b.calibration) == held


# -- partial pooling ---------------------------------------------------------------------------------------------------
def strategy(*cells):
    """Return the posteriors of a strategy's cells and its pool, each outcome added as it came."""
    pool, posteriors = None, []
    for history in cells:
        posterior = None
        for x, z, won, weight in history:
            after = calibration.observe(posterior, x, z, won, weight, PARAMS)
            pool = calibration.pooled(pool, posterior, after)
            posterior = after
        posteriors.append(posterior)
    return posteriors, pool


def noisy(b, count, seed):
    chance = np.random.default_rng(seed)
    z = b * 0.1 + chance.normal(size=count)
    return [(0.1, float(value), bool(value > 0), 1.0) for value in z]


def test_the_pool_is_the_sum_of_the_cells():
    posteriors, pool = strategy(noisy(1.0, 300, 1), noisy(0.0, 40, 2), noisy(0.5, 7, 3))
    assert pool.cells == 3
    assert pool.h1 == pytest.approx(sum(each.h1 for each in posteriors))
    assert pool.h2 == pytest.approx(sum(each.h2 for each in posteriors))


@pytest.mark.parametrize("counts", [(300, 40), (40, 300), (2_000, 0), (500, 500)])
def test_two_cells_pool_as_two_normal_slopes_about_one_of_their_strategy(counts):
    # b_s ~ N(b₀, v/K₀), b_i ~ N(b_s, τ²·v): the mean of b₂ given all data but those of cell 2 on b_s counted once.
    (first, second), pool = strategy(noisy(1.0, counts[0], 1), noisy(0.3, counts[1], 2))
    data = calibration.begin(PARAMS) if second is None else second
    known = calibration.with_prior(data, PARAMS, pool)
    weight, tau = calibration.prior_weight(data.mean_square_claim, PARAMS), 1 / PARAMS.pool_spread**2
    precision = np.array([[weight + first.h1 + tau, -tau], [-tau, tau + data.h1]])
    right = np.array([weight * PARAMS.prior_calibration + first.h2, data.h2])
    marginal = 1 / np.linalg.inv(precision)[1, 1]
    assert marginal - data.h1 > weight, "else the prior of a lone cell counts"
    assert known.h1 == pytest.approx(marginal)
    assert known.h2 / known.h1 == pytest.approx(np.linalg.solve(precision, right)[1])


def test_more_cells_tell_less_each_and_a_lone_cell_has_the_prior_alone():
    lone, pool = strategy(noisy(1.0, 100, 1))
    assert calibration.with_prior(lone[0], PARAMS, pool) == calibration.with_prior(lone[0], PARAMS)
    posteriors, pool = strategy(*(noisy(1.0, 200, seed) for seed in range(5)))
    known = calibration.with_prior(posteriors[0], PARAMS, pool)
    weight = 0.4
    others = sum(each.h1 for each in posteriors[1:]) / (1 + 0.5 * 3)
    told = weight + others
    assert known.h1 - posteriors[0].h1 == pytest.approx(max(weight, 1 / (0.09 + 1 / told)), rel=1e-6)


def test_a_new_symbol_of_a_proven_strategy_is_believed_more_and_of_a_harmful_one_less():
    alone = kelly.decide(None, 0.2, 0.004, 0.02, 0.0005, PARAMS)
    for b, better in ((1.0, True), (-0.5, False)):
        _, pool = strategy(noisy(b, 3_000, 4), noisy(b, 3_000, 5))
        size = kelly.decide(None, 0.2, 0.004, 0.02, 0.0005, PARAMS, None, None, pool)
        assert (size.fraction > alone.fraction) == better


# -- the size ----------------------------------------------------------------------------------------------------------
def test_a_first_claim_by_hand():
    # x .2, s 2 %, so conf·e = 40 bp: .4 of it is believed, less 8 bp of costs; K = 40·.1² = .4, v = 1.
    size = kelly.decide(None, 0.2, 0.004, 0.02, 0.0008, PARAMS)
    assert size.mean == pytest.approx(0.0008)
    assert size.variance == pytest.approx(0.0004 * (1 + 0.04 / 0.4))
    assert size.shrink == pytest.approx(0.16 * 0.4 / (1 + 0.16 * 0.4))
    assert size.full_fraction == pytest.approx(0.0008 / (0.00044 + 6.4e-7))
    assert size.fraction == pytest.approx(0.25 * (0.064 / 1.064) * 0.0008 / 0.00044064)
    assert size.edge_sd == pytest.approx(0.0008 / math.sqrt(0.00044))
    assert (size.win_rate, size.reason) == (0.5, "")


@pytest.mark.parametrize(
    ("costs", "wins", "reason"),
    [
        (0.002, 0.0, "no edge"),
        (0.0016, 0.0, "no edge"),
        (0.00098, 0.0, "edge below min_edge"),
        (0.00096, 0.0, ""),
        (0.0, -1.9, "win rate below min_win_rate"),
        (0.0, -1.8, ""),
    ],
)
def test_each_gate_closes_just_below_its_threshold(costs, wins, reason):
    # √S = .02·√1.1 = .02098; .03 of it is 6.3 bp, of 16 bp that are believed. 8.1 of 18.1 is below .45.
    posterior = calibration.begin(PARAMS)._replace(wins=wins)
    size = kelly.decide(posterior, 0.2, 0.004, 0.02, costs, KellyParams(min_win_rate=0.45))
    assert size.reason == reason
    assert (size.fraction == 0.0) == (reason != "")
    assert (size.full_fraction > 0.0) == (reason != "no edge")


def test_the_gates_are_settings():
    posterior = calibration.begin(PARAMS)._replace(wins=1.0 - WINS)
    assert kelly.decide(posterior, 0.2, 0.004, 0.02, 0.0, PARAMS).fraction > 0.0, "no gate on the win rate by default"
    assert kelly.decide(posterior, 0.2, 0.004, 0.02, 0.00159, KellyParams(min_edge=0.0)).fraction > 0.0


def test_a_strategy_that_wins_38_of_100_at_2_8_to_1_is_sized():
    # 2.8·.38 − .62 = .444 of its loss an outcome; the loss is 1/√(.38·7.84 + .62 − .444²) of its volatility.
    loss = 1 / math.sqrt(0.38 * 2.8**2 + 0.62 - 0.444**2)
    chance, posterior, sized = np.random.default_rng(3), None, 0
    for _ in range(500):
        sized += kelly.decide(posterior, 0.26, 0.0052, 0.02, 0.001, PARAMS).fraction > 0.0
        won = bool(chance.uniform() < 0.38)
        posterior = calibration.observe(posterior, 0.26, loss * (2.8 if won else -1.0), won, 1.0, PARAMS)
    assert calibration.win_rate(posterior, PARAMS) < 0.45
    assert sized > 450


@pytest.mark.parametrize("tiny", [5e-324, 1.5651112214663076e-159, 1e-30, 1e-10, 1e-9, 1e-6])
def test_a_claim_too_small_to_divide_by_leaves_every_number_finite(tiny):
    for params in (PARAMS, KellyParams(estimation_shrink=False)):
        posterior = learn([(tiny, 1.0, False, 1.0), (1.0, 0.0, False, 1.0), (tiny, -8.0, True, 1.0)], params)
        for x in (tiny, 1.0):
            size = kelly.decide(posterior, x, x * 0.02, 0.02, 0.001, params)
            assert all(map(math.isfinite, numbers(size)))


@given(histories, claims, st.floats(0.0, 0.01))
def test_shrink_off_bets_all_of_kelly_fraction(history, x, costs):
    bold = KellyParams(estimation_shrink=False)
    size = kelly.decide(learn(history), x, x * 0.02, 0.02, costs, bold)
    assert size.shrink == 1.0
    assert size.reason or size.fraction == pytest.approx(0.25 * size.full_fraction)


def test_full_kelly_maximises_expected_growth_to_second_order():
    # f = m/(S + m²) is exact for a coin: mean 2p − 1, second moment 1.
    p = 0.6
    best = optimize.minimize_scalar(lambda f: -p * math.log1p(f) - (1 - p) * math.log1p(-f), bounds=(0, 0.9)).x
    assert kelly.fraction(0.2, 0.96, 1.0, 1.0) == pytest.approx(0.2)
    assert best == pytest.approx(0.2, abs=1e-5)


@given(
    st.floats(1e-5, 0.05),
    st.floats(1e-6, 0.01),
    st.floats(0.01, 0.5),
    st.one_of(st.none(), st.floats(0.01, 1.0)),
    claims,
)
def test_a_stop_caps_the_loss_at_the_whole_value(mean, variance, kelly_fraction, stop, share):
    bet = kelly.fraction(mean, variance, share / 3.0, kelly_fraction, stop)
    free = kelly_fraction * share / 3.0 * mean / (variance + mean * mean)
    assert bet == pytest.approx(free if stop is None else min(free, 1.0 / stop))


@given(histories, st.floats(0.05, 3.0), st.floats(1.0, 10.0), st.sampled_from([None, 0.05, 0.5]))
def test_a_wider_interval_never_bets_more_and_the_same_one_the_same(history, x, inflation, stop):
    size = kelly.decide(learn(history), x, x * 0.02, 0.02, 0.0005, PARAMS, stop)
    assert kelly.resize(size, size.variance, PARAMS, stop) == size.fraction
    assert kelly.resize(size, size.variance / 2, PARAMS, stop) <= size.fraction
    smaller = kelly.resize(size, size.variance * inflation, PARAMS, stop)
    assert 0.0 <= smaller <= size.fraction
    if stop is None:
        square = size.mean * size.mean
        ratio = (size.variance + square) / (size.variance * inflation + square)
        assert smaller == pytest.approx(size.fraction * ratio)


# -- the region in which nothing is traded -----------------------------------------------------------------------------
renewals = st.floats(0.0, 1.0)
FEE = 0.001


def held_to(u, q, posterior=None, x=0.2, funding=0.0, params=PARAMS):
    """Return the size of a claim of x at 2 % with a round trip of 10 bp."""
    return kelly.decide(posterior, x, x * 0.02, 0.02, FEE + funding, params, None, None, None, FEE, Standing(u, q))


@given(histories, claims, st.floats(0.0, 3.0), renewals, st.floats(-0.01, 0.01))
def test_what_is_held_is_moved_only_to_the_nearer_end_of_the_region(history, x, u, q, funding):
    size = held_to(u, q, learn(history), x, funding)
    assert size.buying <= size.keeping or size.fraction == 0.0
    empty, full = (held_to(each, q, learn(history), x, funding).fraction for each in (0.0, 1e9))
    assert size.fraction == pytest.approx(max(empty, min(u, full)))
    assert held_to(size.fraction, q, learn(history), x, funding).fraction == size.fraction, "idempotent"
    assert size.fraction <= max(u, empty), "never grows but to what is worth buying"


@given(histories, claims, st.floats(-0.01, 0.01))
def test_without_renewal_and_with_nothing_held_all_costs_count(history, x, funding):
    size = held_to(0.0, 0.0, learn(history), x, funding)
    whole = max(FEE + funding, FEE - max(0.0, size.gross))
    plain = kelly.decide(learn(history), x, x * 0.02, 0.02, whole, PARAMS)
    assert size.fraction == pytest.approx(plain.fraction, rel=1e-9, abs=1e-12)
    assert size.buying == pytest.approx(size.mean)


@given(st.floats(0.0, 0.9), st.floats(0.0, 0.1), st.floats(0.001, 0.3))
def test_more_renewal_never_sizes_less(q, more, x):
    assert held_to(0.01, q + more, x=x).fraction >= held_to(0.01, q, x=x).fraction


@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("u", [0.0, 0.02, 0.05, 0.2, 0.5])
def test_it_is_what_maximises_growth_less_the_costs_of_trading_now_and_the_worth_of_holding_later(u, q):
    # Quadratic growth f·m₀ − f²·S/(2·kf·g); a trade costs c a side now, and a unit held later is worth λ = c(2q − 1).
    params = KellyParams(min_edge=0.0)
    size = held_to(u, q, params=params)
    c = FEE / 2
    pull = PARAMS.kelly_fraction * size.shrink

    def loss(f):
        return -(f * size.gross - f * f * size.variance / (2 * pull) - c * abs(f - u) + c * (2 * q - 1) * f)

    best = optimize.minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-10}).x
    assert size.fraction == pytest.approx(best, rel=0.02, abs=2e-5)


@pytest.mark.parametrize("rate", [0.0, 0.0004, 0.002])
@pytest.mark.parametrize("u", [0.0, 0.5])
def test_a_claim_of_nothing_is_no_size_whatever_the_funding(rate, u):
    size = held_to(u, 0.9, x=0.0, funding=-rate)
    assert (size.fraction, size.reason) == (0.0, "no edge")


def test_received_funding_counts_at_most_what_is_believed_of_the_claim():
    paid = held_to(0.0, 0.0, x=0.2, funding=0.0001)
    assert paid.mean == pytest.approx(0.4 * 0.004 - FEE - 0.0001)
    assert held_to(0.0, 0.0, x=0.2, funding=-0.0005).mean == pytest.approx(0.0016 - FEE + 0.0005)
    assert held_to(0.0, 0.0, x=0.2, funding=-0.05).mean == pytest.approx(0.0016 - FEE + 0.0016)


def test_a_closed_gate_keeps_what_is_worth_keeping_and_buys_nothing():
    assert held_to(0.0, 0.0, x=0.1).reason == "no edge"
    kept = held_to(0.004, 0.0, x=0.1)
    assert (kept.fraction, kept.reason, kept.opens) == (0.004, "", False)
    assert held_to(0.0, 0.9, x=0.1).fraction > 0.0, "renewed so often that it is worth buying"


# -- numbers of the literature -----------------------------------------------------------------------------------------
def test_baker_and_mchale_shrink_an_even_money_bet_at_60_percent_known_to_5_percent():
    # e = 2p − 1 = .2, its standard deviation 2·.05: K = 1 and v = .1².
    assert kelly.shrink(0.2, 1.0, 0.01) == pytest.approx(0.8)


def test_browne_and_whitt_bet_on_a_coin_with_a_beta_prior():
    params = KellyParams(effective_outcomes=FOREVER)
    start = calibration.begin(params)._replace(wins=3.0 - WINS, losses=2.0 - WINS)

    def after(tosses):
        return learn([(1.0, 0.0, won, 1.0) for won in tosses], params, start)

    def bet(tosses):
        edge = 2 * calibration.win_rate(after(tosses), params) - 1
        return kelly.fraction(edge, 1 - edge * edge, 1.0, 1.0)

    def growth(tosses):
        return sum(math.log1p(bet(tosses[:n]) * (1 if won else -1)) for n, won in enumerate(tosses))

    def chance(tosses):
        rates = ((calibration.win_rate(after(tosses[:n]), params), won) for n, won in enumerate(tosses))
        return math.prod(rate if won else 1 - rate for rate, won in rates)

    assert bet(()) == pytest.approx(0.2)
    assert bet((True,)) == pytest.approx(1 / 3)
    assert bet((False,)) == 0.0
    assert bet((True, True)) == pytest.approx(0.428571, abs=1e-6)
    games = list(itertools.product((True, False), repeat=4))
    assert sum(chance(game) for game in games) == pytest.approx(1.0)
    assert sum(chance(game) * growth(game) for game in games) == pytest.approx(0.1443656357, abs=1e-10)


@pytest.mark.parametrize(
    ("kelly_fraction", "bet", "capped", "payout"), [(0.6, 0.12, 0.950210, 242.0325), (1.0, 0.20, 0.938228, 237.3587)]
)
def test_haghani_and_deweys_coin_pays_what_they_computed(kelly_fraction, bet, capped, payout):
    fraction = kelly.fraction(0.2, 0.96, 1.0, kelly_fraction)
    assert fraction == pytest.approx(bet)
    alive, at_cap, paid = {0: 1.0}, 0.0, 0.0
    for flip in range(1, 301):
        toss = {}
        for wins, chance in alive.items():
            toss[wins + 1] = toss.get(wins + 1, 0.0) + 0.6 * chance
            toss[wins] = toss.get(wins, 0.0) + 0.4 * chance
        wealth = {wins: 25 * (1 + fraction) ** wins * (1 - fraction) ** (flip - wins) for wins in toss}
        at_cap += sum(chance for wins, chance in toss.items() if wealth[wins] >= 250)
        alive = {wins: chance for wins, chance in toss.items() if wealth[wins] < 250}
    paid = 250 * at_cap + sum(chance * wealth[wins] for wins, chance in alive.items())
    assert (at_cap, paid) == (pytest.approx(capped, abs=1e-6), pytest.approx(payout, abs=1e-4))


# -- drawdowns ---------------------------------------------------------------------------------------------------------
def drawdown_probability(kelly_fraction, alpha):
    """P(wealth ever ≤ α·W₀) of fractional Kelly on a diffusion."""
    return exact.power(alpha, 2.0 / kelly_fraction - 1.0)


@pytest.mark.parametrize(("kelly_fraction", "probability"), [(1.0, 0.7), (0.5, 0.343), (0.25, 0.0824)])
def test_fractional_kelly_falls_to_70_percent_as_a_diffusion_does(kelly_fraction, probability):
    assert drawdown_probability(kelly_fraction, 0.7) == pytest.approx(probability, abs=5e-5)
    # By itself: X = drift·t + sd·W first passes ln α with this probability, drift kf − kf²/2, sd kf, in Kelly's units.
    drift, sd = kelly_fraction - kelly_fraction**2 / 2, kelly_fraction
    level = -math.log(0.7)

    def density(t):
        return level / (sd * math.sqrt(2 * math.pi * t**3)) * math.exp(-((level + drift * t) ** 2) / (2 * sd * sd * t))

    found = integrate.quad(density, 0, 5)[0] + integrate.quad(density, 5, math.inf)[0]
    assert found == pytest.approx(probability, abs=1e-4)


def test_a_quarter_of_kelly_keeps_seven_sixteenths_of_its_growth():
    size = PARAMS.kelly_fraction
    assert size * (2 - size) == 0.4375


@given(st.floats(0.05, 0.95), st.floats(0.001, 0.95))
def test_the_drawdown_limit_meets_its_probability(alpha, beta):
    limit = kelly.drawdown_limit(DrawdownBound(alpha=alpha, beta=beta))
    assert 0.0 < limit < 2.0
    assert drawdown_probability(limit, alpha) == pytest.approx(beta, rel=1e-12)


def test_the_drawdown_bound_caps_kelly_fraction():
    bound = DrawdownBound(alpha=0.7, beta=0.1)
    assert kelly.drawdown_limit(bound) == pytest.approx(0.26825, abs=5e-6)

    def bet(kelly_fraction, bound=None):
        params = KellyParams(kelly_fraction=kelly_fraction)
        size = kelly.decide(None, 0.2, 0.004, 0.02, 0.0, params, None, bound)
        assert kelly.resize(size, size.variance, params, None, bound) == size.fraction
        return size.fraction

    assert bet(0.5, bound) == pytest.approx(bet(0.5) * kelly.drawdown_limit(bound) / 0.5)
    assert bet(0.25, bound) == bet(0.25)


def finite_outcomes():
    """Probabilities (100,) and gross returns (20, 100) of Busseti, Ryu and Boyd's example."""
    chance = np.random.RandomState(0)
    pi = chance.uniform(size=100)
    pi /= pi.sum()
    r = chance.uniform(0.7, 1.3, (20, 100))
    for _ in range(30):
        r[chance.choice(range(20)), chance.choice(range(100))] = 0.1
        r[chance.choice(range(20)), chance.choice(range(100))] = 2.5
    r[19] = 1.0
    return pi, r


@pytest.mark.parametrize(("risk_aversion", "growth"), [(0.0, 0.061691), (None, 0.043020), (5.5, 0.047351)])
def test_busseti_ryu_and_boyds_finite_outcomes_grow_as_they_computed(risk_aversion, growth):
    # None: λ from our own limit, kf = 2/(1 + λ), at α = .7 and β = .1.
    pi, r = finite_outcomes()
    limit = kelly.drawdown_limit(DrawdownBound(alpha=0.7, beta=0.1))
    power = 2.0 / limit - 1.0 if risk_aversion is None else risk_aversion
    if risk_aversion is None:
        assert power == pytest.approx(6.455696, abs=5e-7)

    def risk(b):
        return float(np.log(pi @ (r.T @ b) ** -power))

    def risk_slope(b):
        wealth = r.T @ b
        return -power * (r @ (pi * wealth ** (-power - 1))) / (pi @ wealth**-power)

    found = optimize.minimize(
        lambda b: -float(pi @ np.log(r.T @ b)),
        np.full(20, 0.05),
        jac=lambda b: -(r @ (pi / (r.T @ b))),
        bounds=[(0.0, 1.0)] * 20,
        constraints=[
            {"type": "eq", "fun": lambda b: b.sum() - 1.0, "jac": lambda b: np.ones(20)},  # noqa: ARG005
            {"type": "ineq", "fun": lambda b: -risk(b), "jac": lambda b: -risk_slope(b)},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    assert -found.fun == pytest.approx(growth, abs=2e-6)
    if risk_aversion == 0.0:
        assert found.x[[3, 18]] == pytest.approx([0.8735, 0.1265], abs=2e-4)


def test_a_claim_that_dwarfs_all_before_it_has_a_finite_variance():
    posterior = calibration.observe(None, 7.6e-160, 0.0, won=False, weight=1.0, params=PARAMS)
    size = kelly.decide(posterior, 1.0, 0.02, 0.02, 0.001, PARAMS)
    assert 0.0 < size.variance < 1e12
    assert size.fraction == 0.0 or size.mean > 0.0
