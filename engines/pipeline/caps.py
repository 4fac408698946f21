"""Caps: upper limits of a book of targets, and the removal of targets that are too small or not allowed to trade.

A single pass over signed targets (open positions included) applies the caps of cell, symbol, strategy and portfolio;
this order is part of the definition. Sizes are integer cents, scaled toward zero: one pass satisfies every cap, a
second one changes nothing, the order of rows does not matter, and no size grows or changes sign. Cost O(cells).

A book is three sequences of equal length with one row per cell: (strategy, symbol), signed cents, and the cap factor,
the product of all cuts of the cell, which scales its cap.

Source: docs/methods.md, section 9; docs/pipeline.md, stages 11 and 13.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from schemas.vocabulary import TradingState

__all__ = ["Capped", "Limited", "Limits", "allowed", "caps", "fits", "limits", "nets"]

PORTFOLIO = "all"
"""Name of the single group of the portfolio cap."""
Group = TypeVar("Group", str, tuple[str, bool])


class Limits(NamedTuple):
    """Limits of a book: three ratios of the portfolio's value, and two sizes per symbol."""

    position: float
    """P: limit of a cell's size and of a symbol's gross, each times its cap factor."""
    strategy: float
    """S: limit of a strategy's gross."""
    gross: float
    """Limit of the portfolio's gross: min(G, max_leverage)."""
    minimum_cents: int
    """A symbol with a smaller gross is set to 0."""
    maximum_cents: int
    """Limit of a symbol's long side, and of its short side."""
    tolerance: float = 0.0
    """Share by which a book that was within a cap may exceed it before it is cut."""


class Capped(NamedTuple):
    """A book within its caps."""

    cents: list[int]
    bound: list[tuple[str, str]]
    """(level, name) of each binding cap; level is cell (named strategy/symbol), symbol, strategy or portfolio."""


class Limited(NamedTuple):
    """A book within the size limits and trading states."""

    cents: list[int]
    reasons: dict[int, str]
    """Reason by index, for each cell that was reduced."""


