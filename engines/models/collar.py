"""Price collar: a price far from the last one is suspect and has no effect until another price agrees with it.

The allowed log distance from the last accepted price grows with that price's age in bars:

    reach = min(max(min_reach, max(bar_reach, bar_sd·σ_bar)·√age), ln max_ratio),   age ≤ max_age_bars

A close within reach is accepted, so a crash that takes time passes at once. A close beyond reach is suspect until a
later one agrees with it within `agreement`; for a move beyond `doubt_ratio` the later one has to come at least
`doubt_s` after it. An open beyond reach of both the last price and the close is replaced by the close; a high or low,
by the extreme of open and close.

If the volatility is not available (ticks at ingest), closes use the reach without it, and highs and lows the widest
reach: a close only has to wait for a price that agrees, whereas a clipped extreme would be lost. Sizing knows the
volatility and checks them again.

    >>> params = MarketParams()
    >>> collar, _ = step(None, Ohlc(100.0, 100.0, 100.0, 100.0), 0, 0.01, params)
    >>> collar, judged = step(collar, Ohlc(1.0, 1.0, 1.0, 1.0), SECOND_NS, 0.01, params)
    >>> collar.price, judged.candle is None, collar.suspect.price
    (100.0, True, 1.0)

Source: docs/methods.md, section 12.
"""

from math import sqrt
from typing import NamedTuple

from engines.numerics.exact import ln
from engines.parameters import MarketParams

__all__ = ["Collar", "Judged", "Ohlc", "Suspect", "distance", "is_near", "reach", "step"]

SECOND_NS = 1_000_000_000


class Suspect(NamedTuple):
    """A price that needs confirmation by another one."""

    price: float
    at_ns: int
    """Time when it was first seen."""


class Collar(NamedTuple):
    """State of one symbol: the reference for its next price."""

    price: float
    """Last accepted price."""
    at_ns: int
    suspect: Suspect | None = None


class Ohlc(NamedTuple):
    """Prices of one step or tick, in USD per coin; low ≤ open, close ≤ high."""

    open: float
    high: float
    low: float
    close: float


class Judged(NamedTuple):
    """The result for one candle."""

    candle: Ohlc | None
    """The candle with open, high and low within the collar; None if its close is suspect and it is not used."""
    clipped: int
    """How many of open, high and low were out of reach."""
    reach: float
    """Allowed log distance of the close from the last price; 0 if it was not needed."""


def is_near(last: float, high: float, low: float, params: MarketParams) -> bool:
    """Return True only if low and high are within the smallest reach; uses ln(1 + x) ≤ x instead of a logarithm."""
    ratio = 1.0 + params.collar.min_reach
    return high <= last * ratio and last <= low * ratio


def reach(age_ns: int, volatility: float, params: MarketParams) -> float:
    """Return the allowed log distance from a price that is age_ns old.

    Args:
        age_ns: age of the last accepted price; negative counts as 0.
        volatility: σ of a bar; 0 if unknown.
        params: the settings in force.
    """
    rule = params.collar
    age = min(max(age_ns, 0) / (params.bar_s * SECOND_NS), rule.max_age_bars)
    grown = max(rule.bar_reach, rule.bar_sd * volatility) * sqrt(age)
    return min(max(rule.min_reach, grown), ln(rule.max_ratio))


def step(
    collar: Collar | None, candle: Ohlc, at_ns: int, volatility: float | None, params: MarketParams
) -> tuple[Collar, Judged]:
    """Return the new state, and the result for one candle.

    Args:
        collar: None before the first price, which is always accepted.
        candle: of a step that ends at at_ns, or of a tick at at_ns.
        at_ns: time of the candle; a time before the last accepted price counts as that time.
        volatility: σ of a bar; 0 if the price has not moved yet, None if the caller does not know it (ingest).
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
    move = distance(close, last)
    if move <= limit:
        return accepted, _clipped(candle, last, widest)
    if suspect is not None and distance(close, suspect.price) <= params.collar.agreement:
        if not _is_confirmed(suspect, move, at_ns, params):
            return collar, Judged(None, 0, limit)
        judged = _clipped(candle, last, widest)
        return accepted, judged._replace(candle=_extended(judged.candle or candle, suspect.price))
    return Collar(last, last_ns, Suspect(close, at_ns)), Judged(None, 0, limit)


def _is_confirmed(suspect: Suspect, move: float, at_ns: int, params: MarketParams) -> bool:
    """Return whether a price that agrees with the suspect is late enough to confirm it."""
    waited_ns = at_ns - suspect.at_ns
    if move > ln(params.collar.doubt_ratio):
        return waited_ns >= params.collar.doubt_s * SECOND_NS
    return waited_ns > 0


def _clipped(candle: Ohlc, last: float, limit: float) -> Judged:
    """Return a candle whose close is accepted, with prices out of reach of both last price and close replaced."""
    open_, high, low, close = candle
    inner = open_ if _is_within(open_, last, close, limit) else close
    top = high if _is_within(high, last, close, limit) else max(inner, close)
    bottom = low if _is_within(low, last, close, limit) else min(inner, close)
    after = Ohlc(inner, top, bottom, close)
    return Judged(after, sum(now != was for now, was in zip(after, candle, strict=True)), limit)


def _extended(candle: Ohlc, price: float) -> Ohlc:
    """Return the candle with its range extended to a price."""
    return candle._replace(high=max(candle.high, price), low=min(candle.low, price))


def _is_within(price: float, last: float, close: float, limit: float) -> bool:
    return distance(price, last) <= limit or distance(price, close) <= limit


def distance(one: float, other: float) -> float:
    """Return |ln(one/other)| of two positive numbers."""
    return abs(ln(one / other))
