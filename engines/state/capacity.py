"""How much one journal partition takes. What would grow for ever is refused, with the number that was reached.

Strategies and cells that are idle make room before (`engines/handlers/slots.py`).

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
"""Strategies of one portfolio at a time."""
CELLS_MAX: Final = 2_000
"""Pairs of strategy and symbol of one portfolio at a time."""
SCOPES_MAX: Final = 1_000
"""Scopes of each kind (portfolio, strategy, symbol) that are halted or reducing; `all` is not counted."""

NONE_IDLE: Final = ", of which none may make room"

Broken = tuple[str, str] | None
"""Field and broken rule, as an error text continues."""


def no_room_for_cell(state: State, key: tuple[str, str, str]) -> Broken:
    """Return why a portfolio's new cell is not taken, None where it is."""
    portfolio, strategy, symbol = key
    if strategies_are_full(state, portfolio, strategy):
        return "strategy_id", _full(strategy, "strategies of the portfolio", STRATEGIES_MAX, NONE_IDLE)
    if cells_are_full(state, portfolio):
        what = "pairs of strategy and symbol of the portfolio"
        return "symbol", _full(f"{strategy} on {symbol}", what, CELLS_MAX, NONE_IDLE)
    return no_room_for_portfolio(state, portfolio)


def strategies_are_full(state: State, portfolio: str, strategy: str) -> bool:
    """Return whether a strategy is new to a portfolio that has as many as it may."""
    known = state.known.get(portfolio, {})
    return strategy not in known and len(known) >= STRATEGIES_MAX


def cells_are_full(state: State, portfolio: str) -> bool:
    """Return whether a portfolio has as many pairs of strategy and symbol as it may."""
    return sum(map(len, state.known.get(portfolio, {}).values())) >= CELLS_MAX


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


def _full(name: str, what: str, most: int, but: str = "") -> str:
    return f"must be one of at most {most} {what}{but}, was {name!r}, a new one"
