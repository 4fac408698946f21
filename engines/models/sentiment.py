"""Sentiment: tilts a size by the market's sentiment, with a weight that decays with the age of the reading.

The tilt is linear outside a neutral band, and symmetric: what it adds to a long it takes from a short. Cost O(1).

    >>> params = SentimentParams()
    >>> [round(multiplier(1, 0.8, None, age_s, params).multiplier, 4) for age_s in (0.0, 21_600.0)]
    [1.075, 1.0375]
    >>> round(multiplier(-1, 0.8, None, 0.0, params).multiplier, 4)
    0.925

Source: docs/methods.md, section 3.
"""

from typing import NamedTuple

from engines.numerics.exact import half_life
from engines.parameters import SentimentParams

__all__ = ["SentimentScale", "multiplier", "tilt"]


class SentimentScale(NamedTuple):
    """The size multiplier, and how it was derived."""

    multiplier: float
    """In [1 − weight, 1 + weight]."""
    tilt: float
    """Tilt before age and confidence: −1 bearish, 0 neutral, 1 bullish."""
    reason: str
    """Why the multiplier is 1 for any score, or ""."""


UNMOVED = SentimentScale(1.0, 0.0, "no sentiment")
SWITCHED_OFF = SentimentScale(1.0, 0.0, "sentiment is off")
NO_SIDE = SentimentScale(1.0, 0.0, "hold")


def multiplier(
    side: int, score: float | None, confidence: float | None, age_s: float, params: SentimentParams
) -> SentimentScale:
    """Return 1 + weight · confidence · side · tilt(score) · 2^(−age/half-life).

    Args:
        side: 1 long, −1 short; 0 (a HOLD, a closing order) gives the multiplier 1.
        score: 0 bearish … 1 bullish; None if missing.
        confidence: in [0, 1]; None counts as 1.
        age_s: seconds since the reading; a negative age counts as 0.
        params: the settings in force.
    """
    if not params.enabled:
        return SWITCHED_OFF
    if score is None:
        return UNMOVED
    if side == 0:
        return NO_SIDE
    full_tilt = tilt(score, params.upper_threshold)
    if full_tilt == 0.0:
        return SentimentScale(1.0, 0.0, "")
    weight = 1.0 if confidence is None else confidence
    change = params.weight * weight * side * full_tilt * half_life(age_s, params.half_life_s)
    return SentimentScale(1.0 + change, full_tilt, "")


def tilt(score: float, upper: float) -> float:
    """Return the tilt of a score in [0, 1]: 0 within [1 − upper, upper], then linear to −1 at 0 and 1 at 1."""
    lower = 1.0 - upper
    if score > upper:
        return (score - upper) / (1.0 - upper)
    if score < lower:
        return -(lower - score) / lower
    return 0.0
