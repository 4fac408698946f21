"""Wants: symbols that cannot be sized freely: the price is missing, stale, or has leapt, or the equity has.

Unknown is never zero: a symbol without a fresh price keeps its published target, the allocation says why, and the
symbol is decided again when a price arrives. Where a price or the equity has leapt, nothing is added for a while.

Source: docs/pipeline.md, stage unpriced.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engines.pipeline.cell_sizing import SECOND_NS
from engines.state.partition import State

__all__ = ["Want", "on_probation", "wants"]


class Want(NamedTuple):
    """Why a symbol could not be sized."""

    symbol: str
    code: str
    """no_price, stale_price, price_leap, equity_leap or below_lot."""
    text: str
    forecast: bool
    """Whether a live forecast waits for the price."""


def on_probation(state: State, portfolio: str, symbol: str) -> bool:
    """Return whether the symbol's price or the portfolio's equity has leapt within the last `probation_s`."""
    return _price_left_s(state, symbol) > 0 or _equity_left_s(state, portfolio) > 0


def _price_left_s(state: State, symbol: str) -> int:
    market = state.markets.get((symbol,))
    return 0 if market is None else _left_s(state, market.leapt_ns)


def _equity_left_s(state: State, portfolio: str) -> int:
    return _left_s(state, state.book(portfolio).leapt_ns)


def _left_s(state: State, leapt_ns: int) -> int:
    """Return how long a probation lasts after a leap, in seconds rounded up; 0 where there was no leap."""
    if not leapt_ns:
        return 0
    until_ns = leapt_ns + int(state.params.market.collar.probation_s * SECOND_NS)
    return -((state.now_ns - until_ns) // SECOND_NS)


def _probation(state: State, portfolio: str, symbol: str) -> Want | None:
    """Return why a symbol is only reduced, None where it is not on probation."""
    for code, what, left_s in (
        ("price_leap", f"the price of {symbol}", _price_left_s(state, symbol)),
        ("equity_leap", f"the equity of {portfolio}", _equity_left_s(state, portfolio)),
    ):
        if left_s > 0:
            return Want(symbol, code, f"{what} has leapt: {symbol} is only reduced for {left_s} s more", forecast=False)
    return None


def wants(state: State, portfolio: str, cells: Sequence[tuple[str, str]]) -> list[Want]:
    """Return the symbols of these cells whose price is missing, stale or on probation, by name."""
    markets, predictions = state.markets, state.predictions
    oldest_ns = state.now_ns - state.params.validation_criteria.max_price_age_s * SECOND_NS
    found: dict[str, Want] = {}
    for cell in cells:
        symbol = cell[1]
        market = markets.get((symbol,))
        bars = None if market is None else market.bars
        if bars is not None and bars.last_ns >= oldest_ns:
            leap = _probation(state, portfolio, symbol)
            if leap is not None:
                found[symbol] = leap
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
