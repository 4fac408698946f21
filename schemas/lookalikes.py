"""Guesses what a refused record is; the hint in the error text tells the sender what to change."""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

CONFLUENT_BYTES: Final = 5
"""Length of the prefix: a zero byte and a schema id of four bytes."""
UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
UTF8_MARK: Final = b"\xef\xbb\xbf"
ENVELOPE: Final = ("before", "after")
TIMES: Final = ("timestamp", "timestamp_ms", "time", "ts")


def of_bytes(raw: bytes) -> str:
    """Return a hint about bytes that are not JSON, or "".

    >>> of_bytes(bytes([0, 0, 0, 0, 42]) + b"{}")
    "; it looks like Confluent's wire format with schema id 42: send plain JSON, without the registry's serializer"
    """
    if raw.startswith(UTF16_MARKS) or _of_two_bytes(raw):
        return "; it looks like UTF-16: send UTF-8"
    if raw[:1] == b"\0" and len(raw) > CONFLUENT_BYTES:
        schema = int.from_bytes(raw[1:CONFLUENT_BYTES], "big")
        return (
            f"; it looks like Confluent's wire format with schema id {schema}: send plain JSON, without the registry's "
            "serializer"
        )
    if raw.startswith(UTF8_MARK):
        return "; it begins with a byte order mark: omit it"
    return ""


def _of_two_bytes(raw: bytes) -> bool:
    """Return whether the first two characters have two bytes, one of them zero: UTF-16 without a mark."""
    return (
        len(raw) > 3
        and (raw[0] == 0) != (raw[1] == 0)
        and [each == 0 for each in raw[:2]] == [each == 0 for each in raw[2:4]]
    )


def of_object(tree: dict[str, Any], field: str) -> str:
    """Return a hint about an object in which `field` is missing, or ""."""
    payload = tree.get("payload")
    inner = payload if isinstance(payload, dict) and "schema" in tree else tree
    if "op" in inner and any(name in inner for name in ENVELOPE):
        return "; it looks like a Debezium envelope: send the content of after (ExtractNewRecordState)"
    if inner is not tree:
        return "; it looks like Kafka Connect's JSON with a schema: send the content of payload (schemas.enable=false)"
    if field == "timestamp_ns":
        named = next((name for name in TIMES if name in tree), None)
        if named is not None:
            return f"; there is {named}: send nanoseconds since 1970 as timestamp_ns"
    return ""


def infinite(text: str) -> tuple[str, str] | None:
    """Return path and text of the first non-finite number in a record that is otherwise valid JSON.

    >>> infinite('{"ticks": [{"price": 1}, {"price": NaN}]}'), infinite('{"a": {"b": [1, 1e400]}}'), infinite("{]")
    (('ticks[1].price', 'NaN'), ('a.b.1', '1e400'), None)
    """
    found = next(_places(text), None)
    if found is None:
        return None
    path, literal = found
    return (_of_a_tick(path) if path[:1] == ("ticks",) else ".".join(path)), literal


def infinite_ticks(text: str) -> dict[int, tuple[str, str]] | None:
    """Return path and text of the first non-finite number of each tick that has one, by the tick's place.

    None where the record has one elsewhere.

    >>> infinite_ticks('{"ticks": [{"price": 1}, {"price": NaN}]}'), infinite_ticks('{"ticks": [], "a": NaN}')
    ({1: ('price', 'NaN')}, None)
    """
    found: dict[int, tuple[str, str]] = {}
    for path, literal in _places(text):
        if len(path) < 2 or path[0] != "ticks" or not path[1].isdecimal():
            return None
        found.setdefault(int(path[1]), (".".join(path[2:]), literal))
    return found


def _places(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield path and text of each non-finite number in a record; of none in what is not JSON."""

    def take(literal: str) -> Any:
        return literal if math.isfinite(float(literal)) else _Infinite(literal)

    try:
        tree = json.loads(text, parse_constant=_Infinite, parse_float=take, parse_int=take)
    except ValueError:
        return
    yield from _infinite_in(tree, ())


class _Infinite(str):
    """A non-finite number, as written."""

    __slots__ = ()


def _infinite_in(value: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, _Infinite):
        yield above, str(value)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from _infinite_in(each, (*above, str(name)))


def _of_a_tick(path: tuple[str, ...]) -> str:
    """Return a path in the form in which errors name one tick of many."""
    named = len(path) > 1 and path[1].isdecimal()
    return ".".join((f"ticks[{path[1]}]", *path[2:]) if named else path)
