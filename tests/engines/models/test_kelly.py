"""What to believe of a claim and what to bet on it, against textbook numbers and slower ways to the same thing."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from engines.models import kelly
from engines.models.kelly import Posterior
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
)

claims = st.floats(min_value=0.0, max_value=3.0)
results = st.floats(min_value=-8.0, max_value=8.0)
weights = st.sampled_from([1.0, 0.5, 1.0 / 3.0, 0.1])
histories = st.lists(st.tuples(claims, results, st.booleans(), weights), max_size=30)


def learn(history, params=PARAMS, posterior=None):
    for x, z, won, weight in history:
        posterior = kelly.observe(posterior, x, z, won, weight, params)
    return posterior


def normal_inverse_gamma(posterior):
    """(m, k, a, B) of the natural parameters."""
    b = posterior.h2 / posterior.h1
    return b, posterior.h1, posterior.h3 / 2, (posterior.h4 - posterior.h2 * b) / 2


# -- the posterior -----------------------------------------------------------------------------------------------------
def test_five_returns_give_the_textbook_normal_inverse_gamma():
    data = [0.01, -0.02, 0.03, 0.015, -0.005]
    posterior = learn([(1.0, z, z > 0, 1.0) for z in data], PLAIN)
    m, k, a, B = normal_inverse_gamma(posterior)
    assert (m, k, a, B) == pytest.approx((0.005, 6.0, 5.5, 0.00155), rel=1e-12)
    assert math.sqrt(B * (k + 1) / (a * k)) == pytest.approx(0.0181325088939, rel=1e-11)
    size = kelly.decide(posterior, 1.0, 1.0, 1.0, 0.0, PLAIN)
    assert size.mean == pytest.approx(0.005, rel=1e-12)
    assert size.variance == pytest.approx(0.000401851851852, rel=1e-11)
    assert size.full_fraction == pytest.approx(11.71366594, rel=1e-9)


def test_the_prior_is_counted_in_usual_claims():
    first = kelly.observe(None, 0.1, 0.3, WON, 1.0, PARAMS)
    assert first.mean_square_claim == 0.1 * 0.1
    assert normal_inverse_gamma(first)[1] == pytest.approx(41 * 0.01)
    second = kelly.observe(first, 0.2, 0.3, WON, 1.0, PARAMS)
    assert second.mean_square_claim == pytest.approx(0.99 * 0.01 + 0.01 * 0.04)
    assert second.outcomes == 2


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(-1.0, 1.0)), min_size=1, max_size=20))
def test_without_forgetting_it_is_ridge_regression_about_the_prior(pairs):
    params = KellyParams(effective_outcomes=FOREVER, winsor_sd=1e9)
    posterior = learn([(x, z, True, 1.0) for x, z in pairs], params)
    rho = math.sqrt(40.0) * pairs[0][0]
    rows = np.array([x for x, _ in pairs] + [rho])
    targets = np.array([z for _, z in pairs] + [0.5 * rho])
    slope = np.linalg.lstsq(rows[:, None], targets, rcond=None)[0][0]
    residual = float(((targets - slope * rows) ** 2).sum())
    m, _, a, B = normal_inverse_gamma(posterior)
    expected = (slope, 5.0 + len(pairs) / 2, 4.0 + residual / 2)
    assert (m, a, B) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_memory_ends_at_its_400_outcomes_and_the_priors_40():
    history = [(0.1, 0.1, True, 1.0), (0.1, 0.1, False, 1.0)] * 2_000
    posterior = learn(history)
    assert posterior.h1 == pytest.approx(440 * 0.01, rel=1e-3)
    assert posterior.h2 / posterior.h1 == pytest.approx((400 + 20) / 440, rel=1e-3)
    assert posterior.h3 == pytest.approx(400 + 10, rel=1e-3)
    assert posterior.wins + posterior.losses == pytest.approx(400 + 20, rel=1e-3)
    assert kelly.win_rate(posterior) == pytest.approx(0.5, abs=2e-3)


def test_a_quarter_of_an_outcome_adds_and_forgets_a_quarter():
    start = learn([(0.2, 1.0, True, 1.0)] * 10)
    part = kelly.observe(start, 0.2, 0.7, LOST, 0.25, PARAMS)
    whole = kelly.observe(start, 0.2, 0.7, LOST, 1.0, PARAMS)
    for before, quarter, full in zip(start[:4] + start[5:7], part[:4] + part[5:7], whole[:4] + whole[5:7], strict=True):
        assert quarter - before == pytest.approx((full - before) / 4, rel=1e-9)


@given(histories)
def test_the_win_rate_is_a_beta_posterior_that_forgets(history):
    wins = losses = 10.0
    for _, _, won, weight in history:
        keep = 1 - weight / 400
        wins, losses = (
            keep * wins + (1 - keep) * 10 + weight * won,
            keep * losses + (1 - keep) * 10 + weight * (not won),
        )
    posterior = learn(history)
    if posterior is not None:
        assert kelly.win_rate(posterior) == pytest.approx(stats.beta(wins, losses).mean())


def test_an_impossible_outcome_counts_as_six_standard_deviations():
    start = learn([(0.2, 0.5, True, 1.0)] * 30)
    b, K, a, B = normal_inverse_gamma(start)
    edge = b * 0.2 + 6 * math.sqrt(B / (a - 1) * (1 + 0.04 / K))
    wild = kelly.observe(start, 0.2, 1e300, WON, 1.0, PARAMS)
    assert wild == kelly.observe(start, 0.2, math.inf, WON, 1.0, PARAMS)
    assert wild == pytest.approx(kelly.observe(start, 0.2, edge, WON, 1.0, PARAMS))
    assert wild != kelly.observe(start, 0.2, edge * 0.99, WON, 1.0, PARAMS)


@given(histories, claims, st.floats(1e-4, 0.5))
def test_whatever_came_the_size_is_finite_and_within_its_bounds(history, x, volatility):
    size = kelly.decide(learn(history), x, x * volatility, volatility, 0.0005, PARAMS)
    assert all(math.isfinite(value) for value in size[:-1])
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
    assert all(math.isfinite(value) for value in size[:-1])


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
    assert kelly.observe(silent, 0.1, 0.1, WON, 1.0, PARAMS).mean_square_claim == 0.1 * 0.1


# -- the size ----------------------------------------------------------------------------------------------------------
def test_a_first_claim_by_hand():
    # x .2, s 2 %, so conf·e = 40 bp: half of it is believed, less 10 bp of costs; K = 40·.04 = 1.6, v = 1.
    size = kelly.decide(None, 0.2, 0.004, 0.02, 0.001, PARAMS)
    assert size.mean == pytest.approx(0.001)
    assert size.variance == pytest.approx(0.0004 * (1 + 0.04 / 1.6))
    assert size.shrink == pytest.approx(0.25 * 1.6 / (1 + 0.25 * 1.6))
    assert size.full_fraction == pytest.approx(0.001 / (0.00041 + 1e-6))
    assert size.fraction == pytest.approx(0.25 * (0.4 / 1.4) * 0.001 / 0.000411)
    assert size.edge_sd == pytest.approx(0.001 / math.sqrt(0.00041))
    assert (size.win_rate, size.reason) == (0.5, "")


@pytest.mark.parametrize(
    ("edge", "costs", "wins", "reason"),
    [
        (0.004, 0.0025, 10.0, "no edge"),
        (0.004, 0.002, 10.0, "no edge"),
        (0.004, 0.00161, 10.0, "edge below min_edge"),
        (0.004, 0.00155, 10.0, ""),
        (0.004, 0.0, 8.1, "win rate below min_win_rate"),
        (0.004, 0.0, 8.2, ""),
    ],
)
def test_each_gate_closes_just_below_its_threshold(edge, costs, wins, reason):
    posterior = kelly.prior(0.04, PARAMS)._replace(wins=wins)
    size = kelly.decide(posterior, 0.2, edge, 0.02, costs, PARAMS)
    assert size.reason == reason
    assert (size.fraction == 0.0) == (reason != "")
    assert (size.full_fraction > 0.0) == (reason != "no edge")


def test_the_gates_are_settings():
    open_gates = KellyParams(min_edge=0.0, min_win_rate=0.0)
    posterior = kelly.prior(0.04, PARAMS)._replace(wins=1.0)
    assert kelly.decide(posterior, 0.2, 0.004, 0.02, 0.00199, open_gates).fraction > 0.0


@pytest.mark.parametrize("tiny", [5e-324, 1.5651112214663076e-159, 1e-30, 1e-10, 1e-9, 1e-6])
def test_a_claim_too_small_to_divide_by_leaves_every_number_finite(tiny):
    for params in (PARAMS, KellyParams(estimation_shrink=False)):
        posterior = learn([(tiny, 1.0, False, 1.0), (1.0, 0.0, False, 1.0), (tiny, -8.0, True, 1.0)], params)
        for x in (tiny, 1.0):
            size = kelly.decide(posterior, x, x * 0.02, 0.02, 0.001, params)
            assert all(map(math.isfinite, size[:-1]))


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


# -- numbers of the literature -----------------------------------------------------------------------------------------
def test_baker_and_mchale_shrink_an_even_money_bet_at_60_percent_known_to_5_percent():
    # e = 2p − 1 = .2, its standard deviation 2·.05: K = 1 and v = .1².
    assert kelly.shrink(0.2, 1.0, 0.01) == pytest.approx(0.8)


def test_browne_and_whitt_bet_on_a_coin_with_a_beta_prior():
    params = KellyParams(effective_outcomes=FOREVER)
    start = kelly.prior(1.0, params)._replace(wins=3.0, losses=2.0)

    def after(tosses):
        return learn([(1.0, 0.0, won, 1.0) for won in tosses], params, start)

    def bet(tosses):
        edge = 2 * kelly.win_rate(after(tosses)) - 1
        return kelly.fraction(edge, 1 - edge * edge, 1.0, 1.0)

    def growth(tosses):
        return sum(math.log1p(bet(tosses[:n]) * (1 if won else -1)) for n, won in enumerate(tosses))

    def chance(tosses):
        rates = ((kelly.win_rate(after(tosses[:n])), won) for n, won in enumerate(tosses))
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
    posterior = kelly.observe(None, 7.6e-160, 0.0, won=False, weight=1.0, params=PARAMS)
    size = kelly.decide(posterior, 1.0, 0.02, 0.02, 0.001, PARAMS)
    assert 0.0 < size.variance < 1e12
    assert size.fraction == 0.0 or size.mean > 0.0
