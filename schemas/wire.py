"""Bytes to messages and back, strictly.

A record is UTF-8, one JSON object, with no key twice, no NaN or infinity, not larger and not deeper than the limits.
Fields that nobody knows are ignored, but those rules hold for them too.

orjson refuses infinities and NaN by itself, but neither a key given twice nor depth. Two cheap certificates spare
most records a second parse (see `_is_shallow` and `_has_no_doubles`); a record with a backslash gets none.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import orjson
from pydantic import ValidationError

from schemas.base import Message
from schemas.errors import InvalidMessage, UnwritableMessage
from schemas.lookalikes import infinite, of_bytes, of_object
from schemas.price import RAW_TICKS, TICKS, PlainTick, PriceTick, PriceTicks, descends
from schemas.rules import FIELD_CHARS_MAX, Fault, first, shown

M = TypeVar("M", bound=Message)


class RecordLimits(NamedTuple):
    """How large and how deep a record may be; an object of plain values has depth 1."""

    bytes_max: int = 1_048_576
    depth_max: int = 8


WIRE = RecordLimits()
JOURNAL = RecordLimits(bytes_max=9 * 1_048_576)


def decode(model: type[M], raw: bytes | None, *, place: str, limits: RecordLimits = WIRE) -> M:
    """Return the message that a record holds; `place` says in the error's text where the record lies.

    Raises:
        InvalidMessage: the subclass that the model names; the first broken rule decides.
    """
    tree = _object(model, raw, place, limits)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _refused(model, place, _with_hint(first(error), tree)) from None


class RefusedTick(NamedTuple):
    """One tick of a message of many that cannot be used."""

    number: int
    """Its place among them, from 0."""
    error: InvalidMessage


class Ticks(NamedTuple):
    """The ticks of one record of `prices`."""

    ticks: list[PlainTick]
    """Those that are good, in their order."""
    numbers: Sequence[int]
    """The place of each among all, from 0."""
    refused: list[RefusedTick]
    """In their order."""
    many: bool
    """Whether they came under "ticks"."""


def decode_ticks(raw: bytes | None, *, place: str, limits: RecordLimits = WIRE) -> Ticks:
    """Return the ticks of one record of `prices`, which holds one tick, or many under "ticks"; a bad one stands alone.

    Raises:
        InvalidPriceException: no tick of the record can be told: it is no JSON object, its one tick is bad, or what
            stands under "ticks" is no list of 1 to 10,000.
    """
    tree = _object(PriceTick, raw, place, limits)
    many = "ticks" in tree
    if many and "price" in tree:
        rule = "must not stand beside price: a record holds one tick, or many under ticks"
        raise _refused(PriceTicks, place, Fault("inconsistent", "ticks", rule))
    try:
        ticks = TICKS.validate_python(tree["ticks"] if many else [tree])
    except ValidationError:
        ticks = []
    if ticks and not any(map(descends, ticks)):
        return Ticks(ticks, range(len(ticks)), [], many)
    if not many:
        tick = _tick(tree)
        if isinstance(tick, Fault):
            raise _refused(PriceTick, place, _with_hint(tick, tree))
        return Ticks([tick], (0,), [], many)
    return _one_by_one(tree, place)


def decode_prices(raw: bytes | None, *, place: str, limits: RecordLimits = WIRE) -> list[PlainTick]:
    """Return the ticks of one record of `prices` that is good as a whole.

    Raises:
        InvalidPriceException: for the first tick that is bad, or the record.
    """
    found = decode_ticks(raw, place=place, limits=limits)
    if found.refused:
        raise found.refused[0].error
    return found.ticks


def _one_by_one(tree: dict[str, Any], place: str) -> Ticks:
    """Return ticks of which at least one is bad."""
    try:
        raw_ticks = RAW_TICKS.validate_python(tree)["ticks"]
    except ValidationError as error:
        raise _refused(PriceTicks, place, first(error)) from None
    good, refused = {}, []
    for number, raw_tick in enumerate(raw_ticks):
        tick = _tick(raw_tick)
        if isinstance(tick, Fault):
            refused.append(RefusedTick(number, refused_tick(number, tick, place=place)))
        else:
            good[number] = tick
    return Ticks(list(good.values()), list(good), refused, many=True)


def _tick(raw_tick: Any) -> PlainTick | Fault:
    """Return a tick, or the first rule that it breaks."""
    try:
        return cast("PlainTick", PriceTick.model_validate(raw_tick).model_dump())
    except ValidationError as error:
        return first(error)


def refused_tick(number: int | None, fault: Fault, *, place: str) -> InvalidMessage:
    """Return why one tick is refused; of many (`number`), its field is named by its place: "ticks[3].price"."""
    if number is None:
        return _refused(PriceTick, place, fault)
    field = f"ticks[{number}].{fault.field}" if fault.field else f"ticks[{number}]"
    return _refused(PriceTick, place, fault._replace(field=field))


def decode_ours(model: type[M], raw: bytes, *, place: str) -> M:
    """Return a message that this package wrote: like `decode`, but no double key or depth is looked for.

    Raises:
        InvalidMessage: the subclass that the model names.
    """
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _refused(model, place, _why_unreadable(raw, JOURNAL, error)) from None
    return validate(model, tree, place=place)


def validate(model: type[M], tree: object, *, place: str) -> M:
    """Return the message that a plain object holds: what `decode` does once the bytes are read.

    Raises:
        InvalidMessage: the subclass that the model names; the first broken rule decides.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _refused(model, place, first(error)) from None


