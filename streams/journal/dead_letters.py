"""Dead letters: a refused record, byte for byte, with headers that name place, rule and value; and its replay."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from schemas import dead_letter as schema
from schemas.base import RECORD_BYTES_MAX
from schemas.dead_letter import DeadLetter, headers_of
from schemas.errors import InvalidMessage
from schemas.wire import RefusedTick
from streams.journal.entries import SourcePlace
from streams.journal.topics import DLQ, KIB, ROOM
from streams.processing.ports import Headers, Record, Send
from streams.reports.weight_history import instant

REPLAY_OF = "himari.replay.of"
"""Header of a replayed record: the place of its dead letter, topic/partition/offset."""
CUT = "himari.error.cut"
"""Header of a dead letter that was truncated: its original size, and the digest of its value."""
LETTER_BYTES_MAX = 2 * RECORD_BYTES_MAX - ROOM
KEPT_BYTES = 64 * KIB
"""Bytes of key and of value that a truncated letter keeps, from their beginnings."""
LETTERS_BYTES_MAX = 8 * 1024 * KIB
"""Maximum size of all the letters of one record."""
MILLISECOND_NS = 1_000_000


def dead_letter(place: SourcePlace, record: Record, error: InvalidMessage, tick: int | None = None) -> Send:
    """Return the dead letter of a refused source record, or of one refused tick of it."""
    return letter(place, record.key, record.value, record.headers, error, tick)


def tick_letters(place: SourcePlace, record: Record, refused: Sequence[RefusedTick]) -> list[Send]:
    """Return a dead letter for each refused tick of a record, each with the whole record.

    Together they have at most `LETTERS_BYTES_MAX`, or are one letter: a large record of bad ticks would otherwise
    become gigabytes. If some ticks have no letter of their own, the text of the last letter gives their number.
    """
    room = max(LETTERS_BYTES_MAX // max(size_of(record.key, record.value, record.headers), 1), 1)
    shown, left = refused[:room], len(refused) - room
    letters = [dead_letter(place, record, error, index) for index, error in shown[:-1]]
    for index, error in shown[-1:]:
        more = f"; {left} more ticks of the record are refused, without a letter of their own" if left > 0 else ""
        last = type(error)(error.code, error.field, error.text + more)
        letters.append(dead_letter(place, record, last, index))
    return letters


def letter(
    place: SourcePlace,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    error: InvalidMessage,
    tick: int | None = None,
) -> Send:
    """Return a dead letter made of the original key, value and headers.

    A record that exceeds the limit of its dead-letter topic (compressed, it passed the source's limit) is truncated,
    and a header says so; the source topic holds the complete record until retention deletes it.
    """
    why = headers_of(error, place.topic, place.partition, place.offset, tick)
    size = size_of(key, value, headers)
    if size > LETTER_BYTES_MAX:
        digest = hashlib.sha256(value or b"").hexdigest()
        headers = ((CUT, f"{size} bytes, value {len(value or b'')} with sha256 {digest}".encode()),)
        key, value = key and key[:KEPT_BYTES], value and value[:KEPT_BYTES]
    return Send(f"{place.topic}{DLQ}", None, key, value, (*headers, *why))


def size_of(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the size of a record in bytes, without its frame."""
    of_headers = sum(len(name.encode()) + len(text or b"") for name, text in headers)
    return len(key or b"") + len(value or b"") + of_headers


class Letter(NamedTuple):
    """One dead letter in its topic."""

    topic: str
    """Logical name of the topic of the refused record: "signals"."""
    partition: int
    """Of the dead-letter topic, as is `offset`."""
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def place(self) -> str:
        """Its place: "signals.dlq/0/7"."""
        return f"{self.topic}{DLQ}/{self.partition}/{self.offset}"

    @property
    def why(self) -> DeadLetter | None:
        """The reason in its headers, None if they were not written by this product."""
        return schema.read(self.headers)


def again(found: Letter, partitions: int) -> Send:
    """Return a dead letter's record for its original topic, unchanged except for a header that names the letter.

    It goes to its original partition if that still exists: `prices` needs that.
    """
    why = found.why
    partition = None if why is None or why.partition >= partitions else why.partition
    headers = (*schema.original(found.headers), (REPLAY_OF, found.place.encode()))
    return Send(found.topic, partition, found.key, found.value, headers)


# -- replays --------------------------------------------------------------------------------------------------------
def replayed(headers: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """Yield the places of the dead letters that a record replays: more than one if a replay was refused."""
    for name, value in headers:
        if name == REPLAY_OF:
            yield (value or b"").decode(errors="replace")


def headers_in(fields: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Return the headers of the source record behind a journal entry."""
    return [(name, base64.b64decode(value)) for name, value in fields["headers"]]


# -- display ---------------------------------------------------------------------------------------------------------
def summary(found: Letter) -> dict[str, Any]:
    """Return a dead letter's place, time and reason as plain JSON values; the reason is null if it has none of ours."""
    why = found.why
    return {
        "topic": f"{found.topic}{DLQ}",
        "partition": found.partition,
        "offset": found.offset,
        "time": instant(found.timestamp_ms * MILLISECOND_NS),
        "code": None if why is None else why.code,
        "field": None if why is None else why.field,
        "message": None if why is None else why.message,
    }


def whole(found: Letter) -> dict[str, Any]:
    """Return a complete dead letter as plain JSON values; `value` is null if the bytes are not UTF-8 text."""
    why = found.why
    source = None if why is None else {"topic": why.topic, "partition": why.partition, "offset": why.offset}
    return {
        **summary(found),
        "exception": None if why is None else why.exception,
        "source": source,
        "key": _text(found.key),
        "value": _text(found.value),
        "value_base64": None if found.value is None else base64.b64encode(found.value).decode(),
        "headers": [[name, (value or b"").decode(errors="backslashreplace")] for name, value in found.headers],
    }


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def line(found: Letter) -> str:
    """Return a dead letter in one line."""
    row = summary(found)
    why = f"{row['code'] or 'no reason given'} {row['field'] or '-'}: {row['message']}"
    return f"{row['time']} {found.place} {why}"


def lines(found: Letter) -> Iterator[str]:
    """Yield a complete dead letter as lines; bytes that are not text are escaped, other escapes are the printer's.

    The lines of its value are indented, so that none of them looks like one of ours.
    """
    yield line(found)
    yield f"key: {_escaped(found.key)}"
    yield "headers:"
    for name, value in found.headers:
        yield f"  {name}: {_escaped(value)}"
    yield "value:"
    for each in _escaped(found.value).split("\n"):
        yield f"  {each}"


def _escaped(raw: bytes | None) -> str:
    return "(none)" if raw is None else raw.decode(errors="backslashreplace")
