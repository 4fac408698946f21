"""Dead letters: the original record, plus headers that describe the error."""

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
"""Index of the refused tick in a message of many, from 0. If present, it precedes the other headers."""
NAMES = (EXCEPTION, MESSAGE, TOPIC, PARTITION, OFFSET, CODE, FIELD)

Headers = Sequence[tuple[str, bytes]]


class DeadLetter(Message):
    """The error headers of a record on `<topic>.dlq`."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidMessage

    exception: str = Field(description="Class of the error.")
    message: str = Field(description="Place, rule and value.")
    topic: str = Field(description="Topic that the record was read from.")
    partition: Index = Field(description="Partition of that topic.")
    offset: Offset = Field(description="Offset in that partition.")
    code: ErrorCode = Field(description="Error code.")
    field: str = Field(description="Dotted path of the field; empty if the error concerns the whole record.")
    tick: Index | None = Field(
        None, description="In a message of many ticks: index of the refused one, from 0; the others are used."
    )


def headers_of(
    error: InvalidMessage, topic: str, partition: int, offset: int, tick: int | None = None
) -> list[tuple[str, bytes]]:
    """Return the error headers for a record, or one tick of it; they are appended to the record's own headers."""
    which = [] if tick is None else [(TICK, str(tick).encode())]
    texts = (type(error).__name__, error.text, topic, str(partition), str(offset), error.code, error.field)
    return [*which, *((name, text.encode(errors="replace")) for name, text in zip(NAMES, texts, strict=True))]


def original(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the record's own headers, without the error headers at the end."""
    own = len(headers) - len(NAMES)
    if tuple(name for name, _ in headers[max(own, 0) :]) != NAMES:
        return list(headers)
    return list(headers[: own - _names_a_tick(headers, own)])


def _names_a_tick(headers: Headers, own: int) -> bool:
    """Return whether the header before the error headers is the tick index, which has to agree with the field."""
    if not own or headers[own - 1][0] != TICK:
        return False
    return (headers[-1][1] or b"").startswith(b"ticks[%s]" % (headers[own - 1][1] or b""))


def read(headers: Iterable[tuple[str, bytes]]) -> DeadLetter | None:
    """Return a dead letter's error headers, or None if one is missing or has a value that is never written."""
    values = {name: (value or b"").decode(errors="replace") for name, value in headers if name in {*NAMES, TICK}}
    which = values.pop(TICK, "")
    if len(values) < len(NAMES):
        return None
    exception, message, topic, partition, offset, code, field = (values[name] for name in NAMES)
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