def check_time(message: Message, timestamp_ns: int, latest_ns: int, *, place: str) -> None:
    """Refuse a message whose event time lies after `latest_ns`.

    Raises:
        InvalidMessage: the subclass that the message's model names, with code `in_future`.
    """
    if timestamp_ns > latest_ns:
        ahead_s = (timestamp_ns - latest_ns) / 1e9
        rule = f"must not lie ahead of the clock, was {ahead_s:.3f} s past what is allowed"
        raise _refused(type(message), place, Fault("in_future", "timestamp_ns", rule))


def check_age(message: Message, timestamp_ns: int, earliest_ns: int, *, place: str) -> None:
    """Refuse a message whose event time lies before `earliest_ns`.

    Raises:
        InvalidMessage: the subclass that the message's model names, with code `too_old`.
    """
    if timestamp_ns < earliest_ns:
        late_s = (earliest_ns - timestamp_ns) / 1e9
        rule = f"must not lie that far behind the clock, was {late_s:.0f} s before what is allowed"
        raise _refused(type(message), place, Fault("too_old", "timestamp_ns", rule))


def encode(message: Message | dict[str, Any]) -> bytes:
    """Return the bytes of a message (what is None is left out) or of a plain object, keys sorted.

    Raises:
        UnwritableMessage: NaN, infinity, or something that JSON has no type for.
    """
    plain = message.model_dump(exclude_none=True) if isinstance(message, Message) else message
    try:
        value = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        msg = f"cannot be written as JSON: {error}"
        raise UnwritableMessage(msg) from error
    if b"null" in value:  # which is how orjson writes NaN, without a word
        _refuse_nan(plain, "")
    return value


# -- reading -------------------------------------------------------------------------------------------------------
def _object(model: type[Message], raw: bytes | None, place: str, limits: RecordLimits) -> dict[str, Any]:
    tree = _parsed(raw, limits)
    if type(tree) is not dict:
        raise _refused(model, place, tree if isinstance(tree, Fault) else _not_an_object(tree))
    return tree


def _parsed(raw: bytes | None, limits: RecordLimits) -> Any:
    """Return the JSON value, or the Fault that is wrong with the bytes."""
    if not raw:
        return Fault("empty", "", "record must hold a value, was empty")
    if len(raw) > limits.bytes_max:
        return Fault("too_large", "", f"record must have at most {limits.bytes_max} bytes, was {len(raw)}")
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _why_unreadable(raw, limits, error)
    if b"\\" in raw or not (_is_shallow(raw, limits) and _has_no_doubles(raw, tree)):
        return _deepest(raw.decode(), limits) or _doubled(raw.decode()) or tree
    return tree


def _is_shallow(raw: bytes, limits: RecordLimits) -> bool:
    """Certify the depth of a record without backslashes: a strike of empty pairs takes one level at most.

    Quotes are struck once. A string that holds a bracket keeps its quote, so that nothing is certified then.
    """
    brackets = raw.translate(None, _NO_BRACKETS).replace(b'""', b"")
    for strike in range(limits.depth_max):
        brackets = brackets.replace(*_PAIRS[strike % 2])
        if not brackets:
            return True
    return False


def _has_no_doubles(raw: bytes, tree: Any) -> bool:
    """Certify that no key was dropped from a record without backslashes: a dropped one would leave fewer colons."""
    return orjson.dumps(tree).count(b":") == raw.count(b":")


def _why_unreadable(raw: bytes, limits: RecordLimits, error: orjson.JSONDecodeError) -> Fault:
    try:
        text = raw.decode()
    except UnicodeDecodeError as undecodable:
        start = undecodable.start
        rule = f"record must be UTF-8, was {raw[start : start + 4]!r} at byte {start}{of_bytes(raw)}"
        return Fault("not_utf8", "", rule)
    deep = _deepest(text, limits)
    if deep:
        return deep
    number = infinite(text)
    if number is not None:
        path, literal = number
        rule = "must be finite" if path else "record must hold finite numbers only"
        return Fault("not_finite", path[:FIELD_CHARS_MAX], f"{rule}, was {shown(literal)}")
    return Fault("not_json", "", f"record must be JSON, was {shown(text)}: {error}{of_bytes(raw)}")


def _deepest(text: str, limits: RecordLimits) -> Fault | None:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest <= limits.depth_max:
        return None
    return Fault("too_deep", "", f"record must be at most {limits.depth_max} deep, was {deepest}")


def _doubled(text: str) -> Fault | None:
    doubled: list[str] = []

    def take(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                doubled.append(key)
            seen.add(key)

    json.loads(text, object_pairs_hook=take, parse_float=str, parse_int=str)
    if not doubled:
        return None
    return Fault("duplicate_key", doubled[0][:64], "must be given once, was given twice")


def _with_hint(fault: Fault, tree: dict[str, Any]) -> Fault:
    """Return a fault that says, where a field is missing, what the record seems to be."""
    return fault._replace(rule=fault.rule + of_object(tree, fault.field)) if fault.code == "missing" else fault


def _not_an_object(tree: object) -> Fault:
    return Fault("not_an_object", "", f"record must be a JSON object, was {shown(tree)}")


def _refused(model: type[Message], place: str, fault: Fault) -> InvalidMessage:
    refused_as: type[InvalidMessage] = getattr(model, "refused_as", InvalidMessage)
    subject = f"{fault.field} {fault.rule}" if fault.field else fault.rule
    return refused_as(fault.code, fault.field, f"{place}: {subject}")


# -- writing -------------------------------------------------------------------------------------------------------
def _refuse_nan(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"{path or 'value'} must be finite, was {value}"
        raise UnwritableMessage(msg)
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_nan(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _refuse_nan(inner, f"{path}[{index}]")


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_PAIRS = ((b"{}", b""), (b"[]", b""))
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")
