"""One row of a candle file: converts cells to numbers; errors name file and line, rule and value."""

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from schemas.errors import InvalidPriceException
from schemas.vocabulary import ErrorCode
from streams.history.candle_table import PRICES, Columns

SECOND_NS: Final = 1_000_000_000
NS_PER_UNIT: Final = ((10**11, SECOND_NS), (10**14, 1_000_000), (10**17, 1_000), (10**20, 1))
"""(upper bound, ns per unit): s, ms, µs, ns. The ranges do not overlap between 1973 and 5138."""
TIME_MIN_NS, TIME_MAX_NS = 10**18, 41 * 10**17
GROUPED: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{3})*(,[0-9]+)?|[0-9]+(,[0-9]+)?")
"""A number with a decimal comma and optional dots between thousands: 43.000,50."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Candle(NamedTuple):
    """One symbol from `open_ns` to `open_ns` + width. It is known at its end, not earlier."""

    open_ns: int
    open: float
    high: float
    low: float
    close: float
    volume_coins: float
    close_ns: int | None = None
    """When it ended, if not one width after it opened, as on a day with 23 or 25 hours."""


class Place(NamedTuple):
    """Position of a row."""

    path: Path
    line: int
    """0 if the line is no longer known."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else str(self.path)


def is_blank(row: list[str], columns: Columns) -> bool:
    """Return whether a row has no candle: it is not closed yet, or all prices are null."""
    if columns.confirm is not None and row[columns.confirm : columns.confirm + 1] == ["0"]:
        return True
    return all(row[index : index + 1] == ["null"] for index in columns.prices)


def candle_of(place: Place, row: list[str], columns: Columns, symbol: str | None) -> Candle:
    """Return the candle of a row; `symbol` is the required value of the symbol column, None if it is not checked.

    The open is not checked against low and high here: in some files it is the previous close (see `opened_within`).

    Raises:
        InvalidPriceException: file and line, rule and value.
    """
    if symbol is not None and columns.symbol is not None:
        found = cell(place, row, columns.symbol, "symbol")
        if found != symbol:
            refuse(place, "inconsistent", "symbol", f"must be one symbol a file, {symbol}", found)
    open_ns = _time(place, cell(place, row, columns.time, "time"))
    open_, high, low, close = (
        _number(place, row, index, name, columns) for name, index in zip(PRICES, columns.prices, strict=True)
    )
    volume = _number(place, row, columns.volume, "volume", columns)
    if low <= 0:
        refuse(place, "out_of_range", "low", "must be positive", row[columns.prices[2]])
    if volume < 0:
        refuse(place, "out_of_range", "volume", "must not be negative", row[columns.volume])
    if not low <= close <= high:
        outside(place, ", ".join(row[index] for index in columns.prices))
    return Candle(open_ns, open_, high, low, close, volume / close if columns.volume_in_usd else volume)


def opened_within(place: Place, candle: Candle, before: Candle | None) -> Candle:
    """Return a candle whose open lies between its low and high.

    BitMEX gives the previous close as the open, traded or not; such an open is moved to the nearest traded price.

    Raises:
        InvalidPriceException: it lies outside, and is not the previous close.
    """
    if candle.low <= candle.open <= candle.high:
        return candle
    if before is None or before.close != candle.open:
        outside(place, ", ".join(f"{price:g}" for price in candle[1:5]))
    return candle._replace(open=min(max(candle.open, candle.low), candle.high))


def outside(place: Place, prices: str) -> NoReturn:
    """Refuse a row whose open or close is not between low and high."""
    refuse(place, "inconsistent", "low", "open and close must lie between low and high", prices)


def refuse(place: Place, code: ErrorCode, field: str, rule: str, value: str) -> NoReturn:
    """Refuse a row. Raises: InvalidPriceException: always."""
    raise InvalidPriceException(code, field, f"{place}: {field}: {rule}, was {value[:60]!r}")


def cell(place: Place, row: list[str], index: int, name: str) -> str:
    """Return a cell that is not empty."""
    if index >= len(row) or not row[index]:
        refuse(place, "missing", name, "must be given", "")
    return row[index]


def _time(place: Place, text: str) -> int:
    """Return a time in ns. The unit follows from the magnitude, row by row, since some files change it midway."""
    ns = _of_date(place, text) if "-" in text[1:] or ":" in text else _of_number(place, text)
    if not TIME_MIN_NS <= ns <= TIME_MAX_NS:
        refuse(place, "timestamp_unit", "time", "must be s, ms or µs since 1970, between 2001 and 2099", text)
    return ns


def _of_number(place: Place, text: str) -> int:
    whole, _, fraction = text.partition(".")
    if not (whole.isascii() and whole.isdecimal()) or fraction.strip("0"):
        rule = "must be a whole number of s, ms or µs since 1970, or an ISO 8601 date"
        refuse(place, "wrong_type", "time", rule, text)
    value = int(whole)
    return next((value * unit for below, unit in NS_PER_UNIT if value < below), TIME_MAX_NS + 1)


def _of_date(place: Place, text: str) -> int:
    """Return the time of an ISO 8601 date, with or without a time of day; UTC if it has no offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        refuse(
            place, "wrong_type", "time", "must be a whole number of s, ms or µs since 1970, or an ISO 8601 date", text
        )
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _number(place: Place, row: list[str], index: int, name: str, columns: Columns) -> float:
    text = cell(place, row, index, name)
    plain = text
    if columns.decimal_comma:
        if not GROUPED.fullmatch(text):
            refuse(place, "wrong_type", name, "must be a number with a decimal comma, like the others", text)
        plain = text.replace(".", "").replace(",", ".")
    try:
        value = float(plain)
    except ValueError:
        refuse(place, "wrong_type", name, "must be a number", text)
    if not math.isfinite(value):
        refuse(place, "not_finite", name, "must be finite", text)
    return value
