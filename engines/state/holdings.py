"""What a portfolio is meant to hold and what it really holds now, in cents, cell by cell.

*Intended* is what was last published, at present prices. *Held* is what the newest report of positions says, where that
report covers the newest change of a target, and what is intended otherwise: a report that was made before the newest
target says nothing about how that target was carried out.

Source: docs/pipeline.md, intended and held.
"""

from collections.abc import Mapping
from typing import NamedTuple

from engines.state.partition import State
from engines.state.records import Book, CellTarget
from engines.state.units import cents_of, lot_of, unit_now

SECOND_NS = 1_000_000_000
UNASSIGNED = "-"
"""The strategy of a managed position that no published target explains."""


class Holdings(NamedTuple):
    """Cells of one portfolio; every list is aligned with `cells`."""

    cells: list[tuple[str, str]]
    """(strategy, symbol), sorted: every cell with a forecast, a target or a managed position."""
    intended: list[int]
    """What was last published, at present prices."""
    intended_quantities: dict[str, float]
    """Signed quantity last published by symbol, in coins or contracts."""
    cents: list[int]
    """What is held."""
    quantities: dict[str, float]
    """Signed quantity held by symbol, in coins or contracts."""
    targets: list[CellTarget | None]
    basis: str
    """"positions" or "targets": where `cents` comes from."""
    settled: bool
    """Whether the report was made so long after the newest change of a target that it must have been carried out."""
    unmanaged: dict[str, float]
    """Reported quantity of each symbol for which no target was ever published, in coins."""


def hold(state: State, portfolio: str) -> Holdings:
    """Return what a portfolio is meant to hold and what it holds, at present prices."""
    book = state.book(portfolio)
    cells = state.cells(portfolio)
    targets = state.targets
    found: list[CellTarget | None] = [targets.get((portfolio, *cell)) for cell in cells]
    wanted = {symbol: target.quantity for (_, symbol), target in zip(cells, found, strict=True) if target}
    if book.positions is None:
        intended = _spread(state, cells, found, wanted)
        return Holdings(cells, intended, wanted, intended, wanted, found, "targets", settled=False, unmanaged={})
    reported = dict(book.positions)
    unmanaged = {} if _flattens(state) else _unmanaged(book, reported)
    covering = _covers(state, book, wanted, reported)
    if covering:
        strays = [
            (UNASSIGNED, symbol)
            for symbol, quantity in book.positions
            if quantity and symbol not in wanted and symbol not in unmanaged
        ]
        if any(stray not in cells for stray in strays):
            cells = sorted({**dict.fromkeys(cells), **dict.fromkeys(strays)})
            found = [targets.get((portfolio, *cell)) for cell in cells]
    intended = _spread(state, cells, found, wanted)
    if not covering:
        return Holdings(cells, intended, wanted, intended, wanted, found, "targets", settled=False, unmanaged=unmanaged)
    held = _spread(state, cells, found, reported)
    settled = book.positions_ns >= book.changed_ns + _settle_ns(state)
    return Holdings(cells, intended, wanted, held, reported, found, "positions", settled, unmanaged)


def _covers(state: State, book: Book, wanted: Mapping[str, float], reported: Mapping[str, float]) -> bool:
    """Return whether the newest report covers the newest allocation that changed a target."""
    if book.as_of_sequence is not None:
        return book.as_of_sequence >= book.changed_sequence
    if book.positions_ns >= book.changed_ns + _settle_ns(state):
        return True
    sizing = state.params.position_sizing
    return all(
        abs(wanted.get(symbol, 0.0) - reported.get(symbol, 0.0)) < lot_of(sizing, symbol)
        for symbol in (*wanted, *(symbol for symbol in book.managed if symbol not in wanted))
    )


def _unmanaged(book: Book, reported: Mapping[str, float]) -> dict[str, float]:
    return {symbol: quantity for symbol, quantity in reported.items() if quantity and symbol not in book.managed}


def _flattens(state: State) -> bool:
    return state.params.portfolio.unmanaged == "flatten"


def _settle_ns(state: State) -> int:
    return int(state.params.portfolio.settle_s * SECOND_NS)


def _spread(
    state: State, cells: list[tuple[str, str]], targets: list[CellTarget | None], quantities: Mapping[str, float]
) -> list[int]:
    """Split each symbol's net over its cells, in proportion to what was last published."""
    spread = [0] * len(cells)
    if len(cells) == 1:
        return _spread_one(state, cells[0][1], targets[0], quantities)
    members: dict[str, list[int]] = {}
    for index, (_, symbol) in enumerate(cells):
        members.setdefault(symbol, []).append(index)
    for symbol, indexes in members.items():
        quantity = quantities.get(symbol, 0.0)
        published = [(index, target) for index in indexes if (target := targets[index]) is not None]
        net = _value_cents(state, symbol, quantity, published) if quantity else 0
        _split(spread, net, cells, published, indexes)
    return spread


def _spread_one(state: State, symbol: str, target: CellTarget | None, quantities: Mapping[str, float]) -> list[int]:
    """Return the size of a portfolio's only cell."""
    quantity = quantities.get(symbol, 0.0)
    if not quantity:
        return [0]
    return [_value_cents(state, symbol, quantity, [] if target is None else [(0, target)])]


def _split(
    spread: list[int],
    net: int,
    cells: list[tuple[str, str]],
    published: list[tuple[int, CellTarget]],
    indexes: list[int],
) -> None:
    total = sum(target.cents for _, target in published)
    if total:
        for index, target in published:
            share = abs(target.cents) * abs(net) // abs(total)
            spread[index] = share * _sign(target.cents) * _sign(total) * _sign(net)
        first = published[0][0]
        spread[first] += net - sum(spread[index] for index, _ in published)
    elif published:
        for index, target in published:
            spread[index] = target.cents
    elif net:
        stray = next((index for index in indexes if cells[index][0] == UNASSIGNED), indexes[0])
        spread[stray] = net


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _value_cents(state: State, symbol: str, quantity: float, published: list[tuple[int, CellTarget]]) -> int:
    """Return a quantity's value at the last price, or at the price of its target where no price is known."""
    unit_usd = unit_now(state, symbol)
    if unit_usd is not None:
        return cents_of(quantity, unit_usd)
    if published and published[0][1].quantity:
        per_unit_usd = sum(target.cents for _, target in published) / (100.0 * published[0][1].quantity)
        return cents_of(quantity, per_unit_usd)
    return 0
