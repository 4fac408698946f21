"""Reads candle files in common formats: any order, times in s, ms, µs or ns, gaps, duplicate rows.

Source: CryptoDataDownload's files, and `timestamp,open,high,low,close,volume` in ms.
"""

import csv
import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from schemas.errors import ConfigurationException, InvalidPriceException
from schemas.vocabulary import ErrorCode
from streams.history.feed import FeedEvent, event, in_order

SECOND_NS = 1_000_000_000
TIMES = ("unix", "timestamp", "time", "open_time", "open time", "unix timestamp", "timestamp_ms")
SYMBOLS = ("symbol", "pair", "ticker")
PRICES = ("open", "high", "low", "close")
PREAMBLE_LINES = 10
"""Lines that are searched for a header."""
NS_PER_UNIT = ((10**11, SECOND_NS), (10**14, 1_000_000), (10**17, 1_000), (10**20, 1))
"""(upper bound, ns per unit): s, ms, µs, ns. The ranges do not overlap between 1973 and 5138."""
TIME_MIN_NS, TIME_MAX_NS = 10**18, 41 * 10**17
ID = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class Candle(NamedTuple):
    """One symbol from `open_ns` to `open_ns` + width. It is known at its end, not earlier."""

    open_ns: int
    open: float
    high: float
    low: float
    close: float
    volume_coins: float


class CandleFile(NamedTuple):
    """Statistics of a file."""

    rows: int
    """Candles without duplicates."""
    gaps: int
    """Gaps between neighbours, each counted once whatever its length."""
    doubled: int
    """Exact duplicate rows; contradicting rows are refused."""


class Candles(NamedTuple):
    """One symbol's candles, oldest first."""

    symbol: str
    width_s: int
    rows: list[Candle]
    found: CandleFile

    def end_ns(self, candle: Candle) -> int:
        """Return when a candle ends, ns since 1970."""
        return candle.open_ns + self.width_s * SECOND_NS


class _Columns(NamedTuple):
    time: int
    prices: tuple[int, ...]
    volume: int
    symbol: int | None


def read(path: Path | str) -> Candles:
    """Return the candles of a `.csv` or `.csv.gz` file; the symbol comes from a column, else from the file name.

    Raises:
        InvalidPriceException: a row is invalid; the text names file and line, rule and value.
        ConfigurationException: the file is invalid: unreadable, no header, no symbol, fewer than two candles.
    """
    path = Path(path)
    lines = list(_lines(path))
    start, columns, volume_names = _header(path, lines)
    symbol = _symbol(path, lines[start + 1 :], columns)
    columns = columns._replace(volume=_volume(path, volume_names, symbol))
    numbered: dict[int, tuple[int, Candle]] = {}
    doubled = 0
    for line, row in lines[start + 1 :]:
        candle = _candle(path, line, row, columns, symbol)
        known = numbered.setdefault(candle.open_ns, (line, candle))
        if known[0] != line:
            _same(path, line, candle, *known)
            doubled += 1
    rows = [numbered[open_ns][1] for open_ns in sorted(numbered)]
    width_ns, gaps = _spacing(path, rows, numbered)
    return Candles(symbol, width_ns // SECOND_NS, rows, CandleFile(len(rows), gaps, doubled))


def found(candles: Iterable[Candles]) -> CandleFile:
    """Return the summed statistics of several files."""
    each = [one.found for one in candles]
    return CandleFile(sum(one.rows for one in each), sum(one.gaps for one in each), sum(one.doubled for one in each))


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


# -- the file ------------------------------------------------------------------------------------------------------
def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each line that is not empty."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if zipped
            else path.open(encoding="utf-8-sig", newline="") as text
        ):
            reader = csv.reader(text)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigurationException(str(path), "", f"must be a readable CSV file: {why}") from error


def _header(path: Path, lines: list[tuple[int, list[str]]]) -> tuple[int, _Columns, dict[str, int]]:
    """Return the index of the header, its columns (volume still open), and the volume columns by coin."""
    for index, (_, row) in enumerate(lines[:PREAMBLE_LINES]):
        names = [cell.lower() for cell in row]
        time = next((names.index(name) for name in TIMES if name in names), None)
        if time is None or not set(PRICES) <= set(names):
            continue
        symbol = next((names.index(name) for name in SYMBOLS if name in names), None)
        volumes = {name.removeprefix("volume").strip(" _()"): k for k, name in enumerate(names) if "volume" in name}
        return index, _Columns(time, tuple(map(names.index, PRICES)), -1, symbol), volumes
    rule = f"must have a header with one of {', '.join(TIMES[:3])} and {', '.join(PRICES)} in its first lines"
    raise ConfigurationException(str(path), "", rule)


def _symbol(path: Path, lines: list[tuple[int, list[str]]], columns: _Columns) -> str:
    """Return the symbol from its column, else from the file name."""
    if columns.symbol is None or not lines:
        return _named(path)
    line, first = lines[0]
    symbol = _cell(path, line, first, columns.symbol, "symbol")
    if not ID.fullmatch(symbol):
        _refuse(path, line, "malformed", "symbol", f"must match {ID.pattern}", symbol)
    return symbol


