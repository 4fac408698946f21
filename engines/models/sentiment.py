"""Sentiment: how far the mood of a market tilts a size, fading with the age of the reading.

A linear tilt outside a neutral band, O(1). It is symmetric: what a mood gives to a long it takes from a short.

Source: docs/methods.md, section 3.
"""

from typing import NamedTuple

from engines.numerics.exact import half_life
from engines.parameters import SentimentParams

__all__ = ["SentimentScale", "multiplier", "tilt"]


class SentimentScale(NamedTuple):
    """What a mood makes of a size."""

    multiplier: float
    """In [1 − weight, 1 + weight]."""
    tilt: float
    """The mood before age and confidence: −1 bearish, 0 neutral, 1 bullish."""
    reason: str
    """Why the multiplier is 1 whatever the score, or ""."""


UNMOVED = SentimentScale(1.0, 0.0, "no sentiment")
SWITCHED_OFF = SentimentScale(1.0, 0.0, "sentiment is off")
NO_SIDE = SentimentScale(1.0, 0.0, "hold")


def multiplier(
    side: int, score: float | None, confidence: float | None, age_s: float, params: SentimentParams
) -> SentimentScale:
    """Return 1 + weight · confidence · side · tilt(score) · 2^(−age/half-life).

    Args:
        side: 1 long, −1 short; 0 (a HOLD, a closing order) is not moved.
        score: 0 bearish … 1 bullish, None where there is none.
        confidence: in [0, 1]; None counts as 1.
        age_s: seconds since the reading; a negative age is none.
        params: the settings in force.
    """
    if not params.enabled:
        return SWITCHED_OFF
    if score is None:
        return UNMOVED
    if side == 0:
        return NO_SIDE
    lean = tilt(score, params.upper_threshold)
    if lean == 0.0:
        return SentimentScale(1.0, 0.0, "")
    trust = 1.0 if confidence is None else confidence
    moved = params.weight * trust * side * lean * half_life(age_s, params.half_life_s)
    return SentimentScale(1.0 + moved, lean, "")


def tilt(score: float, upper: float) -> float:
    """Return the tilt of a score in [0, 1]: 0 within [1 − upper, upper], from there linear to −1 at 0 and 1 at 1."""
    lower = 1.0 - upper
    if score > upper:
        return (score - upper) / (1.0 - upper)
    if score < lower:
        return -(lower - score) / lower
    return 0.0
