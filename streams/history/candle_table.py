"""A candle file as a table: detects the delimiter, the header and the columns.

Source: files of Binance Vision, TradingView, Kaiko, CryptoDataDownload, Kraken, OKX, Yahoo and freqtrade.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from schemas.errors import ConfigurationException
from streams.history.file_names import is_coin_of

TIMES: Final = (
    "unix",
    "timestamp",
    "time",
    "open_time",
    "open time",
    "unix timestamp",
    "timestamp_ms",
    "ts",
    "datetime",
    "date",
)
"""In order of precedence: some files have a date beside a numeric time."""
SYMBOLS: Final = ("symbol", "pair", "ticker")
PRICES: Final = ("open", "high", "low", "close")
PREAMBLE_LINES: Final = 10
"""Lines that are searched for a header."""
DELIMITERS: Final = (",", ";", "\t")
HEADERLESS: Final = (6, 7, 12)
"""Column counts of files without a header: time, open, high, low, close, volume; Kraken adds 1, Binance Vision 6."""
GZIP: Final = b"\x1f\x8b"
FOREIGN: Final = {
    b"PK\x03\x04": "it is a zip archive; unpack it first",
    b"PAR1": "it is a Parquet file; write it as CSV",
}
"""First bytes of a format that is not read → why."""
BYTES_MAX: Final = 256 * 2**20
"""Largest file, unpacked: five years of one-minute candles."""
ROWS_MAX: Final = 4_000_000
"""Largest number of rows, so that short ones need no more memory than candles."""

Line = tuple[int, list[str]]
"""Line number (in JSON the position in the array, from 1) and cells."""


class Columns(NamedTuple):
    """Column indices."""

    time: int
    prices: tuple[int, ...]
    volume: int
    symbol: int | None = None
    confirm: int | None = None
    """OKX: 0 if the candle is not closed yet."""
    volume_in_usd: bool = False
    """Yahoo gives the volume in the quote currency."""
    decimal_comma: bool = False


class CandleTable(NamedTuple):
    """The rows and columns of a file."""

    rows: list[Line]
    columns: Columns
    """The volume column is still open."""
    volumes: Mapping[str, int]
    """Volume columns by the rest of their name, without "volume"."""


def table(path: Path) -> CandleTable:
    """Return a file's rows and columns.

    Raises:
        ConfigurationException: it is unreadable, or has no known header.
    """
    raw = _bytes(path)
    if raw.lstrip()[:1] in {b"[", b"{"}:
        return _headed(path, _of_json(path, raw), ",")
    try:
        text = raw.decode("utf-8-sig")
        for delimiter in DELIMITERS:
            lines = list(_of_csv(text, delimiter))
            if _header_of(lines) is not None or _headerless(lines):
                return _headed(path, lines, delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, str(error)) from error
    return _headed(path, [], ",")


def volume_of(path: Path, found: CandleTable, symbol: str) -> int:
    """Return the column of the volume in coins: `volume`, else the one named after the symbol's coin.

    Raises:
        ConfigurationException: there is none.
    """
    volumes = found.volumes
    if "vol" in volumes:  # OKX: contracts, except on the spot market
        derivative = symbol.upper().endswith("-SWAP") or symbol[-6:].isdecimal()
        return volumes["volccy" if derivative and "volccy" in volumes else "vol"]
    if "" in volumes:
        return volumes[""]
    named = [coin for coin in volumes if is_coin_of(coin, symbol)]
    if not named:
        rule = f"must have a volume in coins of {symbol}, has {', '.join(map(repr, volumes)) or 'none'}"
        raise ConfigurationException(str(path), "volume", rule)
    return volumes[max(named, key=len)]


# -- bytes to lines ------------------------------------------------------------------------------------------------
def _bytes(path: Path) -> bytes:
    """Return a file's bytes, unpacked; reading stops at the limit, whatever a compressed file claims."""
    try:
        with path.open("rb") as file:
            packed = file.peek(len(GZIP)).startswith(GZIP)
            with gzip.open(file) if packed else file as source:
                raw = source.read(BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    if len(raw) > BYTES_MAX:
        raise _unreadable(path, f"it must have at most {BYTES_MAX:,} bytes{', unpacked' if packed else ''}")
    for start, why in FOREIGN.items():
        if raw.startswith(start):
            raise _unreadable(path, why)
    return raw


def _of_csv(text: str, delimiter: str) -> Iterator[Line]:
    """Yield each line that is not empty. Raises: csv.Error if there are too many."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = 0
    for row in reader:
        if any(cell.strip() for cell in row):
            rows += 1
            if rows > ROWS_MAX:
                msg = f"it must have at most {ROWS_MAX:,} rows"
                raise csv.Error(msg)
            yield reader.line_num, [cell.strip() for cell in row]


def _of_json(path: Path, raw: bytes) -> list[Line]:
    """Return the lines of an array of arrays (ccxt, freqtrade), or of objects, whose names become the header."""
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _unreadable(path, f"JSON: {error}") from error
    if not isinstance(tree, list) or not all(isinstance(each, list | dict) for each in tree):
        raise _unreadable(path, "JSON must be an array of candles, each an array or an object")
    header = list(tree[0]) if tree and isinstance(tree[0], dict) else None
    lines: list[Line] = [] if header is None else [(0, header)]
    for number, each in enumerate(tree, 1):
        cells = each if isinstance(each, list) else [each.get(name) for name in header or each]
        lines.append((number, [_cell(value) for value in cells]))
    return lines


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _unreadable(path: Path, why: str) -> ConfigurationException:
    return ConfigurationException(str(path), "", f"must be a readable CSV or JSON file: {why}")


# -- lines to a table ----------------------------------------------------------------------------------------------
def _headed(path: Path, lines: list[Line], delimiter: str) -> CandleTable:
    if _headerless(lines):
        return CandleTable(lines, _foreign(Columns(0, (1, 2, 3, 4), -1), lines, delimiter), {"": 5})
    index = _header_of(lines)
    if index is None:
        rule = f"must have a header with one of {', '.join(TIMES[:3])} and {', '.join(PRICES)} in its first lines"
        raise ConfigurationException(str(path), "", rule)
    names = [cell.lower() for cell in lines[index][1]]
    rows = lines[index + 1 :]
    columns = Columns(
        next(names.index(name) for name in TIMES if name in names),
        tuple(map(names.index, PRICES)),
        -1,
        next((names.index(name) for name in SYMBOLS if name in names), None),
        names.index("confirm") if "confirm" in names else None,
        "adj close" in names,
    )
    return CandleTable(rows, _foreign(columns, rows, delimiter), _volumes(names))


def _header_of(lines: list[Line]) -> int | None:
    """Return the index of the header, None if there is none."""
    for index, (_, row) in enumerate(lines[:PREAMBLE_LINES]):
        names = {cell.lower() for cell in row}
        if names & set(TIMES) and set(PRICES) <= names:
            return index
    return None


def _headerless(lines: list[Line]) -> bool:
    """Return whether the first line is a candle: only numbers, as many as in known files without a header."""
    if not lines or len(lines[0][1]) not in HEADERLESS:
        return False
    return all(cell.replace(".", "", 1).isdecimal() for cell in lines[0][1][:5])


def _volumes(names: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        if "volume" in name:
            found.setdefault(name.removeprefix("volume").strip(" _()"), index)
    if "" not in found:
        found |= {name: names.index(name) for name in ("vol", "volccy") if name in names}
    return found


def _foreign(columns: Columns, rows: list[Line], delimiter: str) -> Columns:
    """Return the columns with the number format: a comma that is not the delimiter is the decimal separator."""
    comma = delimiter != "," and any("," in row[k] for _, row in rows for k in columns.prices if k < len(row))
    return columns._replace(decimal_comma=comma)
