"""Bars: one symbol's steps rolled into bars, and what they say: volatility, adverse excursion, volume ratio.

Intervals are (start, end]: the step that ends on the hour belongs to the bar that ends there, and so does a candle
that is taken as one step at its end. A bar closes when a step of a later one comes; a bar without a step is missing,
not zero. A step costs O(1), a closed bar O(bars in 24 h).

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
    """One symbol: the running bar and what the closed ones left."""

    bar: int
    """Number k of the running bar, which covers (k·bar_s, (k+1)·bar_s] since 1970 UTC."""
    open: float
    high: float
    low: float
    quote_volume: float
    """USD traded so far in the running bar."""
    steps: int
    """Steps folded into the running bar."""
    last_price: float
    """Its close so far: what the symbol is priced at."""
    last_ns: int
    """End of the last step."""
    closed: int
    """Bars closed so far."""
    previous_close: float | None
    variance: float | None
    """EWMA of squared bar returns; None until a price has moved from one close to the next."""
    usual_volume: float | None
    """Mean quote volume of the bars closed within 24 h before the running one; None where there is none."""
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
    """Take one step, or one candle, that ends at end_ns; return the bars with it.

    Steps come in order of their ends. A step of a later bar closes the running one.

    Args:
        bars: None before the first step.
        open_: first price.
        high: highest price.
        low: lowest price.
        close: last price; all in USD for one coin.
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
    """Return the volatility over a horizon, σ·√(horizon/bar); None while no volatility is known."""
    if not bars.variance:
        return None
    return sqrt(bars.variance) * sqrt(horizon_s / params.bar_s)


def excursion(bars: Bars, side: int, params: MarketParams) -> float | None:
    """Return z: how far the running bar went against a side, in volatilities of a bar; negative where it never did.

    z = −side · ln(extreme/previous close)/σ, the extreme being the low for a long, the high for a short. None in the
    warm-up and while no volatility is known.
    """
    if bars.closed < params.warmup_bars or bars.previous_close is None or not bars.variance:
        return None
    extreme = bars.low if side > 0 else bars.high
    return -side * ln(extreme / bars.previous_close) / sqrt(bars.variance)


def volume_ratio(bars: Bars, params: MarketParams) -> float | None:
    """Return the running bar's quote volume over the mean of the 24 h before it; None in the warm-up or without any."""
    if bars.closed < params.warmup_bars or not bars.usual_volume:
        return None
    return bars.quote_volume / bars.usual_volume


def _moved(variance: float | None, r: float, params: MarketParams) -> float | None:
    """Return the variance after one more bar return, clipped at `volatility_clip` volatilities before it enters.

    It begins with the first r² that is not 0: a price that never moved says nothing of its volatility.
    """
    if not variance:
        return r * r or None
    decay = params.volatility_decay
    reach = params.volatility_clip * sqrt(variance)
    clipped = min(max(r, -reach), reach)
    return decay * variance + (1.0 - decay) * clipped * clipped
