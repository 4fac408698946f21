"""What a portfolio holds now, in cents, cell by cell: known positions, else what was last published.

Source: the pipeline specification, stage 14 (held).
"""

from typing import NamedTuple

from engines.records import Target
from engines.state import State

UNASSIGNED = "-"
"""The strategy of a position that no published target explains."""

CENTS_MAX = 1e15
"""Ten trillion USD: what is held of a symbol counts for no more. A price times a quantity has no end, JSON's integers
have one, and the sum over all cells of a portfolio must stay below it."""


class Holdings(NamedTuple):
    """Held cells of one portfolio, aligned with `cells`."""

    cells: list[tuple[str, str]]
    """(strategy, symbol), sorted: every cell with a forecast, a target or a position."""
    cents: list[int]
    quantities: dict[str, float]
    """Signed quantity held by symbol, in coins."""
    targets: list[Target | None]
    basis: str
    """"positions" or "targets"."""


def hold(state: State, portfolio: str) -> Holdings:
    """Return what a portfolio holds at present prices."""
    known = state.book(portfolio).positions
    cells = state.cells(portfolio)
    targets = state.tables["targets"]
    if known is None:
        found = [targets.get((portfolio, *cell)) for cell in cells]
        quantities = {symbol: target.quantity for (_, symbol), target in zip(cells, found, strict=True) if target}
        return Holdings(cells, _spread(state, cells, found, quantities), quantities, found, "targets")
    quantities = dict(known)
    explained = {symbol: None for strategy, symbol in cells if (portfolio, strategy, symbol) in targets}
    strays = [(UNASSIGNED, symbol) for symbol, quantity in known if quantity and symbol not in explained]
    cells = sorted([*cells, *(stray for stray in strays if stray not in cells)]) if strays else cells
    found = [targets.get((portfolio, *cell)) for cell in cells]
    return Holdings(cells, _spread(state, cells, found, quantities), quantities, found, "positions")


def _spread(
    state: State, cells: list[tuple[str, str]], targets: list[Target | None], quantities: dict[str, float]
) -> list[int]:
    """Split each symbol's held net over its cells, in proportion to what was last published."""
    held = [0] * len(cells)
    if len(cells) == 1:
        symbol = cells[0][1]
        quantity = quantities.get(symbol, 0.0)
        held[0] = _value_cents(state, symbol, quantity) if quantity else 0
        return held
    members: dict[str, list[int]] = {}
    for index, (_, symbol) in enumerate(cells):
        members.setdefault(symbol, []).append(index)
    for symbol, indexes in members.items():
        net = _value_cents(state, symbol, quantities.get(symbol, 0.0))
        _split(held, net, cells, targets, indexes)
    return held


def _split(
    held: list[int], net: int, cells: list[tuple[str, str]], targets: list[Target | None], indexes: list[int]
) -> None:
    published = [(index, target.cents) for index in indexes if (target := targets[index]) is not None]
    total = sum(cents for _, cents in published)
    if total:
        for index, cents in published:
            share = abs(cents) * abs(net) // abs(total)
            held[index] = share * _sign(cents) * _sign(total) * _sign(net)
        first = published[0][0]
        held[first] += net - sum(held[index] for index, _ in published)
    elif published:
        for index, cents in published:
            held[index] = cents
    elif net:
        stray = next((index for index in indexes if cells[index][0] == UNASSIGNED), indexes[0])
        held[stray] = net


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _value_cents(state: State, symbol: str, quantity: float) -> int:
    market = state.tables["markets"].get((symbol,))
    if not quantity or market is None or market.bars is None:
        return 0
    return int(max(-CENTS_MAX, min(CENTS_MAX, 100.0 * quantity * market.bars.last_price)))
