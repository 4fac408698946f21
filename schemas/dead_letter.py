"""Dead letters: the record as it came, and headers that say what was wrong with it."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidMessage
from schemas.units import Index, Offset
from schemas.vocabulary import ErrorCode

EXCEPTION = "__streams.errors.exception"
MESSAGE = "__streams.errors.message"
TOPIC = "__streams.errors.topic"
PARTITION = "__streams.errors.partition"
OFFSET = "__streams.errors.offset"
CODE = "himari.error.code"
FIELD = "himari.error.field"
TICK = "himari.error.tick"
"""Of one tick of many: its place among them, from 0. Before the others, where it is there."""
NAMES = (EXCEPTION, MESSAGE, TOPIC, PARTITION, OFFSET, CODE, FIELD)

Headers = Sequence[tuple[str, bytes]]


class DeadLetter(Message):
    """What the headers of a record on `<topic>.dlq` say."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidMessage

    exception: str = Field(description="Class of the error.")
    message: str = Field(description="Place, rule and value.")
    topic: str = Field(description="Where the record was read.")
    partition: Index = Field(description="Its partition there.")
    offset: Offset = Field(description="Its offset there.")
    code: ErrorCode = Field(description="What kind of error.")
    field: str = Field(description="Dotted path of the field, empty where the whole record is meant.")
    tick: Index | None = Field(
        None, description="Of a message of many ticks: the one that was refused, from 0; the others count."
    )


def headers_of(
    error: InvalidMessage, topic: str, partition: int, offset: int, tick: int | None = None
) -> list[tuple[str, bytes]]:
    """Return the headers that tell what was wrong with a record, or one tick of it, to stand after its own."""
    which = [] if tick is None else [(TICK, str(tick).encode())]
    texts = (type(error).__name__, error.text, topic, str(partition), str(offset), error.code, error.field)
    return [*which, *((name, text.encode(errors="replace")) for name, text in zip(NAMES, texts, strict=True))]


def original(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the record's own headers: all before ours, which stand at the end."""
    own = len(headers) - len(NAMES)
    if tuple(name for name, _ in headers[max(own, 0) :]) != NAMES:
        return list(headers)
    return list(headers[: own - _names_a_tick(headers, own)])


def _names_a_tick(headers: Headers, own: int) -> bool:
    """Return whether the header before ours is ours as well: it names the tick that the field is in."""
    if not own or headers[own - 1][0] != TICK:
        return False
    return (headers[-1][1] or b"").startswith(b"ticks[%s]" % (headers[own - 1][1] or b""))


def read(headers: Iterable[tuple[str, bytes]]) -> DeadLetter | None:
    """Return what a dead letter's headers say, or None where they are not all there or say what we never would."""
    told = {name: (value or b"").decode(errors="replace") for name, value in headers if name in {*NAMES, TICK}}
    which = told.pop(TICK, "")
    if len(told) < len(NAMES):
        return None
    exception, message, topic, partition, offset, code, field = (told[name] for name in NAMES)
    try:
        return DeadLetter.model_validate(
            {
                "exception": exception,
                "message": message,
                "topic": topic,
                "partition": int(partition),
                "offset": int(offset),
                "code": code,
                "field": field,
                "tick": int(which) if field.startswith(f"ticks[{which}]") else None,
            }
        )
    except ValueError:
        return None
