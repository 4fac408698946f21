"""Funding rates of a file: when, of which symbol, and what longs pay shorts."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.errors import ConfigurationException
from streams.history.candle_row import NS_PER_UNIT
from streams.history.file_names import symbol_of

TIMES: Final = ("timestamp_ns", "calc_time", "fundingtime", "funding_time", "time", "timestamp")
RATES: Final = ("funding_rate", "last_funding_rate", "fundingrate", "rate")
SYMBOLS: Final = ("symbol",)
INTERVALS: Final = ("funding_interval_hours",)
RATE_MAX: Final = 1.0


class Funding(NamedTuple):
    """One payment: longs pay `rate` of the notional, shorts receive it."""

    time_ns: int
    symbol: str
    rate: float
    interval_hours: float


def read(path: Path | str, known: Sequence[str]) -> list[Funding]:
    """Return the payments of a CSV file in order of time; symbols without candles are passed over.

    The symbol is a column, the file's name, or that of the candles if they are of one symbol. The interval is a column,
    or 8 hours.

    Raises:
        ConfigurationException: file and line, rule and value.
    """
    path = Path(path)
    rows = list(_rows(path, known))
    if not rows:
        raise ConfigurationException(str(path), "", f"must hold a funding rate of {', '.join(known)}, holds none")
    return sorted(rows)


def _rows(path: Path, known: Sequence[str]) -> Iterator[Funding]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    names = [_column(reader.fieldnames, each) for each in (TIMES, RATES, SYMBOLS, INTERVALS)]
    time, rate, symbol_name, interval = names
    if time is None or rate is None:
        rule = f"must have a header with one of {', '.join(TIMES[:3])} and one of {', '.join(RATES[:2])}"
        raise ConfigurationException(str(path), "", rule)
    for row in reader:
        symbol = row[symbol_name] if symbol_name else _named(path, known)
        found = _same(symbol, known)
        if found is None:
            continue
        place = (path, reader.line_num)
        value = _number(place, rate, row[rate])
        if not -RATE_MAX < value < RATE_MAX:
            raise _refused(place, rate, "must be a ratio between -1 and 1", row[rate])
        hours = _number(place, interval, row[interval]) if interval else 8.0
        yield Funding(_time(place, time, row[time]), found, value, hours)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        rule = f"must be a readable CSV file: {getattr(error, 'strerror', None) or error}"
        raise ConfigurationException(str(path), "", rule) from error


def _column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _named(path: Path, known: Sequence[str]) -> str:
    """Return the symbol of a file without a column for it."""
    if len(known) == 1:
        return known[0]
    name = _letters(path.name)
    begun = [each for each in known if name.startswith(_letters(each))]
    return max(begun, key=len, default=symbol_of(path))


def _same(symbol: str, known: Sequence[str]) -> str | None:
    """Return the symbol of the candles that means the same: BTCUSDT is BTC/USDT and BTC-USDT."""
    letters = _letters(symbol)
    return next((each for each in known if _letters(each) == letters), None)


def _letters(symbol: str) -> str:
    return "".join(each for each in symbol.upper() if each.isalnum())


def _number(place: tuple[Path, int], name: str, text: Any) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise _refused(place, name, "must be a number", text) from None
    if value != value:  # noqa: PLR0124 NaN
        raise _refused(place, name, "must be a number", text)
    return value


def _time(place: tuple[Path, int], name: str, text: Any) -> int:
    """Return a time in ns; its magnitude says whether it is in s, ms, µs or ns."""
    value = _number(place, name, text)
    whole = int(str(text)) if str(text).strip().isdecimal() else int(value)
    found = next((whole * unit for below, unit in NS_PER_UNIT if 0 < whole < below), None)
    if found is None:
        raise _refused(place, name, "must be s, ms, µs or ns since 1970", text)
    return found


def _refused(place: tuple[Path, int], name: str, rule: str, text: Any) -> ConfigurationException:
    path, line = place
    return ConfigurationException(f"{path}:{line}", name, f"{rule}, was {str(text)[:60]!r}")
