"""Conformal scale: inflates a claim's variance until its prediction intervals cover realised returns.

Each cell keeps a window of scores. A score is a residual normalised by the claimed volatility and the scale of earlier
residuals, |side·r − m₀| / (s·u), so calm and volatile periods are comparable. The level adapts: over any sequence, the
share of misses converges to 1 − coverage. The interval gives a lower bound for the variance; it does not multiply a
variance that was already learnt.

    >>> scores, params = None, ConformalParams()
    >>> for _ in range(30):  # the strategy claims a volatility of 2 % and misses by 6 % each time
    ...     scores = observe(scores, 0.0, 0.06, 0.02, params)
    >>> scale = decide(scores, variance=0.0004, volatility=0.02, params=params)
    >>> scale.status, round(scale.inflation, 2)
    ('ok', 7.3)

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
"""A rank that exceeds a whole number by no more than this is rounded down to it."""
LARGEST_MISS: Final = 1e9
"""Residuals are clipped to this many claimed volatilities, so that scores stay finite."""
SMALLEST_SQUARE: Final = 1e-8
"""Lower bound of u², so that a run of perfect predictions does not lead to a division by zero."""


class Scores(NamedTuple):
    """Calibration state of one cell."""

    window: tuple[float, ...]
    """The newest scores, oldest first."""
    ranked: tuple[float, ...]
    """The same scores, ascending."""
    level: float
    """α_t: current target share of misses; 0 or less asks for the infinite interval, 1 or more for the empty one."""
    mean_square: float
    """u²: EWMA of squared residuals, in claimed variances."""
    samples: int
    """Outcomes used."""
    rejected_null: int
    rejected_nan: int
    rejected_infinite: int


class ConformalScale(NamedTuple):
    """The variance to size with."""

    variance: float
    """S_eff; never below S."""
    quantile: float | None
    """q, in scores; None if the interval is infinite or there are too few scores."""
    inflation: float
    """S_eff/S, in [1, max_inflation]."""
    status: ConformalStatus
    samples: int
    """Scores in the window."""


def begin(params: ConformalParams) -> Scores:
    """Return the state before the first outcome."""
    return Scores((), (), 1.0 - params.coverage, 1.0, 0, 0, 0, 0)


def observe(
    scores: Scores | None,
    realised: float | None,
    predicted: float | None,
    volatility: float,
    params: ConformalParams,
    scale: float | None = None,
) -> Scores:
    """Return the scores updated by one outcome. A missing or non-finite number only increases the rejection counts.

    Args:
        scores: None before the first outcome.
        realised: side·r over the horizon.
        predicted: m₀ = b·conf·e of the decision, before costs.
        volatility: s of the decision, positive.
        params: the settings in force.
        scale: u at the time of the decision; None uses the current one.
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
    """Return the variance to size with: S·clip((q·u/z)²·s²/(slack·S), 1, max_inflation), z the normal quantile.

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
    """Return k = ⌈(n + 1)(1 − α)⌉, at least 1: the k-th smallest of n scores covers the next one with P ≥ 1 − α.

    If k > n, no score does.
    """
    return max(1, ceil((n + 1) * (1.0 - level) - ROUNDING))


def quantile(ranked: tuple[float, ...], level: float) -> float | None:
    """Return the half-width of the interval in scores; None if it is infinite, 0 if it is empty."""
    if level >= 1.0:
        return 0.0
    k = rank(len(ranked), level)
    return ranked[k - 1] if k <= len(ranked) else None


def needed(params: ConformalParams) -> int:
    """Return how many scores the scale needs: `min_samples`, or more if a finite interval requires it."""
    return max(params.min_samples, _finite_from(params.coverage))


def _rejected(scores: Scores, realised: float, predicted: float) -> Scores:
    if isnan(realised) or isnan(predicted):
        return scores._replace(rejected_nan=scores.rejected_nan + 1)
    return scores._replace(rejected_infinite=scores.rejected_infinite + 1)


def _entered(scores: Scores, score: float, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return window and ranks with one score added, and the oldest removed if there are more than `size`."""
    window, ranked = scores.window, list(scores.ranked)
    surplus = max(0, len(window) + 1 - size)
    for oldest in window[:surplus]:
        del ranked[bisect_left(ranked, oldest)]
    insort(ranked, score)
    return window[surplus:] + (score,), tuple(ranked)  # noqa: RUF005 (unpacking takes twice as long)


def _adapted(scores: Scores, score: float, params: ConformalParams) -> float:
    """Return the next level: higher if the interval covered, lower if it missed.

    Source: Gibbs and Candès 2021, equation 2.
    """
    q = quantile(scores.ranked, scores.level)
    missed = scores.level >= 1.0 or (q is not None and score > q)
    return scores.level + params.adaptation_rate * ((1.0 - params.coverage) - (1.0 if missed else 0.0))


def _scaled(mean_square: float, miss: float, params: ConformalParams) -> float:
    """Return u² after a residual, which is clipped to `winsor_scale`·u."""
    square = min(miss * miss, params.winsor_scale * params.winsor_scale * mean_square)
    return max(params.scale_decay * mean_square + (1.0 - params.scale_decay) * square, SMALLEST_SQUARE)


@lru_cache(maxsize=16)
def _normal_reach(coverage: float) -> float:
    """Return the half-width of a normal interval of this coverage in standard deviations. Cached: pure, but slow."""
    return normal_quantile((1.0 + coverage) / 2.0)


@lru_cache(maxsize=16)
def _finite_from(coverage: float) -> int:
    """Return the smallest number of scores with a finite interval of this coverage. Cached: called per decision."""
    return ceil(1.0 / (1.0 - coverage) - ROUNDING) - 1
