"""What a series of returns can tell, and how surely: Sharpe ratio and drawdown with intervals, and the shuffle test.

Sources:
    D. Bailey, M. López de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012 (probabilistic).
    D. Bailey, M. López de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5), 2014.
    D. Politis, J. Romano, "The Stationary Bootstrap", JASA 89, 1994, as the package `arch` implements it.
"""

from collections.abc import Sequence
from math import e, isfinite, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAYS_A_YEAR: Final = 365.0
"""Coins trade on all of them."""
DAYS_MIN: Final = 60
"""Fewer daily returns give no interval."""
BOOTSTRAPS: Final = 2_000
SHUFFLES: Final = 1_000
SEED: Final = 20_120_114
EULER: Final = 0.5772156649015329
LOW, HIGH = 2.5, 97.5
NORMAL: Final = NormalDist()


class ReturnMoments(NamedTuple):
    """The shape of a sample of returns."""

    n: int
    mean: float
    sd: float
    skewness: float
    kurtosis: float
    """3 for a normal distribution."""

    @property
    def sharpe(self) -> float:
        """Mean over standard deviation, per return."""
        return self.mean / self.sd


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Bootstrapped(NamedTuple):
    """Intervals from the stationary bootstrap of daily returns."""

    sharpe: Interval
    """A year."""
    drawdown: Interval
    growth: Interval
    """Of the whole period."""
    block_days: float
    """Mean length of a block."""


class Shuffled(NamedTuple):
    """The profit of the positions, against the same positions on shuffled returns."""

    profit: float
    """Sum of position times return, before costs, as a share of the value."""
    mean: float
    """Of the shuffled profits: what standing positions earn from the drift alone."""
    sd: float
    p: float
    """Share of the shuffles that earned as much or more."""


def moments(returns: Floats) -> ReturnMoments | None:
    """Return the moments of returns; None where they do not vary, or are fewer than two."""
    if len(returns) < 2:
        return None
    centred = returns - returns.mean()
    variance = float((centred * centred).mean())
    if variance <= 1e-30:
        return None
    sd = sqrt(variance)
    skewness, kurtosis = (float((centred**k).mean()) / sd**k for k in (3, 4))
    return ReturnMoments(len(returns), float(returns.mean()), float(returns.std(ddof=1)), skewness, kurtosis)


