"""No-trade band: a symbol whose target is close to the current size is not traded.

A change that is small relative to the target costs more than it gains, whether it adds or cuts. Closing or reversing a
position is never held back, and if the band would leave the book above a cap, every symbol is traded. Cost O(cells).

Source: docs/pipeline.md, stage 14; Davis and Norman 1990 (a no-trade region is optimal under costs).
"""

from collections.abc import Sequence
from operator import le
from typing import NamedTuple

from engines.pipeline.caps import Limits, fits

__all__ = ["Settled", "settle"]


class Settled(NamedTuple):
    """The final book; after it, cuts are only limited by the held size."""

    cents: list[int]
    kept: list[str]
    """Symbols that are not traded, sorted."""


def settle(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    current: Sequence[int],
    cap_factors: Sequence[float],
    value_usd: float,
    limits: Limits,
    band_ratio: float,
) -> Settled:
    """Return the book in which each symbol has either its targets or its current sizes.

    A symbol keeps its sizes if |net − current net| ≤ max(minimum, band_ratio·|net|), unless its net is 0, or one of its
    cells has a position whose target is 0 or of the opposite sign. If the result would exceed a cap or a symbol's
    maximum, every symbol takes its targets; a book that adds nothing may exceed one by the tolerance.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed targets, within caps and limits.
        current: signed size that each cell holds now, or that was last published if the decision only cuts.
        cap_factors: product of all cuts of each cell, which scales its cap.
        value_usd: V.
        limits: of the resulting book; its minimum is also the smallest band.
        band_ratio: largest change, as a share of the target, that is not traded.
    """
    nets: dict[str, int] = {}
    distances: dict[str, int] = {}
    moving: dict[str, None] = {}
    for (_, symbol), target, now in zip(cells, cents, current, strict=True):
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
    mixed = [now if cell[1] in kept else target for cell, target, now in zip(cells, targets, current, strict=True)]
    smaller = all(map(le, map(abs, mixed), map(abs, targets)))  # no cell above the targets, which are within every cap
    adds = not all(map(le, map(abs, mixed), map(abs, current)))
    if not smaller and not fits(cells, mixed, cap_factors, value_usd, limits, 0.0 if adds else limits.tolerance):
        return Settled(targets, [])
    return Settled(mixed, sorted(kept))
