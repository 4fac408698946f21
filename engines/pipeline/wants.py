"""Wants: symbols that cannot be sized because their price is missing or stale.

Unknown is never zero: such a symbol keeps its published target, the allocation says why, and the symbol is decided
again when a price arrives.

Source: docs/pipeline.md, stage unpriced.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engines.pipeline.cell_sizing import SECOND_NS
from engines.state.partition import State

__all__ = ["Want", "wants"]


class Want(NamedTuple):
    """Why a symbol could not be sized."""

    symbol: str
    code: str
    """no_price, stale_price or below_lot."""
    text: str
    forecast: bool
    """Whether a live forecast waits for the price."""


def wants(state: State, portfolio: str, cells: Sequence[tuple[str, str]]) -> list[Want]:
    """Return the symbols of these cells whose price is missing or stale, by name."""
    markets, predictions = state.markets, state.predictions
    oldest_ns = state.now_ns - state.params.validation_criteria.max_price_age_s * SECOND_NS
    found: dict[str, Want] = {}
    for cell in cells:
        symbol = cell[1]
        market = markets.get((symbol,))
        bars = None if market is None else market.bars
        if bars is not None and bars.last_ns >= oldest_ns:
            continue
        known = predictions.get((portfolio, *cell))
        waits = known is not None and known.forecast is not None
        if symbol in found:
            found[symbol] = found[symbol]._replace(forecast=found[symbol].forecast or waits)
        elif bars is None:
            found[symbol] = Want(symbol, "no_price", f"{symbol} has no price yet", waits)
        else:
            age_s = (state.now_ns - bars.last_ns) // SECOND_NS
            found[symbol] = Want(symbol, "stale_price", f"the price of {symbol} is {age_s} s old", waits)
    return [found[symbol] for symbol in sorted(found)]
