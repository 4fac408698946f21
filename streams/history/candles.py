"""Reads candle files in common formats: any order, times in s, ms, µs or ns, gaps, duplicate rows.

Several files of one symbol are combined (`joined`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from schemas.errors import ConfigurationException, InvalidPriceException
from streams.history.candle_row import SECOND_NS, Candle, Place, candle_of, cell, is_blank, opened_within, refuse
from streams.history.candle_table import Columns, Line, table, volume_of
from streams.history.feed import FeedEvent, event, in_order
from streams.history.file_names import ID, symbol_of

__all__ = ["Candle", "CandleFile", "Candles", "found", "joined", "merge", "read", "tick", "ticks"]

DAY_S: Final = 86_400
HOUR_S: Final = 3_600
SLACK: Final = 0.01
"""Share of the width by which a candle may open early or late, as some do by seconds after an outage."""


class CandleFile(NamedTuple):
    """Statistics of a file."""

    rows: int
    """Candles without duplicates."""
    gaps: int
    """Gaps between neighbours, each counted once whatever its length."""
    doubled: int
    """Exact duplicate rows; contradicting rows are refused."""
    skipped: int = 0
    """Invalid rows that were skipped, if that was requested."""
    blank: int = 0
    """Rows without a candle: not closed when the file was written (OKX), or all null (Yahoo)."""


class Candles(NamedTuple):
    """One symbol's candles, oldest first."""

    symbol: str
    width_s: int
    rows: list[Candle]
    found: CandleFile
    skipped: tuple[str, ...] = ()
    """Why each invalid row was skipped: file, line, rule and value."""

    def end_ns(self, candle: Candle) -> int:
        """Return when a candle ends, ns since 1970."""
        return candle.open_ns + self.width_s * SECOND_NS if candle.close_ns is None else candle.close_ns


class _Numbered(NamedTuple):
    place: Place
    candle: Candle


def read(path: Path | str, symbol: str | None = None, *, tolerant: bool = False) -> Candles:
    """Return the candles of a CSV or JSON file, compressed with gzip or not.

    Args:
        path: the file.
        symbol: symbol of the candles; None: it comes from a column, else from the file name.
        tolerant: whether invalid rows are skipped and reported, instead of refusing the file.

    Raises:
        InvalidPriceException: a row is invalid; the text names file and line, rule and value.
        ConfigurationException: the file is invalid: unreadable, no header, no symbol, fewer than two candles.
    """
    path = Path(path)
    found = table(path)
    own = _own_symbol(path, found.rows, found.columns) if symbol is None else symbol
    columns = found.columns._replace(volume=volume_of(path, found, own))
    skipped: list[str] | None = [] if tolerant else None
    rows: list[_Numbered] = []
    blank = 0
    for line, row in found.rows:
        if is_blank(row, columns):
            blank += 1
            continue
        try:
            rows.append(
                _Numbered(
                    Place(path, line), candle_of(Place(path, line), row, columns, own if symbol is None else None)
                )
            )
        except InvalidPriceException as error:
            _skip(error, skipped)
    return _arranged(own, rows, str(path), skipped, blank=blank)


def joined(files: Sequence[tuple[Path | str, Candles]]) -> list[Candles]:
    """Return the candles of each symbol: files of one symbol are combined, and rows they share count as duplicates.

    Raises:
        InvalidPriceException: two files have different candles at one time; the text names both files and the time.
        ConfigurationException: files of one symbol have candles of different widths.
    """
    by_symbol: dict[str, list[tuple[Path, Candles]]] = {}
    for path, each in files:
        by_symbol.setdefault(each.symbol, []).append((Path(path), each))
    return [same[0][1] if len(same) == 1 else _joined(symbol, same) for symbol, same in by_symbol.items()]


def found(candles: Iterable[Candles]) -> CandleFile:
    """Return the summed statistics of several files."""
    each = [one.found for one in candles]
    return CandleFile(*(sum(one[k] for one in each) for k in range(len(CandleFile._fields))))


def ticks(candles: Candles) -> Iterator[FeedEvent]:
    """Yield each candle as a price tick at its end, with its low, high and volume."""
    for candle in candles.rows:
        yield tick(candles.symbol, candles.end_ns(candle), candle)


def tick(symbol: str, end_ns: int, candle: Candle) -> FeedEvent:
    """Return a candle as a price tick at its end."""
    fields = {
        "symbol": symbol,
        "price": candle.close,
        "low": candle.low,
        "high": candle.high,
        "volume": candle.volume_coins,
    }
    return event(end_ns, "prices", symbol, fields)


def merge(candles: Sequence[Candles]) -> Iterator[FeedEvent]:
    """Yield the price ticks of all files in event-time order."""
    return in_order(ticks(each) for each in candles)


# -- the symbol ----------------------------------------------------------------------------------------------------
def _own_symbol(path: Path, rows: list[Line], columns: Columns) -> str:
    """Return the symbol from its column, else from the file name."""
    if columns.symbol is None or not rows:
        symbol = symbol_of(path)
        if not symbol:
            rule = "must have a symbol column, a name that contains the symbol, or --symbol"
            raise ConfigurationException(str(path), "", rule)
        return symbol
    line, first = rows[0]
    symbol = cell(Place(path, line), first, columns.symbol, "symbol")
    if not ID.fullmatch(symbol):
        refuse(Place(path, line), "malformed", "symbol", f"must match {ID.pattern}", symbol)
    return symbol


