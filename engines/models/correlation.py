"""Correlation of the symbols: slow enough to be trusted, fast enough to be there when all fall together.

Two matrices come of the moments. The raw one is for reports and alerts. The shrunk one is for sizing: each pair drawn
towards the mean of all, always positive definite.

What is not known yet takes part as far as it is known: a pair seen in k bars weighs 1 - decay^k, and the mean of all
fills the rest. So a new symbol moves with the others until it has shown how it does, and changes nothing of theirs.

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
"""A pair enters the shrunk matrix with at most this correlation, of either sign."""
LARGEST_MEAN: Final = 0.95
"""The target's correlation lies in [0, this], so that the target itself is positive definite."""
SMALLEST_PIVOT: Final = 1e-4
SHRINK_STEP: Final = 0.1
ALERT_BARS: Final = 24
"""Bars that a pair is seen in before it may raise an alert."""
ALERT_MARGIN: Final = 0.05
"""A pair's alert is over when its correlation is this far below the threshold."""


class Shrunk(NamedTuple):
    """The correlation to size with."""

    matrix: Floats
    """(n, n), symmetric, 1 on the diagonal, positive definite."""
    mean: float
    """Correlation of the target, in [0, .95]."""
    shrink: float
    """Weight of the target; above the setting where the guard has raised it."""
    raises: int
    """Times the guard has raised the weight."""


class Crossing(NamedTuple):
    """A pair whose absolute correlation has reached the alert threshold, or has left it."""

    first: str
    second: str
    correlation: float
    above: bool


class Diversification(NamedTuple):
    """What holding several symbols takes away from the risk of holding them one by one."""

    ratio: float
    """DR = |w|ᵀσ / √(wᵀΣw); 1 for one symbol."""
    score: float
    """DR²/n of the n symbols that are held; 1 where they are uncorrelated and of equal risk."""


def raw(moments: Moments, params: CorrelationParams) -> Floats:
    """Return the (n, n) correlations as they are, in [-1, 1], for reports and alerts; 0 where a pair was never seen."""
    return _correlations(moments.cross, moments.bars, len(moments.symbols), _known(params.decay))


def shrunk(moments: Moments, params: CorrelationParams) -> Shrunk:
    """Return the correlations to size with: drawn towards their mean, and further until all pivots are 1e-4 or more.

    Each pair is clipped to ±.99, weighs as much as is known of it, and has the mean for the rest. The mean is weighted
    likewise, begins at 0, and is clipped to [0, .95].
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
    """Return (1 - κ)C + κ·11ᵀ: every pair moved by κ in [0, .9] of its way to 1; still positive definite."""
    return matrix + kappa * (1.0 - matrix)


def diversification(weights: Floats, sigma: Floats, matrix: Floats) -> Diversification | None:
    """Return how diversified a portfolio is; None where nothing is held or all risk is hedged away.

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
    """Return the pairs that have crossed the alert threshold since the last call, by name; remember where they are.

    Raised at |ρ| ≥ `alert_threshold` of a pair seen in 24 bars, over at .05 below it.

    Args:
        moments: `high` is changed in place.
        correlations: (n, n), what `raw` gives.
        params: the settings in force.
    """
    crossed = _crossed(correlations, moments.bars, moments.high, params.alert_threshold)
    return [
        Crossing(moments.symbols[i], moments.symbols[j], float(correlations[i, j]), bool(above))
        for i, j, above in crossed.tolist()
    ]


@compiled
def _known(decay: float) -> Floats:
    """Return what a pair weighs that was seen in 0, 1, 2, … bars, 1 - decay^k, up to where it is 1."""
    table = np.ones(4_096)
    power = 1.0
    for k in range(table.size):
        table[k] = 1.0 - power
        power *= decay
    return table


@compiled
def _correlations(cross: Floats, bars: CountMatrix, n: int, known: Floats) -> Floats:
    """Return moments, each over its weight, as an (n, n) correlation matrix."""
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
    """Return the target's correlation: the pairs' mean by what is known of each, as far as the best known is known."""
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
    """Return each pair as far as it is known, the mean for the rest, and `shrink` of the way to the mean."""
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
    """Return |w|ᵀσ, wᵀΣw and how many weights are not 0."""
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
    """Return (row, column, above) of each pair that has crossed, and mark it."""
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
