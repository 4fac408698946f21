"""Strict decoding and encoding of messages.

A record is UTF-8 and one JSON object, without repeated keys, NaN or infinity, and within the limits of size and depth.
Unknown fields are ignored, but the same rules hold for them.

orjson refuses infinities and NaN, but not repeated keys or depth. Two cheap sufficient checks save most records a
second parse (`_is_shallow`, `_has_no_doubles`); a record with a backslash is always parsed again.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import orjson
from pydantic import ValidationError

from schemas.base import RECORD_BYTES_MAX, Message
from schemas.errors import InvalidMessage, UnwritableMessage
from schemas.lookalikes import infinite, infinite_ticks, of_bytes, of_object
from schemas.price import RAW_TICKS, TICKS, PlainTick, PriceTick, PriceTicks, descends
from schemas.rules import FIELD_CHARS_MAX, Fault, first, shown

M = TypeVar("M", bound=Message)


class RecordLimits(NamedTuple):
    """Largest size and depth of a record; an object of plain values has depth 1."""

    bytes_max: int = RECORD_BYTES_MAX
    depth_max: int = 8


WIRE = RecordLimits()
JOURNAL = RecordLimits(bytes_max=9 * 1_048_576)


def decode(model: type[M], raw: bytes | None, *, place: str, limits: RecordLimits | None = None) -> M:
    """Return the message in a record; `place` names the record in error texts, `limits` override the model's.

    Raises:
        InvalidMessage: the subclass that the model names, for the first broken rule.
    """
    tree = _object(model, raw, place, limits or RecordLimits(bytes_max=model.bytes_max))
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _refused(model, place, _with_hint(first(error), tree)) from None


class RefusedTick(NamedTuple):
    """An invalid tick in a message of many."""

    number: int
    """Index in the message, from 0."""
    error: InvalidMessage


class Ticks(NamedTuple):
    """The ticks of one record of `prices`."""

    ticks: list[PlainTick]
    """Valid ticks, in order."""
    numbers: Sequence[int]
    """Index of each valid tick in the message, from 0."""
    refused: list[RefusedTick]
    """Invalid ticks, in order."""
    many: bool
    """Whether the record has a "ticks" array."""


def decode_ticks(raw: bytes | None, *, place: str, limits: RecordLimits = WIRE) -> Ticks:
    """Return the ticks of one record of `prices`: one tick, or many under "ticks". Each bad one is refused by itself.

    Ticks with NaN or an infinity make a record that is not JSON; where nothing else is wrong, the others are returned.

    Raises:
        InvalidPriceException: the record is not a JSON object, its only tick is invalid, or "ticks" is not an array
            of 1 to 10,000.
    """
    try:
        tree = _object(PriceTick, raw, place, limits)
    except InvalidMessage as error:
        return _finite_ones(raw or b"", error, place)
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
    return _one_by_one(tree, place, {})


def decode_prices(raw: bytes | None, *, place: str, limits: RecordLimits = WIRE) -> list[PlainTick]:
    """Return the ticks of one record of `prices` in which every tick is valid.

    Raises:
        InvalidPriceException: for the first invalid tick, or for the record.
    """
    found = decode_ticks(raw, place=place, limits=limits)
    if found.refused:
        raise found.refused[0].error
    return found.ticks


def _finite_ones(raw: bytes, error: InvalidMessage, place: str) -> Ticks:
    """Return the ticks of an unreadable message if it is only some ticks that hold NaN or an infinity.

    Raises:
        InvalidMessage: `error`, if it is anything else.
    """
    if error.code != "not_finite":
        raise error
    text = raw.decode()
    refused = infinite_ticks(text)
    tree = json.loads(text, parse_int=_number) if refused and not _doubled(text) else {}
    if not refused or type(tree) is not dict or "ticks" not in tree or "price" in tree:
        raise error
    faults = {
        number: Fault("not_finite", at, f"must be finite, was {shown(was)}") for number, (at, was) in refused.items()
    }
    return _one_by_one(tree, place, faults)


def _number(digits: str) -> float:
    """Return an integer as JSON has it; one beyond every float is infinite."""
    return int(digits) if len(digits) < _DIGITS_MAX else math.inf


def _one_by_one(tree: dict[str, Any], place: str, faults: Mapping[int, Fault]) -> Ticks:
    """Return the ticks of a message in which at least one is invalid; `faults`: of those that are known to be."""
    try:
        raw_ticks = RAW_TICKS.validate_python(tree)["ticks"]
    except ValidationError as error:
        raise _refused(PriceTicks, place, first(error)) from None
    good, refused = {}, []
    for number, raw_tick in enumerate(raw_ticks):
        tick = faults.get(number) or _tick(raw_tick)
        if isinstance(tick, Fault):
            refused.append(RefusedTick(number, refused_tick(number, tick, place=place)))
        else:
            good[number] = tick
    return Ticks(list(good.values()), list(good), refused, many=True)


def _tick(raw_tick: Any) -> PlainTick | Fault:
    """Return the tick, or the first rule that it breaks."""
    try:
        return cast("PlainTick", PriceTick.model_validate(raw_tick).model_dump())
    except ValidationError as error:
        return first(error)


def refused_tick(number: int | None, fault: Fault, *, place: str) -> InvalidMessage:
    """Return the error for an invalid tick; in a message of many (`number`) its field is named "ticks[3].price"."""
    if number is None:
        return _refused(PriceTick, place, fault)
    field = f"ticks[{number}].{fault.field}" if fault.field else f"ticks[{number}]"
    return _refused(PriceTick, place, fault._replace(field=field))


def decode_ours(model: type[M], raw: bytes, *, place: str) -> M:
    """Return a message that this package wrote: `decode` without the checks for repeated keys and depth.

    Raises:
        InvalidMessage: the subclass that the model names.
    """
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _refused(model, place, _why_unreadable(raw, JOURNAL, error)) from None
    return validate(model, tree, place=place)


def validate(model: type[M], tree: object, *, place: str) -> M:
    """Return the message in a parsed JSON object: the second half of `decode`.

    Raises:
        InvalidMessage: the subclass that the model names, for the first broken rule.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _refused(model, place, first(error)) from None