# -- all rows ------------------------------------------------------------------------------------------------------
def _joined(symbol: str, same: list[tuple[Path, Candles]]) -> Candles:
    """Combine several files of one symbol."""
    (first_path, first), *others = same
    for path, each in others:
        if each.width_s != first.width_s:
            rule = f"candles of {symbol} must be {first.width_s} s wide as in {first_path}, were {each.width_s} s"
            raise ConfigurationException(str(path), "", rule)
    rows = [_Numbered(Place(path, 0), candle._replace(close_ns=None)) for path, each in same for candle in each.rows]
    paths = ", ".join(str(path) for path, _ in same)
    whole = _arranged(symbol, rows, paths, None, width_ns=first.width_s * SECOND_NS)
    before = found([each for _, each in same])
    return whole._replace(
        found=before._replace(
            rows=len(whole.rows), gaps=whole.found.gaps, doubled=before.doubled + whole.found.doubled
        ),
        skipped=tuple(text for _, each in same for text in each.skipped),
    )


def _arranged(
    symbol: str, rows: Iterable[_Numbered], name: str, skipped: list[str] | None, *, blank: int = 0, width_ns: int = 0
) -> Candles:
    """Return candles in order and once each, checked against their neighbours.

    Args:
        symbol: symbol of the candles.
        rows: candles in any order.
        name: file or files for error texts.
        skipped: receives the texts of invalid rows; None: they are refused.
        blank: number of rows without a candle.
        width_ns: their width; 0: the most common distance between neighbours.
    """
    once: dict[int, _Numbered] = {}
    doubled = 0
    for each in rows:
        known = once.setdefault(each.candle.open_ns, each)
        if known is not each:
            doubled += _same(each, known, skipped)
    in_time = [once[open_ns] for open_ns in sorted(once)]
    width_ns = width_ns or _width_ns(name, [each.candle for each in in_time])
    kept = _neighbours(in_time, width_ns, skipped)
    distances = [after.open_ns - before.open_ns for before, after in pairwise(kept)]
    gaps = sum(distance > width_ns + _slack_ns(width_ns) for distance in distances)
    texts = tuple(skipped or ())
    return Candles(symbol, width_ns // SECOND_NS, kept, CandleFile(len(kept), gaps, doubled, len(texts), blank), texts)


def _same(each: _Numbered, known: _Numbered, skipped: list[str] | None) -> bool:
    """Return whether a row duplicates another one at its time; a contradicting one is refused or skipped."""
    if each.candle == known.candle:
        return True
    first = f"line {known.place.line}" if known.place.line else str(known.place)
    at = datetime.fromtimestamp(each.candle.open_ns // SECOND_NS, UTC)
    rule = f"must be the candle of {first} at the same time, {at:%Y-%m-%d %H:%M:%S} UTC, {tuple(known.candle[1:6])}"
    try:
        refuse(each.place, "inconsistent", "time", rule, str(tuple(each.candle[1:6])))
    except InvalidPriceException as error:
        _skip(error, skipped)
    return False


def _width_ns(name: str, rows: list[Candle]) -> int:
    """Return the width, which is the most common distance between neighbours."""
    distances = Counter(after.open_ns - before.open_ns for before, after in pairwise(rows))
    if not distances:
        raise ConfigurationException(name, "", f"must hold two candles or more, holds {len(rows)}")
    width_ns = min(distances, key=lambda distance: (-distances[distance], distance))
    if width_ns % SECOND_NS:
        raise ConfigurationException(name, "", f"candles must be whole seconds wide, were {width_ns} ns")
    return width_ns


def _slack_ns(width_ns: int) -> int:
    """Return by how much the distance of neighbours may differ from the width: an hour for days in local time."""
    hour_s = HOUR_S if width_ns >= DAY_S * SECOND_NS else 0
    return max(int(SLACK * width_ns), hour_s * SECOND_NS)


def _neighbours(rows: list[_Numbered], width_ns: int, skipped: list[str] | None) -> list[Candle]:
    """Return candles that do not overlap and whose open is valid; each ends where an adjacent one opens."""
    kept: list[Candle] = []
    slack_ns = _slack_ns(width_ns)
    for place, candle in rows:
        before = kept[-1] if kept else None
        try:
            whole = opened_within(place, candle, before)
            if before is not None:
                _apart(place, candle.open_ns - before.open_ns, width_ns, slack_ns)
        except InvalidPriceException as error:
            _skip(error, skipped)
            continue
        if before is not None and 0 < abs(candle.open_ns - before.open_ns - width_ns) <= slack_ns:
            kept[-1] = before._replace(close_ns=candle.open_ns)
        kept.append(whole)
    return kept


def _apart(place: Place, distance_ns: int, width_ns: int, slack_ns: int) -> None:
    if distance_ns < width_ns - slack_ns:
        rule = f"must be {width_ns // SECOND_NS} s or more after the previous candle"
        refuse(place, "inconsistent", "time", rule, f"{distance_ns / SECOND_NS:g} s")


def _skip(error: InvalidPriceException, skipped: list[str] | None) -> None:
    """Record the error of an invalid row, or raise it if rows must not be skipped."""
    if skipped is None:
        raise error
    skipped.append(error.text)
