"""Bars: aggregates one symbol's steps into bars; gives volatility, adverse excursion and volume ratio.

Intervals are (start, end]: a step that ends on the hour belongs to the bar that ends there, and so does a candle, which
is one step at its end. A bar closes when the first step of a later bar arrives. A bar without a step is missing, not
zero. Cost O(1) per step, O(bars in 24 h) per closed bar.

    >>> bars, hour_ns, params = None, 3_600 * SECOND_NS, MarketParams()
    >>> for hour, price in enumerate((100.0, 101.0, 100.0), start=1):
    ...     bars = fold(bars, price, price, price, price, 1.0, hour * hour_ns, params)
    >>> bars.closed, round(volatility(bars, 3_600.0, params), 5)
    (2, 0.00995)

Source: docs/methods.md, sections 5 and 6; RiskMetrics 1996 (EWMA variance).
"""

from math import fsum, sqrt
from typing import NamedTuple

from engines.numerics.exact import ln
from engines.parameters import MarketParams

__all__ = ["Bars", "excursion", "fold", "volatility", "volume_ratio"]

SECOND_NS = 1_000_000_000
DAY_S = 86_400


class Bars(NamedTuple):
    """State of one symbol: the current bar, and a summary of the closed ones."""

    bar: int
    """Number k of the current bar, which covers (k·bar_s, (k+1)·bar_s] since 1970 UTC."""
    open: float
    high: float
    low: float
    quote_volume: float
    """USD traded so far in the current bar."""
    steps: int
    """Steps in the current bar."""
    last_price: float
    """Last close, at which the symbol is priced."""
    last_ns: int
    """End of the last step."""
    closed: int
    """Bars closed so far."""
    previous_close: float | None
    variance: float | None
    """EWMA of squared bar returns; None until two successive closes have differed."""
    usual_volume: float | None
    """Mean quote volume of the bars closed within 24 h before the current one; None if there are none."""
    volumes: tuple[tuple[int, float], ...]
    """(bar, quote volume) of those bars, ascending."""


def fold(
    bars: Bars | None,
    open_: float,
    high: float,
    low: float,
    close: float,
    volume: float,
    end_ns: int,
    params: MarketParams,
) -> Bars:
    """Return the bars updated by one step, or one candle, that ends at end_ns.

    Steps arrive in order of their ends. A step of a later bar closes the current one.

    Args:
        bars: None before the first step.
        open_: first price.
        high: highest price.
        low: lowest price.
        close: last price; all in USD per coin.
        volume: coins traded; valued at `close`.
        end_ns: end of the step.
        params: the settings in force.
    """
    bar = (end_ns - 1) // (params.bar_s * SECOND_NS)
    if bars is None:
        return Bars(bar, open_, high, low, volume * close, 1, close, end_ns, 0, None, None, None, ())
    running, first, highest, lowest, traded, steps, last_price, _, closed, previous, variance, usual, volumes = bars
    if bar <= running:
        return Bars(
            running,
            first,
            high if high > highest else highest,  # noqa: FURB136 (max costs twice as much, and this is the hot path)
            low if low < lowest else lowest,  # noqa: FURB136
            traded + volume * close,
            steps + 1,
            close,
            end_ns,
            closed,
            previous,
            variance,
            usual,
            volumes,
        )
    if previous is not None:
        variance = _moved(variance, ln(last_price / previous), params)
    within = bar - DAY_S // params.bar_s
    volumes = tuple(row for row in (*volumes, (running, traded)) if row[0] >= within)
    usual = fsum(usd for _, usd in volumes) / len(volumes) if volumes else None
    return Bars(
        bar, open_, high, low, volume * close, 1, close, end_ns, closed + 1, last_price, variance, usual, volumes
    )


def volatility(bars: Bars, horizon_s: float, params: MarketParams) -> float | None:
    """Return the volatility over a horizon, σ·√(horizon/bar); None while it is unknown."""
    if not bars.variance:
        return None
    return sqrt(bars.variance) * sqrt(horizon_s / params.bar_s)


def excursion(bars: Bars, side: int, params: MarketParams) -> float | None:
    """Return z, the largest move of the current bar against a side in bar volatilities; negative if there was none.

    z = −side · ln(extreme/previous close)/σ, where the extreme is the low for a long and the high for a short. None
    during warm-up and while the volatility is unknown.
    """
    if bars.closed < params.warmup_bars or bars.previous_close is None or not bars.variance:
        return None
    extreme = bars.low if side > 0 else bars.high
    return -side * ln(extreme / bars.previous_close) / sqrt(bars.variance)


def volume_ratio(bars: Bars, params: MarketParams) -> float | None:
    """Return the current bar's quote volume over the mean of the 24 h before; None during warm-up or without volume."""
    if bars.closed < params.warmup_bars or not bars.usual_volume:
        return None
    return bars.quote_volume / bars.usual_volume


def _moved(variance: float | None, r: float, params: MarketParams) -> float | None:
    """Return the variance updated by a bar return, which is first clipped to `volatility_clip` volatilities.

    It starts with the first non-zero r²: a price that has not moved gives no information on volatility.
    """
    if not variance:
        return r * r or None
    decay = params.volatility_decay
    reach = params.volatility_clip * sqrt(variance)
    clipped = min(max(r, -reach), reach)
    return decay * variance + (1.0 - decay) * clipped * clipped
