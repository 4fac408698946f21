"""Moments of the symbols' bar returns, from which correlations are computed.

Returns of a bar are standardised by the volatility known before it, and the product of each pair that traded in the
bar enters its EWMA; pairs with a missing symbol are unchanged. Symbols may come and go: a new one does not hold up the
others, and one that no longer trades is removed after some event time.

    >>> moments, params = begin(), CorrelationParams()
    >>> for bar, move in enumerate((0.01, -0.01, 0.01), start=1):
    ...     observe(moments, bar * 3_600 * SECOND_NS, {"BTC": move, "ETH": -move}, params)
    >>> moments.symbols, moments.bars.tolist(), [round(each, 4) for each in moments.cross.tolist()]
    (('BTC', 'ETH'), [2, 2, 2], [0.0591, -0.0591, 0.0591])

Source: docs/methods.md, section 6; RiskMetrics 1996 (EWMA).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from engines.numerics.cholesky import compiled
from engines.parameters import CorrelationParams
from schemas.errors import ProcessorStopped

__all__ = ["Moments", "add", "begin", "from_parts", "observe", "remove", "to_parts"]

Floats = NDArray[np.float64]
CountMatrix = NDArray[np.uint16]
Flags = NDArray[np.uint8]
Times = NDArray[np.int64]

SECOND_NS: Final = 1_000_000_000
LARGEST_RETURN: Final = 1e100
"""Larger returns count as missing; their squares would not be finite."""
MOST_BARS: Final = 65_535
"""Largest bar count; with any allowed decay the weight is 1 by then."""
PART_BYTES: Final = 240_000
"""Largest part of a checkpoint; a multiple of every element size."""
TRIANGLES: Final = (("cross", "<f8"), ("bars", "<u2"), ("high", "|u1"))
"""Triangles in a checkpoint, and the format of their elements."""


@dataclass(slots=True, eq=False)
class Moments:
    """Moments of n symbols; values of pairs are upper triangles, row by row, diagonal included.

    Mutable: only the owner changes it, through the functions of this module, and never shares its arrays.
    """

    symbols: tuple[str, ...]
    """Ascending; the order of all rows and columns."""
    bar_end_ns: int
    """End of the newest bar."""
    last_ns: Times
    """(n,) end of the last bar in which each symbol traded."""
    variances: Floats
    """(n,) EWMA of squared returns; 0 until the price has moved."""
    cross: Floats
    """(n(n+1)/2,) EWMA of products of standardised returns, starting at 0."""
    bars: CountMatrix
    """(n(n+1)/2,) number of bars that updated each pair."""
    high: Flags
    """(n(n+1)/2,) 1 while the pair's alert is raised."""


def begin() -> Moments:
    """Return the moments before the first bar, without symbols."""
    nothing = np.zeros(0)
    return Moments((), 0, np.zeros(0, np.int64), nothing, nothing.copy(), np.zeros(0, np.uint16), np.zeros(0, np.uint8))


def observe(moments: Moments, bar_end_ns: int, returns: Mapping[str, float], params: CorrelationParams) -> None:
    """Update the moments in place with one closed bar. O(n²).

    An unknown symbol is added; a symbol without a bar for `inactive_after_s` of event time is removed. A non-finite
    return counts as missing. Time never goes back: an older bar counts as a bar of the current time.

    Args:
        moments: changed in place.
        bar_end_ns: end of the bar, event time.
        returns: log return of each symbol that traded in the bar.
        params: the settings in force.
    """
    moments.bar_end_ns = max(moments.bar_end_ns, bar_end_ns)
    oldest_ns = _move(
        _row(moments, returns),
        moments.last_ns,
        moments.variances,
        moments.cross,
        moments.bars,
        moments.bar_end_ns,
        params.decay,
        params.clip,
    )
    limit_ns = moments.bar_end_ns - params.inactive_after_s * SECOND_NS
    if oldest_ns < limit_ns:
        stale = zip(moments.symbols, moments.last_ns.tolist(), strict=True)
        remove(moments, [symbol for symbol, last_ns in stale if last_ns < limit_ns])


def _row(moments: Moments, returns: Mapping[str, float]) -> Floats:
    """Return the returns in the order of the symbols, NaN if missing; unknown symbols are added first."""
    row = list(map(returns.get, moments.symbols))
    if len(row) - row.count(None) < len(returns):
        add(moments, returns, moments.bar_end_ns)
        row = list(map(returns.get, moments.symbols))
    return np.array(row, np.float64)  # None becomes NaN


def add(moments: Moments, symbols: Iterable[str], now_ns: int) -> None:
    """Add symbols without history; existing ones are unchanged."""
    _arrange(moments, tuple(sorted({*moments.symbols, *symbols})), now_ns)


def remove(moments: Moments, symbols: Iterable[str]) -> None:
    """Remove symbols; unknown ones are ignored."""
    gone = frozenset(symbols)
    _arrange(moments, tuple(symbol for symbol in moments.symbols if symbol not in gone), moments.bar_end_ns)


