"""Slots of a portfolio: its strategies and their cells. In a full one the idle make room for those who come.

A cell is idle without a live forecast and without a target; a strategy is, where all its cells are. The first to go
have never had an outcome; then come those that have been silent for `inactive_after_s`. Among each it is the one whose
newest signal is the oldest, and the first by name where two are alike. What has been learnt of a strategy that speaks
is not lost to a stranger: only an order (`forget`) ends that earlier.

Source: docs/decisions/0039-slots.md.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from engines.handlers import policy_questions
from engines.handlers.effects import FoldResult, warn_of_drift
from engines.models import calibration
from engines.pipeline import cache
from engines.state import capacity, strategies
from engines.state.partition import State
from engines.state.tables import Key

__all__ = ["forget", "make_room"]

SECOND_NS = 1_000_000_000
TOLD_PORTFOLIOS_MAX = 5


class Rank(NamedTuple):
    """The order in which idle slots go, smallest first."""

    learnt: bool
    last_ns: int
    """Time of the newest signal."""
    name: tuple[str, ...]


def make_room(state: State, offset: int, key: tuple[str, str, str], folded: FoldResult) -> None:
    """Free what a new cell of a full portfolio needs, where something is idle; else nothing."""
    portfolio, strategy, _ = key
    if capacity.no_room_for_portfolio(state, portfolio) is not None:
        return
    known = state.known.get(portfolio, {})
    if capacity.strategies_are_full(state, portfolio, strategy):
        first = _first(state, {(name,): _cells(portfolio, name, symbols) for name, symbols in known.items()})
        if first is None:
            return
        _forget_strategy(state, offset, portfolio, first[0], folded)
    if capacity.cells_are_full(state, portfolio):
        cells = [cell for name, symbols in known.items() for cell in _cells(portfolio, name, symbols)]
        first = _first(state, {cell[1:]: [cell] for cell in cells})
        if first is not None:
            _forget_cell(state, offset, (portfolio, first[0], first[1]), folded)
            folded.note("freed_slot", "cell")


def forget(state: State, offset: int, payload: dict[str, Any], folded: FoldResult) -> str:
    """Carry out an order to free slots; return its answer.

    A strategy is forgotten in every portfolio, or in the one named, and only if it is idle in all of them. Of a
    portfolio the idle strategies are forgotten.
    """
    kind, _, name = payload["scope"].partition(":")
    if kind == "portfolio":
        concerned = [(name, strategy) for strategy in sorted(state.known.get(name, {}))]
    else:
        only = payload.get("portfolio_id")
        concerned = [
            (portfolio, name)
            for portfolio, known in sorted(state.known.items())
            if name in known and only in {None, portfolio}
        ]
    idle = [pair for pair in concerned if _is_idle(state, _cells(*pair, state.known[pair[0]][pair[1]]))]
    if len(idle) < len(concerned) and (kind == "strategy" or not idle):
        return _refusal(kind, name, [portfolio for portfolio, _ in concerned if (portfolio, name) not in idle])
    for portfolio, strategy in idle:
        _forget_strategy(state, offset, portfolio, strategy, folded)
    return "applied" if idle else "no_op"


def _refusal(kind: str, name: str, portfolios: Sequence[str]) -> str:
    if kind == "portfolio":
        return f"rejected: every strategy of portfolio {name} has a live claim or a position"
    more = f" and {len(portfolios) - TOLD_PORTFOLIOS_MAX} more" if len(portfolios) > TOLD_PORTFOLIOS_MAX else ""
    places = ", ".join(portfolios[:TOLD_PORTFOLIOS_MAX]) + more
    return f"rejected: strategy {name} must have neither a live claim nor a position, has one in portfolio {places}"


# -- which -------------------------------------------------------------------------------------------------------------
def _cells(portfolio: str, strategy: str, symbols: Iterable[str]) -> list[Key]:
    return [(portfolio, strategy, symbol) for symbol in symbols]


def _is_idle(state: State, cells: Sequence[Key]) -> bool:
    return not any(key in state.targets or state.predictions[key].forecast is not None for key in cells)


def _first(state: State, slots: dict[tuple[str, ...], list[Key]]) -> tuple[str, ...] | None:
    """Return the name of the slot that goes first, None where none may go."""
    silent_ns = state.now_ns - state.params.position_sizing.ensemble.inactive_after_s * SECOND_NS
    ranks = []
    for name, cells in slots.items():
        if _is_idle(state, cells):
            learnt = any(key in state.posteriors for key in cells)
            last_ns = max(state.predictions[key].last_ns for key in cells)
            if not learnt or last_ns < silent_ns:
                ranks.append(Rank(learnt, last_ns, name))
    return min(ranks).name if ranks else None


# -- forgetting --------------------------------------------------------------------------------------------------------
def _forget_strategy(state: State, offset: int, portfolio: str, strategy: str, folded: FoldResult) -> None:
    for symbol in sorted(state.known[portfolio][strategy]):
        _forget_cell(state, offset, (portfolio, strategy, symbol), folded)
    folded.note("freed_slot", "strategy")


def _forget_cell(state: State, offset: int, key: tuple[str, str, str], folded: FoldResult) -> None:
    """Drop all records of a cell; with its last cell a strategy loses its pool and its weight."""
    portfolio, strategy, symbol = key
    learned, pool = state.posteriors.get(key), state.pools.get(key[:2])
    if learned is not None and pool is not None:
        state.pools.put(key[:2], calibration.unpooled(pool, learned.posterior))
    policy_questions.withdraw(state, portfolio, (strategy, symbol))
    state.drop_cell(key)
    cache.forget_cell(state, key)
    if strategy not in state.known.get(portfolio, {}):
        state.pools.drop(key[:2])
        if strategies.leave(state, portfolio, strategy):
            warn_of_drift(state, folded, offset, portfolio)
