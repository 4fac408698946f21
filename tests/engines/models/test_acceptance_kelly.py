"""The acceptance table of docs/methods.md, section 1: what learning is worth on claims of known honesty.

2,000 runs of 500 trades in numpy, run by run in lockstep; and the real engine on some of the same runs, equal to it.
"""

from typing import NamedTuple

import numpy as np
import pytest

from engines.models import kelly
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
    """Return the fractions bet, (trades, runs), and the last mean of b, (runs,)."""
    runs = seen.x.shape[1]
    x0 = seen.x[0]
    usual = x0 * x0
    h = [p.prior_strength * usual, p.prior_strength * usual * p.prior_calibration, np.full(runs, 2 * p.prior_shape)]
    h.append(2 * p.prior_variance * (p.prior_shape - 1) + p.prior_strength * usual * p.prior_calibration**2)
    wins, losses = np.full(runs, p.win_prior), np.full(runs, p.win_prior)
    keep = 1 - 1 / p.effective_outcomes
    bets = []
    for trade, (x, z) in enumerate(zip(seen.x, seen.z, strict=True)):
        b = h[1] / h[0]
        v = (h[3] - h[1] ** 2 / h[0]) / 2 / (h[2] / 2 - 1)
        spread = v * (1 + x * x / h[0])
        mean = b * x * VOLATILITY - COSTS
        variance = VOLATILITY**2 * spread
        t2 = b * b * h[0] / v
        open_gate = (mean > 0) & (mean / np.sqrt(variance) >= p.min_edge) & (wins / (wins + losses) >= p.min_win_rate)
        kelly_bet = p.kelly_fraction * t2 / (1 + t2) * mean / (variance + mean * mean)
        bets.append(np.where(open_gate, np.minimum(kelly_bet, CAP), 0.0))
        y = np.clip(z, b * x - p.winsor_sd * np.sqrt(spread), b * x + p.winsor_sd * np.sqrt(spread))
        usual = p.claim_decay * usual + (1 - p.claim_decay) * x * x if trade else usual
        base = [p.prior_strength * usual, p.prior_strength * usual * p.prior_calibration, 2 * p.prior_shape]
        base.append(2 * p.prior_variance * (p.prior_shape - 1) + p.prior_strength * usual * p.prior_calibration**2)
        h = [keep * a + (1 - keep) * o + n for a, o, n in zip(h, base, (x * x, x * y, 1.0, y * y), strict=True)]
        won = VOLATILITY * z > COSTS
        wins = keep * wins + (1 - keep) * p.win_prior + won
        losses = keep * losses + (1 - keep) * p.win_prior + ~won
    return np.array(bets), h[1] / h[0]


def naive(seen):
    """kf·conf·e/s², the claim taken at its word."""
    return np.minimum(PARAMS.kelly_fraction * seen.x / VOLATILITY, CAP)


def engine(seen, run):
    """The same fractions from the engine itself, for one run."""
    posterior, bets = None, []
    for x, z in zip(seen.x[:, run].tolist(), seen.z[:, run].tolist(), strict=True):
        size = kelly.decide(posterior, x, x * VOLATILITY, VOLATILITY, COSTS, PARAMS)
        bets.append(min(size.fraction, CAP))
        posterior = kelly.observe(posterior, x, z, z * VOLATILITY > COSTS, 1.0, PARAMS)
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
        ("honest", 4.31, 0.031, 4.51, 0.032),
        ("noise", -0.18, 0.035, -0.74, 0.088),
        ("harmful", -0.28, 0.022, -2.32, 0.135),
        ("honest, then harmful", 1.25, 0.062, 1.09, 0.083),
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


@pytest.mark.parametrize(("honesty", "mean"), [(1.0, 0.955), (0.0, 0.047), (-0.3, -0.226)])
@pytest.mark.parametrize("claim", [0.05, 0.1, 0.3, 1.0])
def test_after_2_000_outcomes_the_truth_is_learnt_at_any_claim(honesty, mean, claim):
    # The mean over antithetic runs: one run's b still has a standard deviation of about 1/(20·claim).
    seen = world(np.full(2_000, honesty), trades=2_000, runs=200, claims=(claim, claim))
    assert learnt(seen)[1].mean() == pytest.approx(mean, abs=0.005)
    posterior = engine(seen, 0)[1]
    assert posterior.h2 / posterior.h1 == pytest.approx(learnt(seen)[1][0], rel=1e-9)