def probabilistic_sharpe(sharpe: float, n: int, skewness: float, kurtosis: float, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark; ratios are per return.

    >>> round(probabilistic_sharpe(0.458, 24, -2.448, 10.164), 3)
    0.913
    """
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe
    return NORMAL.cdf((sharpe - benchmark) * sqrt(n - 1) / sqrt(max(spread, 1e-12)))


def expected_best_sharpe(variance: float, trials: int) -> float:
    """Return the largest Sharpe ratio to expect from `trials` strategies without skill, whose ratios vary so much.

    >>> round(expected_best_sharpe(0.5 / 250, 100), 4)
    0.1132
    """
    if trials < 2:
        return 0.0
    best = (1.0 - EULER) * NORMAL.inv_cdf(1.0 - 1.0 / trials) + EULER * NORMAL.inv_cdf(1.0 - 1.0 / (trials * e))
    return sqrt(variance) * best


def deflated_sharpe(found: ReturnMoments, trials: int, variance: float | None = None) -> float:
    """Return the probability that the Sharpe ratio is above the best of `trials` without skill.

    `variance`: of the trials' Sharpe ratios per return; None: that of the estimate without skill, 1/(n − 1).
    """
    spread = 1.0 / (found.n - 1) if variance is None else variance
    benchmark = expected_best_sharpe(spread, trials)
    return probabilistic_sharpe(found.sharpe, found.n, found.skewness, found.kurtosis, benchmark)


def trials_withstood(found: ReturnMoments, confidence: float = 0.95, most: int = 1_000_000) -> int:
    """Return how many trials the deflated Sharpe ratio withstands; 0: not even one."""
    if deflated_sharpe(found, 1) < confidence:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if deflated_sharpe(found, middle) >= confidence else (low, middle - 1)
    return low


def drawdown(returns: Floats) -> float:
    """Return the largest fall of compounded returns from a peak, as a share of the peak."""
    if not len(returns):
        return 0.0
    value = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    peak = np.maximum.accumulate(value)
    return float(((peak - value) / peak).max())


def bootstrapped(returns: Floats) -> Bootstrapped | None:
    """Return intervals for daily returns; None where the returns are too few or do not vary.

    Raises:
        ImportError: the package `arch` is not installed.
    """
    from arch.bootstrap import StationaryBootstrap  # noqa: PLC0415 optional and slow to import

    if len(returns) < DAYS_MIN or moments(returns) is None:
        return None
    block = _block(returns)
    found = StationaryBootstrap(block, returns, seed=SEED).apply(_figures, BOOTSTRAPS)
    low, high = np.percentile(found, [LOW, HIGH], axis=0)
    sharpe, fall, growth = (Interval(float(a), float(b)) for a, b in zip(low, high, strict=True))
    return Bootstrapped(sharpe, fall, growth, float(block))


def total_interval(differences: Floats) -> Interval | None:
    """Return the interval of the sum of daily differences; None where they are too few, or all the same.

    Raises:
        ImportError: the package `arch` is not installed.
    """
    from arch.bootstrap import StationaryBootstrap  # noqa: PLC0415 optional and slow to import

    if len(differences) < DAYS_MIN or moments(differences) is None:
        return None
    found = StationaryBootstrap(_block(differences), differences, seed=SEED).apply(_total, BOOTSTRAPS)
    low, high = np.percentile(found, [LOW, HIGH])
    return Interval(float(low), float(high))


def _total(returns: Floats) -> Floats:
    return np.array([returns.sum()])


def _block(returns: Floats) -> int:
    """Return the mean length of a block in days, as Politis and White choose it."""
    from arch.bootstrap import optimal_block_length  # noqa: PLC0415 likewise

    best = float(optimal_block_length(returns)["stationary"].iloc[0])
    return max(1, round(min(best if isfinite(best) else 1.0, len(returns) / 3.0)))


def _figures(returns: Floats) -> Floats:
    sd = returns.std(ddof=1)
    sharpe = returns.mean() / sd * sqrt(DAYS_A_YEAR) if sd > 0 else 0.0
    return np.array([sharpe, drawdown(returns), float(np.prod(1.0 + returns)) - 1.0])


def shuffled(weights: Floats, returns: Floats, block: int) -> Shuffled | None:
    """Return the shuffle test: positions against returns whose blocks are put in another order.

    Args:
        weights: position of each symbol in each bar, as a share of the value, (bars, symbols).
        returns: return of each symbol in each bar, (bars, symbols); the symbols are shuffled together.
        block: bars in a block.

    None: nothing was held, or there are fewer than ten blocks.
    """
    bars = len(returns)
    count = bars // max(block, 1)
    if count < 10 or not np.any(weights):
        return None
    chance = np.random.default_rng(SEED)
    profit = float((weights * returns).sum())
    blocks = np.arange(count * block).reshape(count, block)
    null = np.empty(SHUFFLES)
    for number in range(SHUFFLES):
        order = (blocks[chance.permutation(count)].ravel() + int(chance.integers(bars))) % bars
        null[number] = (weights[: len(order)] * returns[order]).sum()
    p = (1 + int((null >= profit).sum())) / (SHUFFLES + 1)
    return Shuffled(profit, float(null.mean()), float(null.std()), p)


def daily(equity: Sequence[float] | Floats, initial: float) -> Floats:
    """Return the daily returns of an equity given at the end of each day."""
    values = np.concatenate([[initial], np.asarray(equity, dtype=np.float64)])
    before = values[:-1]
    return np.where(before > 0, np.diff(values) / np.where(before > 0, before, 1.0), 0.0)
