"""Band: a symbol whose target is close to what stands is left as it is.

A change that is small against the target costs more than it brings, whether it adds or cuts. What ends a position or
turns it never waits, and a book that the band would bring over a cap is settled without it. Cost O(cells).

Source: docs/pipeline.md, stage 14; Davis and Norman 1990 (a no-trade
region is optimal under costs).
"""

from collections.abc import Sequence
from operator import le
from typing import NamedTuple

from engines.pipeline.caps import Limits, fits

__all__ = ["Settled", "settle"]


class Settled(NamedTuple):
    """The last book: nothing runs after it but a bound on cuts by what is held."""

    cents: list[int]
    kept: list[str]
    """Symbols that stay as they stand, sorted."""


def settle(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    standing: Sequence[int],
    cap_factors: Sequence[float],
    value_usd: float,
    limits: Limits,
    band_ratio: float,
) -> Settled:
    """Return the book in which each symbol has its targets or what stands.

    A symbol stays where |net − standing net| ≤ max(minimum, band_ratio·|net|), unless its net is 0, or a cell of it
    stands while its target is 0 or of the other sign. Where the result would break a cap or a symbol's maximum, every
    symbol takes its targets; a book that adds nothing may break one by the tolerance.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed targets, within caps and limits.
        standing: what each cell holds now, or what was last published of it where a decision only cuts.
        cap_factors: what every cut left of each cell's cap.
        value_usd: V.
        limits: of the book that comes out; its minimum is the band's.
        band_ratio: share of the target that is not traded.
    """
    nets: dict[str, int] = {}
    distances: dict[str, int] = {}
    moving: dict[str, None] = {}
    for (_, symbol), target, now in zip(cells, cents, standing, strict=True):
        nets[symbol] = nets.get(symbol, 0) + target
        distances[symbol] = distances.get(symbol, 0) + target - now
        if now and target * now <= 0:
            moving[symbol] = None
    kept = {
        symbol: None
        for symbol, net in nets.items()
        if net and symbol not in moving and abs(distances[symbol]) <= max(limits.minimum_cents, band_ratio * abs(net))
    }
    targets = list(cents)
    if not kept:
        return Settled(targets, [])
    mixed = [now if cell[1] in kept else target for cell, target, now in zip(cells, targets, standing, strict=True)]
    smaller = all(map(le, map(abs, mixed), map(abs, targets)))  # nowhere above a book that is within every cap
    adds = not all(map(le, map(abs, mixed), map(abs, standing)))
    if not smaller and not fits(cells, mixed, cap_factors, value_usd, limits, 0.0 if adds else limits.tolerance):
        return Settled(targets, [])
    return Settled(mixed, sorted(kept))
