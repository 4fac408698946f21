"""Correlations of the symbols' bar returns, raw for reports and shrunk for sizing.

The raw matrix is used for reports and alerts. The shrunk one is used for sizing: each pair is shrunk towards the mean
pairwise correlation, and the matrix is always positive definite.

A pair seen in k bars has the weight 1 - decay^k; the mean correlation fills the rest. So a new symbol is assumed to
move with the others until its own correlations are known, and does not change theirs.

    >>> from engines.models.moments import begin, observe
    >>> moments, params = begin(), CorrelationParams()
    >>> for bar in range(1, 101):
    ...     move = 0.01 if bar % 2 else -0.01
    ...     observe(moments, bar * 3_600 * 10**9, {"BTC": move, "ETH": 2.0 * move}, params)
    >>> found = shrunk(moments, params)
    >>> round(float(raw(moments, params)[0, 1]), 3), round(float(found.matrix[0, 1]), 3), round(found.mean, 3)
    (1.0, 0.974, 0.941)

Source: docs/methods.md, section 6; Ledoit and Wolf 2003 (constant-correlation target); Choueifaty and Coignard 2008
(diversification ratio).
"""

from math import isfinite, sqrt
from typing import Final, NamedTuple

import numpy as np

from engines.models.moments import CountMatrix, Flags, Floats, Moments, Times
from engines.numerics.cholesky import compiled, smallest_pivot
from engines.parameters import CorrelationParams

__all__ = ["Crossing", "Diversification", "Shrunk", "alerts", "diversification", "raw", "shrunk", "stressed"]

LARGEST_PAIR: Final = 0.99
"""Pairs are clipped to this absolute correlation in the shrunk matrix."""
LARGEST_MEAN: Final = 0.95
"""The mean correlation is clipped to [0, this], so that the shrinkage target is positive definite."""
SMALLEST_PIVOT: Final = 1e-4
SHRINK_STEP: Final = 0.1
ALERT_BARS: Final = 24
"""Number of bars in which a pair must be seen before it can raise an alert."""
ALERT_MARGIN: Final = 0.05
"""A pair's alert is cleared when its correlation is this far below the threshold."""


class Shrunk(NamedTuple):
    """The correlation to size with."""

    matrix: Floats
    """(n, n), symmetric, 1 on the diagonal, positive definite."""
    mean: float
    """Mean pairwise correlation, the shrinkage target, in [0, .95]."""
    shrink: float
    """Weight of the target; above the setting if it had to be raised to keep the matrix positive definite."""
    raises: int
    """Number of times that the weight was raised."""


class Crossing(NamedTuple):
    """A pair whose absolute correlation has reached the alert threshold, or fallen below it again."""

    first: str
    second: str
    correlation: float
    above: bool


class Diversification(NamedTuple):
    """Diversification of a portfolio."""

    ratio: float
    """DR = |w|ᵀσ / √(wᵀΣw), stand-alone risks over portfolio risk; 1 for one symbol."""
    score: float
    """DR²/n for the n symbols held; 1 if they are uncorrelated and of equal risk."""


def raw(moments: Moments, params: CorrelationParams) -> Floats:
    """Return the (n, n) sample correlations in [-1, 1], for reports and alerts; 0 for a pair that was never seen."""
    return _correlations(moments.cross, moments.bars, len(moments.symbols), _known(params.decay))


def shrunk(moments: Moments, params: CorrelationParams) -> Shrunk:
    """Return the correlations to size with, shrunk towards their mean until every Cholesky pivot is at least 1e-4.

    Each pair is clipped to ±.99 and weighted by 1 - decay^bars; the mean fills the rest. The mean uses the same
    weights, starts at 0, and is clipped to [0, .95].
    """
    n = len(moments.symbols)
    known = _known(params.decay)
    correlations = _correlations(moments.cross, moments.bars, n, known)
    mean = float(_mean(correlations, moments.bars, known))
    raises = 0
    while True:
        shrink = min(params.shrink + SHRINK_STEP * raises, 1.0)
        matrix = _blend(correlations, moments.bars, known, mean, shrink)
        if shrink >= 1.0 or smallest_pivot(matrix, SMALLEST_PIVOT) >= SMALLEST_PIVOT:
            return Shrunk(matrix, mean, shrink, raises)
        raises += 1


def stressed(matrix: Floats, kappa: float) -> Floats:
    """Return (1 - κ)C + κ·11ᵀ for κ in [0, .9]: every pair moved towards 1; still positive definite."""
    return matrix + kappa * (1.0 - matrix)


def diversification(weights: Floats, sigma: Floats, matrix: Floats) -> Diversification | None:
    """Return how diversified a portfolio is; None if nothing is held or all risk is hedged away.

    Args:
        weights: (n,) signed shares of equity, in any scale.
        sigma: (n,) volatilities over one horizon.
        matrix: (n, n) correlations.
    """
    apart, variance, held = _risks(weights, sigma, matrix)
    if not variance > 0.0:
        return None
    ratio = float(apart) / sqrt(variance)
    return Diversification(ratio, ratio * ratio / held) if isfinite(ratio) else None


