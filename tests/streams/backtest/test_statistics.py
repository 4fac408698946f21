"""Statistics against the numbers of the papers, against theory, and on data in which the truth is planted."""

from math import sqrt

import numpy as np
import pytest

from streams.backtest import statistics
from streams.backtest.statistics import ReturnMoments

FUND = ReturnMoments(24, 0.0, 1.0, -2.448, 10.164)
"""Bailey and López de Prado 2012: 24 months, Sharpe .458 a month."""


def test_the_probabilistic_sharpe_ratio_is_that_of_the_paper():
    assert statistics.probabilistic_sharpe(0.458, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)
    assert statistics.probabilistic_sharpe(0.458, 24, 0.0, 3.0) == pytest.approx(0.982, abs=5e-4)


def test_the_deflated_sharpe_ratio_is_that_of_the_paper():
    daily = 2.5 / sqrt(250)
    found = ReturnMoments(1_250, daily, 1.0, -3.0, 10.0)
    assert statistics.expected_best_sharpe(0.5 / 250, 100) == pytest.approx(0.1132, abs=5e-5)
    assert statistics.deflated_sharpe(found, 100, 0.5 / 250) == pytest.approx(0.9004, abs=5e-5)
    assert statistics.deflated_sharpe(found, 46, 0.5 / 250) == pytest.approx(0.9505, abs=5e-5)


def test_the_best_of_many_without_skill_is_expected_to_be_as_good_as_the_formula_says():
    chance = np.random.default_rng(4)
    best = chance.normal(size=(4_000, 100)).max(axis=1).mean()
    assert statistics.expected_best_sharpe(1.0, 100) == pytest.approx(best, rel=0.02)


def test_the_trials_withstood_are_the_last_that_leave_enough_confidence():
    found = ReturnMoments(700, 0.15, 1.0, 0.0, 3.0)
    last = statistics.trials_withstood(found)
    assert statistics.deflated_sharpe(found, last) >= 0.95 > statistics.deflated_sharpe(found, last + 1)
    assert statistics.trials_withstood(found._replace(mean=-0.1)) == 0


def test_moments_of_a_known_sample():
    found = statistics.moments(np.array([-1.0, 0.0, 0.0, 3.0]))
    assert (found.n, found.mean, found.sd) == (4, 0.5, pytest.approx(sqrt(9.0 / 3)))
    assert statistics.moments(np.zeros(5)) is None
    assert statistics.moments(np.array([1.0])) is None


def test_the_interval_of_the_sharpe_ratio_is_as_wide_as_theory_says_for_independent_returns():
    returns = np.random.default_rng(5).normal(0.001, 0.02, 1_000)
    found = statistics.bootstrapped(returns)
    sharpe = returns.mean() / returns.std(ddof=1) * sqrt(365)
    expected = 2 * 1.96 * sqrt(365 / 1_000)
    assert found.sharpe.low < sharpe < found.sharpe.high
    assert found.sharpe.high - found.sharpe.low == pytest.approx(expected, rel=0.15)
    assert found == statistics.bootstrapped(returns), "the same in every run"


def test_too_little_data_gives_no_interval():
    assert statistics.bootstrapped(np.random.default_rng(5).normal(size=59)) is None
    assert statistics.bootstrapped(np.zeros(500)) is None


def test_a_drawdown_by_hand():
    assert statistics.drawdown(np.array([0.1, -0.5, 0.2, -0.5])) == pytest.approx(1 - 0.5 * 1.2 * 0.5)
    assert statistics.drawdown(np.array([])) == 0.0


def test_returns_of_days_chain():
    found = statistics.daily([110.0, 99.0], 100.0)
    assert found == pytest.approx([0.1, -0.1])


# -- the shuffle test --------------------------------------------------------------------------------------------------
def shuffled(timed, drift=0.0, seed=1):
    chance = np.random.default_rng(seed)
    returns = chance.normal(drift, 0.01, (2_000, 2))
    weights = (
        np.where(returns + chance.normal(0, 0.03, returns.shape) > 0, 0.1, -0.1) if timed else np.full((2_000, 2), 0.1)
    )
    return statistics.shuffled(weights, returns, 50)


def test_timing_does_not_survive_the_shuffle():
    found = shuffled(timed=True)
    assert found.p <= 0.01
    assert abs(found.mean) < 0.2 * found.profit


def test_drift_survives_the_shuffle():
    found = shuffled(timed=False, drift=0.002)
    assert found.profit == pytest.approx(found.mean)
    assert found.p > 0.3


def test_without_an_edge_the_shuffle_finds_one_as_rarely_as_it_says():
    chance, low = np.random.default_rng(9), 0
    for _ in range(40):
        returns = chance.normal(0, 0.01, (600, 1))
        weights = np.repeat(chance.choice([-0.1, 0.1], (60, 1)), 10, axis=0)
        low += statistics.shuffled(weights, returns, 10).p <= 0.05
    assert low <= 7


def test_the_shuffle_needs_positions_and_blocks():
    assert statistics.shuffled(np.zeros((500, 1)), np.ones((500, 1)), 10) is None
    assert statistics.shuffled(np.ones((50, 1)), np.ones((50, 1)), 10) is None
