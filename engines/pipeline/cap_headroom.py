"""Headroom: how far prices may rise before a cap can break, which saves checking the caps at every step."""

from engines.pipeline.caps import Limits


def headroom(
    cells: list[tuple[str, str]], cents: list[int], cap_factors: list[float], value_usd: float, limits: Limits
) -> float:
    """Return the smallest ratio of cap to size over the caps of stage 11 and the maximum of stage 13; below 1 = broken.

    No cap can break until some price has risen by this factor, because a size rises at most as much as its price. The
    result is at most 1e9, its value for an empty book. Cells of size 0 count towards their symbol's cap, as in `caps`.
    """
    value_cents = 100.0 * value_usd
    room = 1e9
    gross = 0
    symbols: dict[str, list[float]] = {}
    strategies: dict[str, int] = {}
    for (strategy, symbol), size, factor in zip(cells, cents, cap_factors, strict=True):
        cap = limits.position * factor * value_cents
        held = symbols.setdefault(symbol, [0.0, 0.0, 0.0])
        held[2] = max(held[2], cap)
        if not size:
            continue
        magnitude = abs(size)
        gross += magnitude
        room = min(room, int(cap) / magnitude)
        strategies[strategy] = strategies.get(strategy, 0) + magnitude
        held[0 if size > 0 else 1] += magnitude
    for long, short, cap in symbols.values():
        if not long + short:
            continue
        room = min(room, int(cap) / (long + short), limits.maximum_cents / max(long, short))
    for size in strategies.values():
        room = min(room, int(limits.strategy * value_cents) / size)
    if gross:
        room = min(room, int(limits.gross * value_cents) / gross)
    return room
