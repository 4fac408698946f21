"""The acceptance table of docs/methods.md, section 1: what learning is worth on claims of known honesty.

2,000 runs of 500 trades in numpy, run by run in lockstep; and the real engine on some of the same runs, equal to it.
"""

from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import methods
from engines.models import calibration, kelly
from engines.parameters import KellyParams

PARAMS = KellyParams()
RUNS, TRADES = 2_000, 500
VOLATILITY, CONFIDENCE, COSTS, CAP = 0.02, 0.7, 0.0005, 0.15


class World(NamedTuple):
    """Claims x and what came, z: (trades, runs)."""

    x: np.ndarray
    z: np.ndarray


class Result(NamedTuple):
    growth_bp: float
    drawdown: float


def world(honesty, *, seed=7, trades=TRADES, runs=RUNS, claims=(0.05, 0.30)):
    """Draw runs in antithetic pairs: the same claims, opposite errors. `honesty`: true b, trade by trade."""
    chance = np.random.default_rng(seed)
    x = np.tile(chance.uniform(*claims, (trades, runs // 2)), 2)
    error = chance.normal(size=(trades, runs // 2))
    return World(x, np.asarray(honesty).reshape(-1, 1) * x + np.hstack([error, -error]))


def result(fractions, z):
    """Growth in bp a trade and median largest drawdown of wealth that bets these fractions."""
    growth = np.log1p(fractions * VOLATILITY * z - np.abs(fractions) * COSTS)
    wealth = np.vstack([np.zeros(z.shape[1]), np.cumsum(growth, axis=0)])
    fall = 1.0 - np.exp((wealth - np.maximum.accumulate(wealth, axis=0)).min(axis=0))
    return Result(float(growth.mean() * 1e4), float(np.median(fall)))


def learnt(seen, p=PARAMS):
    """Return the fractions bet, (trades, runs), and the last mean of b without the guard, (runs,)."""
    runs = seen.x.shape[1]
    usual = np.full(runs, p.first_claim**2)
    data, recent = [np.zeros(runs) for _ in range(4)], [np.zeros(runs) for _ in range(2)]
    keep, fade = 1 - 1 / p.effective_outcomes, 1 - 1 / p.guard_outcomes
    bets = []

    def believed():
        weight = np.minimum(p.prior_strength * usual, p.max_prior_weight)
        spread = 2 * p.prior_variance * (p.prior_shape - 1)
        K = data[0] + weight
        b = (data[1] + weight * p.prior_calibration) / K
        v = (data[3] + spread + weight * p.prior_calibration**2 - K * b * b) / (data[2] + 2 * p.prior_shape - 2)
        return K, b, v

    for trade, (claimed, z) in enumerate(zip(seen.x, seen.z, strict=True)):
        x = np.minimum(claimed, np.minimum(p.max_claim, p.max_usual_claims * np.sqrt(usual)))
        K, b, v = believed()
        spread = v * (1 + x * x / K)
        held = b if not trade else np.minimum(b, recent[1] / recent[0] + p.guard_sd * np.sqrt(v / recent[0]))
        mean = held * x * VOLATILITY - COSTS
        variance = VOLATILITY**2 * spread
        t2 = held * held * K / v
        open_gate = (mean > 0) & (mean / np.sqrt(variance) >= p.min_edge)
        kelly_bet = p.kelly_fraction * t2 / (1 + t2) * mean / (variance + mean * mean)
        bets.append(np.where(open_gate, np.minimum(kelly_bet, CAP), 0.0))
        y = np.clip(z, b * x - p.winsor_sd * np.sqrt(spread), b * x + p.winsor_sd * np.sqrt(spread))
        data = [keep * old + new for old, new in zip(data, (x * x, x * y, 1.0, y * y), strict=True)]
        recent = [fade * old + new for old, new in zip(recent, (x * x, x * y), strict=True)]
        usual = usual + max(1 - p.claim_decay, 1 / (trade + 2)) * (x * x - usual)
    return np.array(bets), believed()[1]


def naive(seen):
    """kf·conf·e/s², the claim taken at its word."""
    return np.minimum(PARAMS.kelly_fraction * seen.x / VOLATILITY, CAP)


def engine(seen, run):
    """The same fractions from the engine itself, for one run."""
    posterior, bets = None, []
    for x, z in zip(seen.x[:, run].tolist(), seen.z[:, run].tolist(), strict=True):
        size = kelly.decide(posterior, x, x * VOLATILITY, VOLATILITY, COSTS, PARAMS)
        bets.append(min(size.fraction, CAP))
        posterior = calibration.observe(posterior, x, z, z * VOLATILITY > COSTS, 1.0, PARAMS)
    return np.array(bets), posterior


HONESTY = {
    "honest": np.ones(TRADES),
    "noise": np.zeros(TRADES),
    "harmful": np.full(TRADES, -0.3),
    "honest, then harmful": np.repeat([1.0, -0.3], TRADES // 2),
}


def near(value):
    """The tolerance of the table: 10 % or .05 bp, whichever is larger."""
    return pytest.approx(value, rel=0.10, abs=0.05)


@pytest.mark.parametrize(
    ("kind", "growth", "drawdown", "naive_growth", "naive_drawdown"),
    [
        ("honest", 4.15, 0.030, 4.51, 0.032),
        ("noise", -0.13, 0.028, -0.74, 0.088),
        ("harmful", -0.20, 0.015, -2.32, 0.135),
        ("honest, then harmful", 1.29, 0.055, 1.09, 0.083),
    ],
)
def test_learning_is_worth_what_the_table_says(kind, growth, drawdown, naive_growth, naive_drawdown):
    seen = world(HONESTY[kind])
    ours, theirs = result(learnt(seen)[0], seen.z), result(naive(seen), seen.z)
    assert ours.growth_bp == near(growth)
    assert ours.drawdown == pytest.approx(drawdown, rel=0.10)
    assert theirs.growth_bp == near(naive_growth)
    assert theirs.drawdown == pytest.approx(naive_drawdown, rel=0.10)


@pytest.mark.parametrize("kind", HONESTY)
def test_the_engine_bets_what_the_table_was_made_with(kind):
    seen = world(HONESTY[kind])
    fast = learnt(seen)[0]
    for run in range(20):
        np.testing.assert_allclose(engine(seen, run)[0], fast[:, run], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("honesty", [1.0, 0.0, -0.3])
@pytest.mark.parametrize("claim", [0.05, 0.1, 0.3, 1.0])
def test_after_2_000_outcomes_the_truth_is_learnt_at_any_claim(honesty, claim):
    # Theory: n outcomes that are remembered beside a prior of K₀ at b₀; runs are antithetic, so the mean has no noise.
    seen = world(np.full(2_000, honesty), trades=2_000, runs=200, claims=(claim, claim))
    learning = learnt(seen)[1]
    n = PARAMS.effective_outcomes * (1 - (1 - 1 / PARAMS.effective_outcomes) ** 2_000)
    prior = min(PARAMS.prior_strength, PARAMS.max_prior_weight / claim**2)
    mean = (n * honesty + prior * PARAMS.prior_calibration) / (n + prior)
    assert learning.mean() == pytest.approx(mean, abs=0.005)
    twice = n * n / (PARAMS.effective_outcomes / 2 * (1 - (1 - 1 / PARAMS.effective_outcomes) ** 4_000))
    assert learning.std() == pytest.approx(1 / (claim * np.sqrt(twice)), rel=0.15)
    known = calibration.with_prior(engine(seen, 0)[1], PARAMS)
    assert known.h2 / known.h1 == pytest.approx(learning[0], rel=1e-9)


# -- the tables of the second edition: slips, a strategy's other cells, rare wins --------------------------------------
@pytest.mark.parametrize(
    ("x", "honesty", "at", "usd"),
    [(0.35, -0.3, 0, -1_305), (0.35, 1.0, 200, 78_393), (0.1, 1.0, 0, 7_755), (0.1, 1.0, None, 7_979)],
)
def test_with_the_specifications_defaults_slips_cost_to_the_dollar_what_it_says(x, honesty, at, usd):
    profit = [methods.slipped(x, honesty, at, seed, methods.PROTOTYPE).profit_usd for seed in range(40)]
    assert np.mean(profit) == pytest.approx(usd, abs=0.5)


@pytest.mark.parametrize(("x", "honesty", "at"), [(0.35, -0.3, 0), (0.35, 1.0, 200), (0.1, 1.0, 0)])
def test_a_claim_that_slipped_a_hundredfold_costs_less_than_seeds_differ(x, honesty, at):
    with_slip, without = (
        np.array([methods.slipped(x, honesty, each, seed).profit_usd for seed in range(10)]) for each in (at, None)
    )
    assert abs(np.mean(with_slip - without)) < 0.1 * without.std()


def test_the_cells_of_a_strategy_tell_each_other_what_its_claims_are_worth():
    # Twelve cells alike against lone ones: mean square errors of .23 and .47, noise sized .20 and .38 of the time.
    honest, noise = ([methods.cells(0.1, [b] * 12, seed, claims=200) for seed in range(40)] for b in (1.0, 0.0))
    lone, lone_noise = ([methods.cells(0.1, [b], seed, claims=200) for seed in range(250)] for b in (1.0, 0.0))

    def less(pooled, alone, field, power=1):
        """In standard errors of the difference."""
        one, other = (np.array([getattr(run, field) ** power for run in runs]) for runs in (pooled, alone))
        return (other.mean() - one.mean()) / np.hypot(*(each.std() / np.sqrt(len(each)) for each in (one, other)))

    assert less(honest, lone, "error", 2) > 3
    assert less(noise, lone_noise, "error", 2) > 3
    assert less(noise, lone_noise, "noise_in") > 3


def test_who_wins_seldom_but_much_is_sized_nearly_always():
    counts = [methods.rare_wins(seed) for seed in range(20)]
    assert np.mean(counts) > 470
    assert min(counts) > 400


def test_a_bold_first_claim_bets_a_twentieth_where_it_once_bet_nearly_six_times_the_value():
    # x of 3 counts as .3, and an unproven g is b²·K/(1 + b²·K) with K = .4.
    size = methods.first_bet(3.0)
    g = 0.16 * 0.4 / (1 + 0.16 * 0.4)
    mean, variance = 0.4 * 0.006 - 0.001, 0.0004 * (1 + 0.09 / 0.4)
    assert size.fraction == pytest.approx(0.25 * g * mean / (variance + mean * mean))
    assert methods.first_bet(3.0, methods.PROTOTYPE).fraction == pytest.approx(0.09201, abs=1e-5)
