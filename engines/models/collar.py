"""Collar: a price far from the last one is suspected until another agrees with it, and moves nothing meanwhile.

How far is in logs, from the last accepted price, and grows with its age in bars:

    reach = min(max(min_reach, max(bar_reach, bar_sd·σ_bar)·√age), ln max_ratio),   age ≤ max_age_bars

A close within reach is accepted; so a crash that the market has time for gets through at once. A close beyond it is
suspect until another one, later, agrees with it within `agreement`; a move beyond `doubt_ratio` needs the other one
`doubt_s` later. An extreme beyond reach of the last price and of the close is that of open and close.

Where no volatility is known at all (ticks at ingest), closes have the reach without it, and extremes the widest there
is: a close only has to wait for another that agrees, an extreme would be lost, and sizing, which knows the volatility,
holds it against its own.

Source: docs/methods.md, section 12.
"""

from math import sqrt
from typing import NamedTuple

from engines.numerics.exact import ln
from engines.parameters import MarketParams

__all__ = ["Collar", "Judged", "Ohlc", "Suspect", "is_near", "reach", "step"]

SECOND_NS = 1_000_000_000


class Suspect(NamedTuple):
    """A price that waits for another to agree with it."""

    price: float
    at_ns: int
    """When it was first seen."""


class Collar(NamedTuple):
    """One symbol: what its next price is held against."""

    price: float
    """The last one that was accepted."""
    at_ns: int
    suspect: Suspect | None = None


class Ohlc(NamedTuple):
    """Prices of one step or tick, in USD for one coin; low ≤ open, close ≤ high."""

    open: float
    high: float
    low: float
    close: float


class Judged(NamedTuple):
    """What became of a candle."""

    candle: Ohlc | None
    """The candle with its extremes within the collar; None: its close is suspect, and it counts for nothing."""
    clipped: int
    """How many of open, high and low were out of reach."""
    reach: float
    """How far its close might have been from the last price, in logs; 0 where nothing was near the bounds."""


def is_near(last: float, high: float, low: float, params: MarketParams) -> bool:
    """Certify, without a logarithm, that prices from low to high are within the smallest reach: ln(1 + x) ≤ x."""
    ratio = 1.0 + params.collar.min_reach
    return high <= last * ratio and last <= low * ratio


def reach(age_ns: int, volatility: float, params: MarketParams) -> float:
    """Return how far a price may be from one that is age_ns old, in logs.

    Args:
        age_ns: age of the last accepted price; negative counts as 0.
        volatility: σ of a bar; 0 where it is not known.
        params: the settings in force.
    """
    rule = params.collar
    age = min(max(age_ns, 0) / (params.bar_s * SECOND_NS), rule.max_age_bars)
    grown = max(rule.bar_reach, rule.bar_sd * volatility) * sqrt(age)
    return min(max(rule.min_reach, grown), ln(rule.max_ratio))


def step(
    collar: Collar | None, candle: Ohlc, at_ns: int, volatility: float | None, params: MarketParams
) -> tuple[Collar, Judged]:
    """Take one candle; return what the next one is held against, and what became of this one.

    Args:
        collar: None before the first price, which is accepted: there is nothing to hold it against.
        candle: of a step that ends at at_ns, or of a tick of then.
        at_ns: when; one before the last accepted price is of that time.
        volatility: σ of a bar; 0 where the price has not moved yet, None where somebody else knows it.
        params: the settings in force.
    """
    close = candle.close
    if collar is None:
        return Collar(close, at_ns), Judged(candle, 0, 0.0)
    last, last_ns, suspect = collar
    accepted = Collar(close, max(at_ns, last_ns))
    if is_near(last, candle.high, candle.low, params):
        return accepted, Judged(candle, 0, 0.0)
    limit = reach(at_ns - last_ns, volatility or 0.0, params)
    widest = ln(params.collar.max_ratio) if volatility is None else limit
    move = _distance(close, last)
    if move <= limit:
        return accepted, _clipped(candle, last, widest)
    if suspect is not None and _distance(close, suspect.price) <= params.collar.agreement:
        if not _is_confirmed(suspect, move, at_ns, params):
            return collar, Judged(None, 0, limit)
        judged = _clipped(candle, last, widest)
        return accepted, judged._replace(candle=_reaching(judged.candle or candle, suspect.price))
    return Collar(last, last_ns, Suspect(close, at_ns)), Judged(None, 0, limit)


def _is_confirmed(suspect: Suspect, move: float, at_ns: int, params: MarketParams) -> bool:
    """Return whether a price that agrees with the suspect comes late enough to be another one."""
    waited_ns = at_ns - suspect.at_ns
    if move > ln(params.collar.doubt_ratio):
        return waited_ns >= params.collar.doubt_s * SECOND_NS
    return waited_ns > 0


def _clipped(candle: Ohlc, last: float, limit: float) -> Judged:
    """Return a candle whose close is accepted, with what is out of reach of the last price and the close replaced."""
    open_, high, low, close = candle
    inner = open_ if _is_within(open_, last, close, limit) else close
    top = high if _is_within(high, last, close, limit) else max(inner, close)
    bottom = low if _is_within(low, last, close, limit) else min(inner, close)
    after = Ohlc(inner, top, bottom, close)
    return Judged(after, sum(now != was for now, was in zip(after, candle, strict=True)), limit)


def _reaching(candle: Ohlc, price: float) -> Ohlc:
    """Return a candle that takes in a price."""
    return candle._replace(high=max(candle.high, price), low=min(candle.low, price))


def _is_within(price: float, last: float, close: float, limit: float) -> bool:
    return _distance(price, last) <= limit or _distance(price, close) <= limit


def _distance(one: float, other: float) -> float:
    return abs(ln(one / other))