def alerts(moments: Moments, correlations: Floats, params: CorrelationParams) -> list[Crossing]:
    """Return the pairs that crossed the alert threshold since the last call, by name, and record their status.

    An alert is raised at |ρ| ≥ `alert_threshold` if the pair was seen in 24 bars, and cleared .05 below it.

    Args:
        moments: `high` is changed in place.
        correlations: (n, n), from `raw`.
        params: the settings in force.
    """
    crossed = _crossed(correlations, moments.bars, moments.high, params.alert_threshold)
    return [
        Crossing(moments.symbols[i], moments.symbols[j], float(correlations[i, j]), bool(above))
        for i, j, above in crossed.tolist()
    ]


@compiled
def _known(decay: float) -> Floats:
    """Return the weight 1 - decay^k of a pair seen in k = 0, 1, 2, … bars, up to where it is 1."""
    table = np.ones(4_096)
    power = 1.0
    for k in range(table.size):
        table[k] = 1.0 - power
        power *= decay
    return table


@compiled
def _correlations(cross: Floats, bars: CountMatrix, n: int, known: Floats) -> Floats:
    """Return the moments, each divided by its weight, as an (n, n) correlation matrix."""
    last = known.size - 1
    deviations = np.ones(n)
    at = 0
    for i in range(n):
        if cross[at] > 0.0:
            deviations[i] = sqrt(cross[at] / known[min(bars[at], last)])
        at += n - i
    matrix = np.empty((n, n))
    at = 0
    for i in range(n):
        matrix[i, i] = 1.0
        for j in range(i + 1, n):
            at += 1
            rho = cross[at] / max(known[min(bars[at], last)], 1e-9) / (deviations[i] * deviations[j])
            matrix[i, j] = matrix[j, i] = min(max(rho, -1.0), 1.0)
        at += 1
    return matrix


@compiled
def _mean(correlations: Floats, bars: CountMatrix, known: Floats) -> float:
    """Return the mean pairwise correlation by weight, times the weight of the best-known pair."""
    n, last = correlations.shape[0], known.size - 1
    total, weights, best = 0.0, 0.0, 0.0
    at = 0
    for i in range(n):
        for j in range(i + 1, n):
            at += 1
            weight = known[min(bars[at], last)]
            total += weight * min(max(correlations[i, j], -LARGEST_PAIR), LARGEST_PAIR)
            weights += weight
            best = max(best, weight)
        at += 1
    if weights == 0.0:
        return 0.0
    return min(max(best * total / weights, 0.0), LARGEST_MEAN)


@compiled
def _blend(correlations: Floats, bars: CountMatrix, known: Floats, mean: float, shrink: float) -> Floats:
    """Return the pairs by weight, the mean for the rest, then shrunk towards the mean by `shrink`."""
    n, last = correlations.shape[0], known.size - 1
    matrix = np.empty((n, n))
    at = 0
    for i in range(n):
        matrix[i, i] = 1.0
        for j in range(i + 1, n):
            at += 1
            own = (1.0 - shrink) * known[min(bars[at], last)]
            pair = min(max(correlations[i, j], -LARGEST_PAIR), LARGEST_PAIR)
            matrix[i, j] = matrix[j, i] = own * pair + (1.0 - own) * mean
        at += 1
    return matrix


@compiled
def _risks(weights: Floats, sigma: Floats, matrix: Floats) -> tuple[float, float, int]:
    """Return |w|ᵀσ, wᵀΣw and the number of non-zero weights."""
    apart, variance, held = 0.0, 0.0, 0
    for i in range(weights.size):
        if weights[i] == 0.0:
            continue
        held += 1
        risk = weights[i] * sigma[i]
        apart += abs(risk)
        variance += risk * risk
        for j in range(i):
            variance += 2.0 * (risk * (weights[j] * sigma[j]) * matrix[j, i])
    return apart, variance, held


@compiled
def _crossed(correlations: Floats, bars: CountMatrix, high: Flags, threshold: float) -> Times:
    """Return (row, column, above) of each pair that has crossed the threshold, and record it."""
    n = correlations.shape[0]
    found = np.empty((high.size, 3), np.int64)
    count = 0
    at = 0
    for i in range(n):
        for j in range(i + 1, n):
            at += 1
            size = abs(correlations[i, j])
            up = high[at] == 0 and bars[at] >= ALERT_BARS and size >= threshold
            down = high[at] == 1 and size < threshold - ALERT_MARGIN
            if up or down:
                high[at] = 1 if up else 0
                found[count, 0], found[count, 1], found[count, 2] = i, j, high[at]
                count += 1
        at += 1
    return found[:count].copy()
