"""Conformal scale: how much wider a claim's variance must be for its intervals to cover what really happened.

One window of scores a cell. A score is a miss in units of the claimed volatility and of the misses before it,
|side·r − m₀| / (s·u): one number for calm and wild times. The level adapts, so that over any sequence at all the share
of misses comes to 1 − coverage. A learnt variance is never multiplied twice: the interval only says how wide it
should at least have been.

Source: docs/methods.md, section 2; Vovk, Gammerman and Shafer 2005 (rank); Gibbs and Candès 2021 (adaptive level).
"""

from bisect import bisect_left, insort
from functools import lru_cache
from math import ceil, isfinite, isnan, sqrt
from typing import Final, Literal, NamedTuple

from engines.numerics.exact import normal_quantile
from engines.parameters import ConformalParams

__all__ = ["ConformalScale", "Scores", "decide", "needed", "observe", "quantile", "rank"]

ConformalStatus = Literal["ok", "insufficient_samples", "infinite"]

ROUNDING: Final = 1e-9
"""A rank this close above a whole number is that number."""
LARGEST_MISS: Final = 1e9
"""A miss of more claimed volatilities than these counts as these, so that scores stay finite."""
SMALLEST_SQUARE: Final = 1e-8
"""u² stays above, so that a run of perfect predictions leaves something to divide by."""


class Scores(NamedTuple):
    """What one cell's outcomes say of its intervals."""

    window: tuple[float, ...]
    """The newest scores, oldest first."""
    ranked: tuple[float, ...]
    """The same, ascending."""
    level: float
    """α_t: the share of misses now aimed at; at most 0 asks for the infinite interval, at least 1 for the empty one."""
    mean_square: float
    """u²: EWMA of the squared misses, in claimed variances."""
    samples: int
    """Outcomes taken."""
    rejected_null: int
    rejected_nan: int
    rejected_infinite: int


class ConformalScale(NamedTuple):
    """The variance to size with."""

    variance: float
    """S_eff; never below S."""
    quantile: float | None
    """q, in scores; None where the interval is infinite or there are too few scores."""
    inflation: float
    """S_eff/S, in [1, max_inflation]."""
    status: ConformalStatus
    samples: int
    """Scores in the window."""


def begin(params: ConformalParams) -> Scores:
    """Return what is known before the first outcome."""
    return Scores((), (), 1.0 - params.coverage, 1.0, 0, 0, 0, 0)


def observe(
    scores: Scores | None,
    realised: float | None,
    predicted: float | None,
    volatility: float,
    params: ConformalParams,
    scale: float | None = None,
) -> Scores:
    """Take one outcome; return the new scores. A pair that is not two finite numbers is only counted, by its kind.

    Args:
        scores: None before the first outcome.
        realised: side·r over the horizon.
        predicted: m₀ = b·conf·e of the decision, before costs.
        volatility: s of the decision, positive.
        params: the settings in force.
        scale: u of the decision, which its interval was made with; None takes the present one.
    """
    old = begin(params) if scores is None else scores
    if realised is None or predicted is None:
        return old._replace(rejected_null=old.rejected_null + 1)
    if not (isfinite(realised) and isfinite(predicted)):
        return _rejected(old, realised, predicted)
    miss = min(abs(realised - predicted) / volatility, LARGEST_MISS)
    score = miss / (sqrt(old.mean_square) if scale is None else scale)
    window, ranked = _entered(old, score, params.window_size)
    return Scores(
        window,
        ranked,
        _adapted(old, score, params),
        _scaled(old.mean_square, miss, params),
        old.samples + 1,
        old.rejected_null,
        old.rejected_nan,
        old.rejected_infinite,
    )


def decide(scores: Scores | None, variance: float, volatility: float, params: ConformalParams) -> ConformalScale:
    """Return the variance to size with: S·clip((q·u/z)²·s²/(slack·S), 1, max_inflation), where z is normal.

    Args:
        scores: None before the first outcome.
        variance: S, the predictive variance of the return, positive.
        volatility: s, the claimed volatility over the same horizon.
        params: the settings in force.
    """
    samples = 0 if scores is None else len(scores.window)
    if scores is None or samples < needed(params):
        return ConformalScale(variance, None, 1.0, "insufficient_samples", samples)
    q = quantile(scores.ranked, scores.level)
    if q is None:
        return ConformalScale(variance * params.max_inflation, None, params.max_inflation, "infinite", samples)
    deviations = q * volatility / _normal_reach(params.coverage)
    covering = deviations * deviations * scores.mean_square
    inflation = min(max(covering / (params.calibration_slack * variance), 1.0), params.max_inflation)
    return ConformalScale(variance * inflation, q, inflation, "ok", samples)


def rank(n: int, level: float) -> int:
    """Return k = ⌈(n + 1)(1 − α)⌉: the k-th smallest of n scores covers the next with probability 1 − α or more.

    Above n no score does. At least 1.
    """
    return max(1, ceil((n + 1) * (1.0 - level) - ROUNDING))


def quantile(ranked: tuple[float, ...], level: float) -> float | None:
    """Return the score that the interval reaches to; None where it is infinite, 0 where it is empty."""
    if level >= 1.0:
        return 0.0
    k = rank(len(ranked), level)
    return ranked[k - 1] if k <= len(ranked) else None


def needed(params: ConformalParams) -> int:
    """Return how many scores the scale waits for: `min_samples`, or what a finite interval takes where that is more."""
    return max(params.min_samples, _finite_from(params.coverage))


def _rejected(scores: Scores, realised: float, predicted: float) -> Scores:
    if isnan(realised) or isnan(predicted):
        return scores._replace(rejected_nan=scores.rejected_nan + 1)
    return scores._replace(rejected_infinite=scores.rejected_infinite + 1)


def _entered(scores: Scores, score: float, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return window and ranks with a score more, and without the oldest where there are `size` already."""
    window, ranked = scores.window, list(scores.ranked)
    surplus = max(0, len(window) + 1 - size)
    for oldest in window[:surplus]:
        del ranked[bisect_left(ranked, oldest)]
    insort(ranked, score)
    return window[surplus:] + (score,), tuple(ranked)  # noqa: RUF005 (unpacking takes twice as long)


def _adapted(scores: Scores, score: float, params: ConformalParams) -> float:
    """Return the next level: up where the interval covered, down where it missed.

    Source: Gibbs and Candès 2021, equation 2.
    """
    q = quantile(scores.ranked, scores.level)
    missed = scores.level >= 1.0 or (q is not None and score > q)
    return scores.level + params.adaptation_rate * ((1.0 - params.coverage) - (1.0 if missed else 0.0))


def _scaled(mean_square: float, miss: float, params: ConformalParams) -> float:
    """Return u² after a miss, which counts as at most `winsor_scale`·u."""
    square = min(miss * miss, params.winsor_scale * params.winsor_scale * mean_square)
    return max(params.scale_decay * mean_square + (1.0 - params.scale_decay) * square, SMALLEST_SQUARE)


@lru_cache(maxsize=16)
def _normal_reach(coverage: float) -> float:
    """Return how many standard deviations a normal interval of this coverage reaches. Cached: pure, but slow."""
    return normal_quantile((1.0 + coverage) / 2.0)


@lru_cache(maxsize=16)
def _finite_from(coverage: float) -> int:
    """Return the fewest scores with a finite interval of this coverage. Cached: pure, and asked at each decision."""
    return ceil(1.0 / (1.0 - coverage) - ROUNDING) - 1
