"""How much one journal partition takes. What would grow for ever is refused, with the number that was reached.

A publisher could otherwise fill memory, or make an allocation that is larger than its topic takes; then no
worker could go on. The numbers are part of the decisions: they are fixed, since the same journal gives the same bytes.

Source: none; an allocation at all limits has less than the 4 MiB of its topic.
"""

from typing import Any, Final

from engines.state import overrides
from engines.state.overrides import Overrides
from engines.state.partition import State

SYMBOLS_MAX: Final = 2_000
"""Symbols with a price or a reading."""
PORTFOLIOS_MAX: Final = 10_000
"""Portfolios with a signal, a value or positions."""
STRATEGIES_MAX: Final = 200
"""Strategies of one portfolio, ever."""
CELLS_MAX: Final = 2_000
"""Pairs of strategy and symbol of one portfolio, ever."""
SCOPES_MAX: Final = 1_000
"""Scopes of each kind (portfolio, strategy, symbol) that are halted or reducing; `all` is not counted."""

Broken = tuple[str, str] | None
"""Field and broken rule, as an error text continues."""


def no_room_for_cell(state: State, key: tuple[str, str, str]) -> Broken:
    """Return why a portfolio's new cell is not taken, None where it is."""
    portfolio, strategy, symbol = key
    known = state.known.get(portfolio, {})
    if strategy not in known and len(known) >= STRATEGIES_MAX:
        return "strategy_id", _full(strategy, "strategies of the portfolio", STRATEGIES_MAX)
    if sum(known.values()) >= CELLS_MAX:
        return "symbol", _full(f"{strategy} on {symbol}", "pairs of strategy and symbol of the portfolio", CELLS_MAX)
    return no_room_for_portfolio(state, portfolio)


def no_room_for_portfolio(state: State, portfolio: str) -> Broken:
    """Return why a new portfolio is refused; None: it is not."""
    books: dict[Any, Any] = state.books
    if (portfolio,) in books or len(books) < PORTFOLIOS_MAX:
        return None
    return "portfolio_id", _full(portfolio, "portfolios of its journal partition", PORTFOLIOS_MAX)


def no_room_for_symbol(state: State, symbol: str) -> Broken:
    """Return why the market of a new symbol is refused; None: it is not."""
    markets: dict[Any, Any] = state.markets
    if (symbol,) in markets or len(markets) < SYMBOLS_MAX:
        return None
    return "symbol", _full(symbol, "symbols", SYMBOLS_MAX)


def no_room_for_scope(ordered: Overrides, scope: str) -> Broken:
    """Return why a scope cannot be halted or reduced in addition to those that are; None: it can.

    `all` and a scope that is ordered already always have room: neither makes the state grow without bound.
    """
    kind, _, _ = scope.partition(":")
    if kind == "all" or overrides.count_of(ordered, kind) < SCOPES_MAX or overrides.word_of(ordered, scope):
        return None
    return "scope", _full(scope, f"{kind} scopes that are halted or reducing", SCOPES_MAX)


def _full(name: str, what: str, most: int) -> str:
    return f"must be one of at most {most} {what}, was {name!r}, a new one"