def check_time(message: Message, timestamp_ns: int, latest_ns: int, *, place: str) -> None:
    """Refuse a message whose event time is after `latest_ns`.

    Raises:
        InvalidMessage: the subclass that the message's model names, with code `in_future`.
    """
    if timestamp_ns > latest_ns:
        ahead_s = (timestamp_ns - latest_ns) / 1e9
        rule = f"must not be ahead of the clock, was {ahead_s:.3f} s past the limit"
        raise _refused(type(message), place, Fault("in_future", "timestamp_ns", rule))


def check_age(message: Message, timestamp_ns: int, earliest_ns: int, *, place: str) -> None:
    """Refuse a message whose event time lies before `earliest_ns`.

    Raises:
        InvalidMessage: the subclass that the message's model names, with code `too_old`.
    """
    if timestamp_ns < earliest_ns:
        late_s = (earliest_ns - timestamp_ns) / 1e9
        rule = f"must not be so far in the past, was {late_s:.0f} s before the limit"
        raise _refused(type(message), place, Fault("too_old", "timestamp_ns", rule))


def encode(message: Message | dict[str, Any]) -> bytes:
    """Return the JSON of a message (without fields that are None) or of a plain object, keys sorted.

    Raises:
        UnwritableMessage: NaN, infinity, or a type without a JSON equivalent.
    """
    plain = message.model_dump(exclude_none=True) if isinstance(message, Message) else message
    try:
        value = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        msg = f"cannot be written as JSON: {error}"
        raise UnwritableMessage(msg) from error
    if b"null" in value:  # orjson silently writes NaN as null
        _refuse_nan(plain, "")
    return value


# -- reading -------------------------------------------------------------------------------------------------------
def _object(model: type[Message], raw: bytes | None, place: str, limits: RecordLimits) -> dict[str, Any]:
    tree = _parsed(raw, limits)
    if type(tree) is not dict:
        raise _refused(model, place, tree if isinstance(tree, Fault) else _not_an_object(tree))
    return tree


def _parsed(raw: bytes | None, limits: RecordLimits) -> Any:
    """Return the JSON value, or the rule that the bytes break."""
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
    """Return True only if the record, which has no backslash, is within the depth limit; False is not conclusive.

    Each pass removes empty bracket pairs, so at most one level. A string that contains a bracket keeps its quotes,
    so the result is False then.
    """
    brackets = raw.translate(None, _NO_BRACKETS).replace(b'""', b"")
    for level in range(limits.depth_max):
        brackets = brackets.replace(*_PAIRS[level % 2])
        if not brackets:
            return True
    return False


def _has_no_doubles(raw: bytes, tree: Any) -> bool:
    """Return whether a record without backslashes kept all its keys: a dropped duplicate leaves fewer colons."""
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
    """Return the fault; if a field is missing, with a hint about what the record looks like."""
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


_DIGITS_MAX = 300
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_PAIRS = ((b"{}", b""), (b"[]", b""))
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")