def _named(path: Path) -> str:
    """Return the symbol in a file's name: `BTCUSDT_1h_2020.csv.gz`, `Binance_BTCUSDT_1h.csv`, `BTC-USD.csv`."""
    parts = path.name.split(".csv")[0].split("_")
    symbol = next((part for part in parts if part.isupper() and len(part) > 3), parts[0])
    if not ID.fullmatch(symbol):
        raise ConfigurationException(str(path), "", "must have a symbol column, or a name that begins with the symbol")
    return symbol


def _volume(path: Path, volumes: dict[str, int], symbol: str) -> int:
    """Return the column of the volume in coins: `volume`, or the one named after the symbol's coin."""
    named = [coin for coin in volumes if not coin or symbol.lower().startswith(coin)]
    if not named:
        rule = f"must have a volume in coins of {symbol}, has {', '.join(map(repr, volumes)) or 'none'}"
        raise ConfigurationException(str(path), "volume", rule)
    return volumes[max(named, key=len)]


# -- one row -------------------------------------------------------------------------------------------------------
def _candle(path: Path, line: int, row: list[str], columns: _Columns, symbol: str) -> Candle:
    if columns.symbol is not None and _cell(path, line, row, columns.symbol, "symbol") != symbol:
        rule = f"must be one symbol a file, {symbol}"
        _refuse(path, line, "inconsistent", "symbol", rule, row[columns.symbol])
    open_ns = _time(path, line, _cell(path, line, row, columns.time, "time"))
    open_, high, low, close = (
        _number(path, line, row, index, name) for name, index in zip(PRICES, columns.prices, strict=True)
    )
    volume = _number(path, line, row, columns.volume, "volume")
    if low <= 0:
        _refuse(path, line, "out_of_range", "low", "must be positive", row[columns.prices[2]])
    if volume < 0:
        _refuse(path, line, "out_of_range", "volume", "must not be negative", row[columns.volume])
    if not low <= min(open_, close) <= max(open_, close) <= high:
        prices = ", ".join(row[index] for index in columns.prices)
        _refuse(path, line, "inconsistent", "low", "open and close must lie between low and high", prices)
    return Candle(open_ns, open_, high, low, close, volume)


def _cell(path: Path, line: int, row: list[str], index: int, name: str) -> str:
    if index >= len(row) or not row[index]:
        _refuse(path, line, "missing", name, "must be given", "")
    return row[index]


def _time(path: Path, line: int, text: str) -> int:
    """Return a time in ns. The unit follows from the magnitude, row by row, since some files change it midway."""
    whole, _, fraction = text.partition(".")
    if not (whole.isascii() and whole.isdecimal()) or fraction.strip("0"):
        _refuse(path, line, "wrong_type", "time", "must be a whole number of s, ms or µs since 1970", text)
    value = int(whole)
    ns = next((value * unit for below, unit in NS_PER_UNIT if value < below), TIME_MAX_NS + 1)
    if not TIME_MIN_NS <= ns <= TIME_MAX_NS:
        _refuse(path, line, "timestamp_unit", "time", "must be s, ms or µs since 1970, between 2001 and 2099", text)
    return ns


def _number(path: Path, line: int, row: list[str], index: int, name: str) -> float:
    text = _cell(path, line, row, index, name)
    try:
        value = float(text)
    except ValueError:
        _refuse(path, line, "wrong_type", name, "must be a number", text)
    if not math.isfinite(value):
        _refuse(path, line, "not_finite", name, "must be finite", text)
    return value


def _refuse(path: Path, line: int, code: ErrorCode, field: str, rule: str, value: str) -> NoReturn:
    raise InvalidPriceException(code, field, f"{path}:{line}: {field}: {rule}, was {value[:60]!r}")


# -- all rows ------------------------------------------------------------------------------------------------------
def _same(path: Path, line: int, candle: Candle, first_line: int, first: Candle) -> None:
    if candle != first:
        rule = f"must be the candle of line {first_line} at the same time, {tuple(first[1:])}"
        _refuse(path, line, "inconsistent", "time", rule, str(tuple(candle[1:])))


def _spacing(path: Path, rows: list[Candle], numbered: dict[int, tuple[int, Candle]]) -> tuple[int, int]:
    """Return the width, which is the most common distance between neighbours, and the number of gaps."""
    distances = Counter(after.open_ns - before.open_ns for before, after in pairwise(rows))
    if not distances:
        raise ConfigurationException(str(path), "", f"must hold two candles or more, holds {len(rows)}")
    width_ns = min(distances, key=lambda distance: (-distances[distance], distance))
    if width_ns % SECOND_NS:
        raise ConfigurationException(str(path), "", f"candles must be whole seconds wide, were {width_ns} ns")
    for before, after in pairwise(rows):
        if after.open_ns - before.open_ns < width_ns:
            rule = f"must be {width_ns // SECOND_NS} s or more after the previous candle"
            late_s = (after.open_ns - before.open_ns) / SECOND_NS
            _refuse(path, numbered[after.open_ns][0], "inconsistent", "time", rule, f"{late_s:g} s")
    return width_ns, sum(count for distance, count in distances.items() if distance > width_ns)
