"""A file of signals: JSON lines, CSV or Parquet, one TacticalSignal a row. Errors name file, row, field and value."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from schemas.errors import ConfigurationException, InvalidSignalException
from schemas.signal import TacticalSignal
from streams.archives.files import arrow
from streams.backtest.sources import SentSignal, check_symbol, decoded
from streams.history.candle_row import Candle
from streams.history.candles import Candles

GZIP: Final = b"\x1f\x8b"
PARQUET: Final = b"PAR1"
TEXTS: Final = frozenset({"signal_id", "portfolio_id", "strategy_id", "symbol", "action", "regime"})
"""Columns of a CSV file that stay text; the others are numbers."""
WHOLE: Final = frozenset({"timestamp_ns", "sentiment_timestamp_ns"})

SignalRow = tuple[str, Mapping[str, Any]]
"""Place, for error texts, and fields."""


class FromFile:
    """Signals that are already known, each sent one second after its time."""

    def __init__(self, signals: Sequence[SentSignal]) -> None:
        self._signals, self._next = signals, 0
        self._names = tuple(dict.fromkeys(each.message.strategy_id for each in signals))

    def names(self) -> Sequence[str]:
        """Return the strategies."""
        return self._names

    def candles(self, ended: Sequence[tuple[str, Candle]], end_ns: int) -> None:
        """Ignore candles: these signals do not follow from them."""

    def between(self, after_ns: int, until_ns: int) -> Iterator[SentSignal]:
        """Yield the next signals up to a time; those up to `after_ns` are passed over."""
        while self._next < len(self._signals) and self._signals[self._next].time_ns <= until_ns:
            found = self._signals[self._next]
            self._next += 1
            if found.time_ns > after_ns:
                yield found


def read(path: Path | str, market: Sequence[Candles], *, tolerant: bool = False) -> tuple[list[SentSignal], list[str]]:
    """Return the signals of a file in order of time, and why rows were skipped; `tolerant`: skip invalid rows.

    Raises:
        InvalidSignalException: a row is no signal, of a symbol without candles, outside their time, older than the row
            before it, or a repetition.
        ConfigurationException: the file cannot be read, or holds no row.
    """
    path = Path(path)
    return checked(_rows(path), market, str(path), tolerant=tolerant)


def checked(
    rows: Iterable[SignalRow], market: Sequence[Candles], name: str, *, tolerant: bool = False
) -> tuple[list[SentSignal], list[str]]:
    """Return the signals of rows in order of time, and why rows were skipped. Raises: as `read`."""
    rule = _Rules(market, ordered=not tolerant)
    found: list[SentSignal] = []
    skipped: list[str] = []
    for number, (place, fields) in enumerate(rows, 1):
        try:
            found.append(rule.signal(place, fields, number))
        except InvalidSignalException as error:
            if not tolerant:
                raise
            skipped.append(error.text)
    if not found:
        raise ConfigurationException(name, "", f"must hold a signal, holds none{_why(skipped)}")
    return sorted(found, key=lambda each: each.time_ns), skipped


def _why(skipped: Sequence[str]) -> str:
    return f" that is valid; the first of {len(skipped)}: {skipped[0]}" if skipped else ""


class _Rules:
    """The rules that hold between a row, the rows before it, and the candles."""

    def __init__(self, market: Sequence[Candles], *, ordered: bool) -> None:
        self._spans = {each.symbol: (each.end_ns(each.rows[0]), each.end_ns(each.rows[-1])) for each in market}
        self._ordered = ordered
        self._seen: dict[tuple[Any, ...], str] = {}
        self._last_ns, self._last_place = 0, ""

    def signal(self, place: str, fields: Mapping[str, Any], number: int) -> SentSignal:
        """Return the signal of a row. Raises: InvalidSignalException."""
        found = decoded({"signal_id": f"row-{number}", **_given(fields)}, place)
        message = found.message
        check_symbol(message.symbol, self._spans, place)
        first_ns, last_ns = self._spans[message.symbol]
        at_ns = message.timestamp_ns
        if not first_ns <= at_ns <= last_ns:
            which = "before the end of the first" if at_ns < first_ns else "after the end of the last"
            limit = first_ns if at_ns < first_ns else last_ns
            text = f"{place}: timestamp_ns: must not be {which} candle of {message.symbol}, {limit}, was {at_ns}"
            raise InvalidSignalException("out_of_range", "timestamp_ns", text)
        if self._ordered and at_ns < self._last_ns:
            text = f"{place}: timestamp_ns: must not be before that of {self._last_place}, {self._last_ns}, was {at_ns}"
            raise InvalidSignalException("inconsistent", "timestamp_ns", text)
        self._once(place, message)
        self._last_ns, self._last_place = at_ns, place
        return found

    def _once(self, place: str, message: TacticalSignal) -> None:
        cell = (message.portfolio_id, message.strategy_id, message.symbol, message.timestamp_ns)
        for key, what in (((message.portfolio_id, message.signal_id), "signal_id"), (cell, "timestamp_ns")):
            before = self._seen.setdefault(key, place)
            if before is not place:
                rule = f"must be once for a strategy and symbol, was in {before} too: {getattr(message, what)}"
                raise InvalidSignalException("repeated", what, f"{place}: {what}: {rule}")


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# -- bytes to rows -----------------------------------------------------------------------------------------------------
def _rows(path: Path) -> Iterator[SignalRow]:
    try:
        raw = path.read_bytes()
        if raw.startswith(GZIP):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        rule = f"must be a readable file: {getattr(error, 'strerror', None) or error}"
        raise ConfigurationException(str(path), "", rule) from error
    if raw.startswith(PARQUET):
        return _of_parquet(path, raw)
    return _of_lines(path, raw) if raw.lstrip()[:1] == b"{" else _of_csv(path, raw)


def _of_lines(path: Path, raw: bytes) -> Iterator[SignalRow]:
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                fields = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InvalidSignalException("not_json", "", f"{place}: must be JSON: {error}") from error
            if not isinstance(fields, dict):
                text = f"{place}: must be a JSON object, was {type(fields).__name__}"
                raise InvalidSignalException("not_an_object", "", text)
            yield place, fields


def _of_csv(path: Path, raw: bytes) -> Iterator[SignalRow]:
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
        names = reader.fieldnames or ()
        missing = [name for name in ("timestamp_ns", "strategy_id", "symbol", "action") if name not in names]
        if missing:
            rule = f"must be JSON lines, Parquet, or CSV with a header; the columns {', '.join(missing)} are missing"
            raise ConfigurationException(str(path), "", rule)
        for row in reader:
            place = f"{path}:{reader.line_num}"
            yield place, {name: _cell(name, text) for name, text in row.items() if name in TacticalSignal.model_fields}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationException(str(path), "", f"must be UTF-8 text: {error}") from error


def _cell(name: str, text: str | None) -> Any:
    """Return a cell's value; a number that is none stays text, which the message refuses."""
    if text is None or not text.strip():
        return None
    if name in TEXTS:
        return text.strip()
    try:
        return int(text) if name in WHOLE else float(text)
    except ValueError:
        return text.strip()


def _of_parquet(path: Path, raw: bytes) -> Iterator[SignalRow]:
    pa, parquet = arrow()
    try:
        table = parquet.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationException(str(path), "", f"must be readable Parquet: {error}") from error
    columns = [name for name in table.column_names if name in TacticalSignal.model_fields]
    for number, row in enumerate(table.select(columns).to_pylist(), 1):
        yield f"{path}, row {number}", row