def _arrange(moments: Moments, symbols: tuple[str, ...], now_ns: int) -> None:
    """Rearrange the arrays for exactly these symbols, ascending."""
    before = {symbol: place for place, symbol in enumerate(moments.symbols)}
    places = np.array([before.get(symbol, -1) for symbol in symbols], np.int64)
    known = places >= 0
    last_ns = np.full(len(symbols), now_ns, np.int64)
    last_ns[known] = moments.last_ns[places[known]]
    variances = np.zeros(len(symbols))
    variances[known] = moments.variances[places[known]]
    size = len(symbols) * (len(symbols) + 1) // 2
    cross, bars, high = np.zeros(size), np.zeros(size, np.uint16), np.zeros(size, np.uint8)
    for old, new in ((moments.cross, cross), (moments.bars, bars), (moments.high, high)):
        _carry(old, len(moments.symbols), places, new)
    moments.symbols, moments.last_ns, moments.variances = symbols, last_ns, variances
    moments.cross, moments.bars, moments.high = cross, bars, high


def to_parts(moments: Moments) -> dict[str, bytes]:
    """Return the moments as named parts of at most 240,000 bytes: a JSON head, and raw little-endian triangles."""
    head = [moments.bar_end_ns, moments.symbols, moments.last_ns.tolist(), moments.variances.tolist()]
    parts = {"head": orjson.dumps(head)}
    for name, kind in TRIANGLES:
        written = getattr(moments, name).astype(kind).tobytes()
        for start in range(0, len(written), PART_BYTES):
            parts[f"{name}-{start // PART_BYTES}"] = written[start : start + PART_BYTES]
    return parts


def from_parts(parts: Mapping[str, bytes]) -> Moments:
    """Return the moments that `to_parts` wrote, bit by bit; leftover parts of a larger checkpoint are ignored.

    Raises:
        ProcessorStopped: a part is missing, or its length does not match the head.
    """
    if "head" not in parts:
        raise ProcessorStopped("checkpoint of correlations: part head must be there, was missing")
    bar_end_ns, symbols, last_ns, variances = orjson.loads(parts["head"])
    size = len(symbols) * (len(symbols) + 1) // 2
    cross, bars, high = (_triangle(parts, name, kind, size) for name, kind in TRIANGLES)
    return Moments(
        tuple(symbols),
        bar_end_ns,
        np.array(last_ns, np.int64),
        np.array(variances, np.float64),
        cross.astype(np.float64),
        bars.astype(np.uint16),
        high.astype(np.uint8),
    )


def _triangle(parts: Mapping[str, bytes], name: str, kind: str, size: int) -> NDArray[Any]:
    """Return a triangle joined from its parts."""
    pieces = -(-size * np.dtype(kind).itemsize // PART_BYTES)
    written = b"".join(parts.get(f"{name}-{piece}", b"") for piece in range(pieces))
    if len(written) != size * np.dtype(kind).itemsize:
        raise ProcessorStopped(
            f"checkpoint of correlations: {name} must hold {size} elements, had {len(written)} bytes"
        )
    return np.ndarray((size,), kind, written)


@compiled
def _carry(old: NDArray[Any], n: int, places: Times, new: NDArray[Any]) -> None:
    """Copy a triangle of n rows into another one; places: the old row of each new row, ascending, or -1."""
    at = 0
    for i in range(places.size):
        for j in range(i, places.size):
            row, column = places[i], places[j]
            if row >= 0 and column >= 0:
                new[at] = old[row * n - row * (row + 1) // 2 + column]
            at += 1


@compiled
def _move(
    returns: Floats,
    last_ns: Times,
    variances: Floats,
    cross: Floats,
    bars: CountMatrix,
    now_ns: int,
    decay: float,
    clip: float,
) -> int:
    """Update variances and pairs with one bar's returns, NaN if missing; return the oldest `last_ns`.

    A pair with a missing symbol is multiplied by 1 and gets 0 added: no bit changes, and the loop needs no branch.
    """
    n = returns.size
    z, keep, seen = np.zeros(n), np.ones(n), np.zeros(n, np.uint16)
    oldest_ns = now_ns
    for i in range(n):
        r = returns[i]
        if abs(r) <= LARGEST_RETURN:
            last_ns[i] = now_ns
            variance = variances[i]
            if variance > 0.0:
                z[i] = min(max(r / sqrt(variance), -clip), clip)
                keep[i] = decay
                seen[i] = 1
                variances[i] = decay * variance + (1.0 - decay) * (r * r)
            else:
                variances[i] = r * r
        oldest_ns = min(oldest_ns, last_ns[i])
    gain = 1.0 - decay
    start = 0
    for i in range(n):
        width = n - i
        if seen[i]:
            row, counts, z_i = cross[start : start + width], bars[start : start + width], z[i]
            others, kept, there = z[i:], keep[i:], seen[i:]
            for j in range(width):
                row[j] = kept[j] * row[j] + gain * (z_i * others[j])
            for j in range(width):
                counts[j] += there[j] * (counts[j] < MOST_BARS)
        start += width
    return int(oldest_ns)