def caps(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    cap_factors: Sequence[float],
    value_usd: float,
    limits: Limits,
    slack: float = 0.0,
) -> Capped:
    """Return the targets within |cell| ≤ P·c·V, symbol ≤ P·max c·V, strategy ≤ S·V and portfolio ≤ gross·V.

    With slack, a size is cut only if it exceeds a cap by more than this share, and then to the same share below the
    cap. So a size that price moves push back and forth over its cap is not cut at every step.

    Args:
        cells: (strategy, symbol) of each row, all different.
        cents: signed targets.
        cap_factors: c of each row, in [0, 1].
        value_usd: V; if it is not positive, every target becomes 0.
        limits: P, S and the gross.
        slack: 0, or the tolerance of `limits`.
    """
    value_cents = max(0.0, 100.0 * value_usd)
    strategy_cap, gross_cap = int(limits.strategy * value_cents), int(limits.gross * value_cents)
    if len(cents) == 1:
        cell_cap = int(limits.position * cap_factors[0] * value_cents)
        return _single_cell(cells[0], cents[0], cell_cap, strategy_cap, gross_cap, slack)
    wanted = list(map(abs, cents))
    sizes, caps, symbols, strategies = _clipped(cells, wanted, cap_factors, value_cents, limits.position, slack)
    bound: list[tuple[str, str]] = []
    if sizes != wanted:
        bound = [("cell", "/".join(cell)) for cell, was, now in zip(cells, wanted, sizes, strict=True) if now < was]
    over = {symbol: gross for symbol, gross in symbols.items() if gross > caps[symbol] + int(caps[symbol] * slack)}
    if over:
        sizes = [
            size * (caps[symbol] - int(caps[symbol] * slack)) // over[symbol] if symbol in over else size
            for (_, symbol), size in zip(cells, sizes, strict=True)
        ]
        bound += [("symbol", symbol) for symbol in sorted(over)]
        strategies = _gross([strategy for strategy, _ in cells], sizes)
    margin = int(strategy_cap * slack)
    over = {strategy: gross for strategy, gross in strategies.items() if gross > strategy_cap + margin}
    if over:
        sizes = [
            size * (strategy_cap - margin) // over[strategy] if strategy in over else size
            for (strategy, _), size in zip(cells, sizes, strict=True)
        ]
        bound += [("strategy", strategy) for strategy in sorted(over)]
    gross, margin = sum(sizes), int(gross_cap * slack)
    if gross > gross_cap + margin:
        sizes = [size * (gross_cap - margin) // gross for size in sizes]
        bound.append(("portfolio", PORTFOLIO))
    return Capped(_signed(sizes, cents) if bound else list(cents), bound)


def limits(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    held: Sequence[int],
    states: Sequence[TradingState],
    limits: Limits,
    slack: float = 0.0,
) -> Limited:
    """Return the targets within the largest and smallest size of a symbol and the trading states.

    In this order: limit each symbol's long side and short side to the maximum; set a symbol with a gross below the
    minimum to 0; HALTED → 0; REDUCING → clip between 0 and the held size; apply the minimum again.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed targets, within `caps`.
        held: signed size that each cell holds now.
        states: trading state of each cell, the most severe of its scopes.
        limits: minimum and maximum.
        slack: as in `caps`, for the maximum.
    """
    least, most = limits.minimum_cents, limits.maximum_cents
    margin = int(most * slack)
    gross: dict[str, int] = {}
    for (_, symbol), size in zip(cells, cents, strict=True):
        gross[symbol] = gross.get(symbol, 0) + abs(size)
    large = small = False
    for total in gross.values():
        large = large or total > most + margin
        small = small or 0 < total < least
    reasons: dict[int, str] = {}
    after = list(cents)
    if large:
        after = _at_most(cells, after, most, margin, reasons)
    if large or small:
        after = _at_least(cells, after, least, reasons)
    if states.count("ACTIVE") != len(states):
        after = allowed(after, held, states, reasons)
        after = _at_least(cells, after, least, reasons)
    return Limited(after, reasons)


def nets(cells: Sequence[tuple[str, str]], cents: Sequence[int]) -> dict[str, int]:
    """Return the sum of signed sizes of each symbol, in the order in which symbols first appear."""
    return _gross([symbol for _, symbol in cells], cents)


def fits(
    cells: Sequence[tuple[str, str]],
    cents: Sequence[int],
    cap_factors: Sequence[float],
    value_usd: float,
    limits: Limits,
    slack: float = 0.0,
) -> bool:
    """Return whether a book exceeds no cap and no symbol's maximum by more than the slack."""
    if caps(cells, cents, cap_factors, value_usd, limits, slack).bound:
        return False
    most = limits.maximum_cents + int(limits.maximum_cents * slack)
    symbols = [symbol for _, symbol in cells]
    if max(_gross(symbols, map(abs, cents)).values(), default=0) <= most:
        return True
    sides = [(symbol, size > 0) for symbol, size in zip(symbols, cents, strict=True)]
    return max(_gross(sides, map(abs, cents)).values()) <= most


def _clipped(
    cells: Sequence[tuple[str, str]],
    wanted: list[int],
    cap_factors: Sequence[float],
    value_cents: float,
    position: float,
    slack: float,
) -> tuple[list[int], dict[str, int], dict[str, int], dict[str, int]]:
    """Return the sizes within the cell caps, the cap of each symbol, and the gross of each symbol and strategy."""
    sizes: list[int] = []
    caps: dict[str, int] = {}
    symbols: dict[str, int] = {}
    strategies: dict[str, int] = {}
    for (strategy, symbol), size, factor in zip(cells, wanted, cap_factors, strict=True):
        cap = int(position * factor * value_cents)
        margin = int(cap * slack)
        if size > cap + margin:
            size = cap - margin  # noqa: PLW2901
        if cap > caps.get(symbol, -1):
            caps[symbol] = cap
        sizes.append(size)
        symbols[symbol] = symbols.get(symbol, 0) + size
        strategies[strategy] = strategies.get(strategy, 0) + size
    return sizes, caps, symbols, strategies


def _single_cell(
    cell: tuple[str, str], cents: int, cell_cap: int, strategy_cap: int, gross_cap: int, slack: float
) -> Capped:
    """Return a book with a single cell within its caps; the symbol's cap equals the cell's."""
    size = abs(cents)
    bound = []
    for level, name, cap in (
        ("cell", f"{cell[0]}/{cell[1]}", cell_cap),
        ("strategy", cell[0], strategy_cap),
        ("portfolio", PORTFOLIO, gross_cap),
    ):
        margin = int(cap * slack)
        if size > cap + margin:
            size = cap - margin
            bound.append((level, name))
    return Capped([size if cents >= 0 else -size], bound)


def _at_most(
    cells: Sequence[tuple[str, str]], cents: list[int], most: int, margin: int, reasons: dict[int, str]
) -> list[int]:
    """Return the targets with each side above maximum + margin scaled to maximum − margin."""
    sides = [(symbol, size > 0) for (_, symbol), size in zip(cells, cents, strict=True)]
    over = {side: total for side, total in _gross(sides, map(abs, cents)).items() if total > most + margin}
    if not over:
        return cents
    sizes = [
        abs(size) * (most - margin) // over[side] if side in over else abs(size)
        for side, size in zip(sides, cents, strict=True)
    ]
    after = _signed(sizes, cents)
    _explain(reasons, cents, after, "max_position_usd")
    return after


def _at_least(cells: Sequence[tuple[str, str]], cents: list[int], least: int, reasons: dict[int, str]) -> list[int]:
    """Return the targets with the symbols set to 0 whose gross is below `least`."""
    symbols = [symbol for _, symbol in cells]
    gross = _gross(symbols, map(abs, cents))
    after = [size if gross[symbol] >= least else 0 for symbol, size in zip(symbols, cents, strict=True)]
    _explain(reasons, cents, after, "min_position_usd")
    return after


def allowed(
    cents: Sequence[int], held: Sequence[int], states: Sequence[TradingState], reasons: dict[int, str]
) -> list[int]:
    """Return the targets that the trading states allow."""
    after = [
        size if state == "ACTIVE" else 0 if state == "HALTED" else _between(size, now)
        for size, now, state in zip(cents, held, states, strict=True)
    ]
    for index, (was, now) in enumerate(zip(cents, after, strict=True)):
        if was != now:
            reasons[index] = states[index]
    return after


def _between(cents: int, held: int) -> int:
    """Return a target clipped between 0 and the held size."""
    return max(0, min(cents, held)) if held > 0 else min(0, max(cents, held))


def _gross(groups: Sequence[Group], sizes: Iterable[int]) -> dict[Group, int]:
    gross: dict[Group, int] = {}
    for group, size in zip(groups, sizes, strict=True):
        gross[group] = gross.get(group, 0) + size
    return gross


def _signed(sizes: list[int], like: Sequence[int]) -> list[int]:
    return [size if sign >= 0 else -size for size, sign in zip(sizes, like, strict=True)]


def _explain(reasons: dict[int, str], before: list[int], after: list[int], why: str) -> None:
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        if was != now:
            reasons[index] = why
