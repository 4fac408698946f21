"""Moments of the symbols' bar returns: what correlations are made of.

Returns of a bar are standardised by the volatility known before it, and the products of each pair that traded in the
bar enter its EWMA; the pairs of a missing symbol stay as they are. Symbols come and go: a new one blocks nobody, and
one that trades no more is forgotten by event time.

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
"""A return beyond is no return; its square would not be finite."""
MOST_BARS: Final = 65_535
"""Bars are counted up to here, which is for ever at any decay allowed."""
PART_BYTES: Final = 240_000
"""Longest part of a checkpoint; a whole number of elements of every kind."""
TRIANGLES: Final = (("cross", "<f8"), ("bars", "<u2"), ("high", "|u1"))
"""Triangles of a checkpoint, and how their elements are written."""


@dataclass(slots=True, eq=False)
class Moments:
    """What bars have said so far of n symbols; numbers of pairs are upper triangles, row by row, diagonal included.

    Its owner alone changes it, through the functions here, and never hands out its arrays.
    """

    symbols: tuple[str, ...]
    """Ascending; their order is the order of every row and column."""
    bar_end_ns: int
    """End of the newest bar."""
    last_ns: Times
    """(n,) end of the last bar that each symbol traded in."""
    variances: Floats
    """(n,) EWMA of squared returns; 0 until a price has moved."""
    cross: Floats
    """(n(n+1)/2,) EWMA of the products of standardised returns, from 0."""
    bars: CountMatrix
    """(n(n+1)/2,) bars that moved each pair."""
    high: Flags
    """(n(n+1)/2,) 1 where a pair's alert is raised."""


def begin() -> Moments:
    """Return what is known before the first bar: no symbol."""
    nothing = np.zeros(0)
    return Moments((), 0, np.zeros(0, np.int64), nothing, nothing.copy(), np.zeros(0, np.uint16), np.zeros(0, np.uint8))


def observe(moments: Moments, bar_end_ns: int, returns: Mapping[str, float], params: CorrelationParams) -> None:
    """Take one closed bar. O(n²), in place.

    A symbol not seen before is added, and forgotten when it has had no bar for `inactive_after_s` of event time. A
    return that is not a finite number counts as missing. Time does not go back: an older bar is taken as one of now.

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
    """Return the returns in the order of the symbols, those not seen before added; NaN where missing."""
    row = list(map(returns.get, moments.symbols))
    if len(row) - row.count(None) < len(returns):
        add(moments, returns, moments.bar_end_ns)
        row = list(map(returns.get, moments.symbols))
    return np.array(row, np.float64)  # None becomes NaN


def add(moments: Moments, symbols: Iterable[str], now_ns: int) -> None:
    """Add symbols of which nothing is known but that they are there now; those already there stay as they are."""
    _arrange(moments, tuple(sorted({*moments.symbols, *symbols})), now_ns)


def remove(moments: Moments, symbols: Iterable[str]) -> None:
    """Forget symbols; those not there are passed over."""
    gone = frozenset(symbols)
    _arrange(moments, tuple(symbol for symbol in moments.symbols if symbol not in gone), moments.bar_end_ns)


def _arrange(moments: Moments, symbols: tuple[str, ...], now_ns: int) -> None:
    """Make room for these symbols, ascending, and for no other."""
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
    """Return the moments as named parts of at most 240,000 bytes: a head in JSON, the triangles raw, little-endian."""
    head = [moments.bar_end_ns, moments.symbols, moments.last_ns.tolist(), moments.variances.tolist()]
    parts = {"head": orjson.dumps(head)}
    for name, kind in TRIANGLES:
        written = getattr(moments, name).astype(kind).tobytes()
        for start in range(0, len(written), PART_BYTES):
            parts[f"{name}-{start // PART_BYTES}"] = written[start : start + PART_BYTES]
    return parts


def from_parts(parts: Mapping[str, bytes]) -> Moments:
    """Return the moments that `to_parts` wrote, to the bit; parts of a larger earlier checkpoint are passed over.

    Raises:
        ProcessorStopped: a part is missing or of another length than the head says.
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
    """Return a triangle put together from its parts."""
    pieces = -(-size * np.dtype(kind).itemsize // PART_BYTES)
    written = b"".join(parts.get(f"{name}-{piece}", b"") for piece in range(pieces))
    if len(written) != size * np.dtype(kind).itemsize:
        raise ProcessorStopped(
            f"checkpoint of correlations: {name} must hold {size} elements, had {len(written)} bytes"
        )
    return np.ndarray((size,), kind, written)


@compiled
def _carry(old: NDArray[Any], n: int, places: Times, new: NDArray[Any]) -> None:
    """Copy a triangle of n rows into one of other rows; places: the old row of each new one, ascending, or -1."""
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
    """Move variances and pairs by one bar's returns, NaN where missing; return the oldest `last_ns`.

    A pair that is not present moves by the factor 1 and the product 0, which changes no bit and spares a branch.
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
