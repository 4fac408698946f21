"""Lots: targets in whole lots, so that what is published in USD is what its quantity is worth.

A symbol that cannot afford one lot is not opened, and its budget is free for the others. Cost O(cells).

Source: docs/pipeline.md, stages 11 and lots.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engines.pipeline import caps
from engines.pipeline.caps import Capped, Limits
from engines.state.units import cents_of

__all__ = ["BELOW_A_LOT", "affordable", "in_lots", "whole"]

BELOW_A_LOT = "below a lot"


class Whole(NamedTuple):
    """A book in whole lots."""

    cents: list[int]
    quantities: dict[str, float]
    reasons: dict[int, str]


def in_lots(quantity: float, lot: float) -> float:
    """Return a quantity truncated toward zero to whole lots, as the float nearest to its decimal.

    >>> in_lots(-0.337, 0.05)
    -0.3
    """
    count = int(quantity / lot)
    per_coin = 1.0 / lot
    whole_per_coin = round(per_coin)
    if whole_per_coin >= 1 and abs(per_coin - whole_per_coin) <= whole_per_coin * 1e-12:
        return count / whole_per_coin
    return count * lot


def affordable(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    cap_factors: Sequence[float],
    value_usd: float,
    limits: Limits,
    lot_cents: Mapping[str, float],
) -> tuple[Capped, dict[int, str]]:
    """Return the targets within the caps without the symbols that cannot afford a lot, and why, by cell.

    The symbol furthest below its lot goes first; what it leaves may be enough for the next.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed targets before the caps.
        cap_factors: as in `caps`.
        value_usd: V.
        limits: of the caps.
        lot_cents: value of one lot by symbol; symbols that are not named can always afford one.
    """
    wanted = list(cents)
    reasons: dict[int, str] = {}
    while True:
        capped = caps.caps(cells, wanted, cap_factors, value_usd, limits)
        nets = caps.nets(cells, capped.cents)
        short = [(abs(nets[name]) / lot, name) for name, lot in lot_cents.items() if 0 < abs(nets.get(name, 0)) < lot]
        if not short:
            return capped, reasons
        _, dropped = min(short)
        for index, (_, symbol) in enumerate(cells):
            if symbol == dropped:
                wanted[index] = 0
                reasons[index] = BELOW_A_LOT


def whole(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    quantities: Mapping[str, float],
    units: Mapping[str, float],
    minimum_cents: int,
) -> Whole:
    """Return the book in which each symbol's cells add up to what its quantity is worth.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed targets.
        quantities: signed coins or contracts by symbol, in whole lots.
        units: USD of one of them, by symbol whose quantity was computed from its cells; the others stand as they are.
        minimum_cents: a symbol that is worth less is nothing.
    """
    nets = caps.nets(cells, cents)
    after, held, reasons = list(cents), dict(quantities), {}
    for symbol, unit in units.items():
        worth = cents_of(quantities[symbol], unit)
        if abs(worth) < minimum_cents or not worth:
            worth, held[symbol] = 0, 0.0
        missing = abs(nets[symbol]) - min(abs(worth), abs(nets[symbol]))
        for index, (_, name) in enumerate(cells):
            if name != symbol or cents[index] * nets[symbol] <= 0:
                continue
            taken = min(missing, abs(after[index]))
            after[index] -= taken if after[index] > 0 else -taken
            missing -= taken
            if taken and not worth:
                reasons[index] = BELOW_A_LOT
    return Whole(after, held, reasons)
