"""Journal entries: from a source record to permanent bytes, and from those to what sizing folds."""

from base64 import b64encode
from typing import Any, NamedTuple

import orjson

from engines.handlers.effects import Journaled
from schemas.errors import StrayRecord
from streams.processing.ports import Headers

TOPIC = "journal"
REASON_CHARS = 200


class SourcePlace(NamedTuple):
    """The place of a source record."""

    topic: str
    """Logical name."""
    epoch: int
    partition: int
    offset: int


def entry(
    kind: str,
    value: str,
    journaled_at_ns: int,
    *,
    event_time_ns: int,
    place: SourcePlace | None = None,
    key: bytes | None = None,
    headers: Headers = (),
) -> bytes:
    """Return the bytes of one entry: the original value unchanged, key and headers in base64.

    A header without a value, which Kafka allows, is journaled as an empty one.
    """
    return orjson.dumps(
        {
            "event_time_ns": event_time_ns,
            "headers": [[name, b64encode(text or b"").decode()] for name, text in headers],
            "journaled_at_ns": journaled_at_ns,
            "key": None if key is None else b64encode(key).decode(),
            "kind": kind,
            "source": None if place is None else place._asdict(),
            "value": value,
        },
        option=orjson.OPT_SORT_KEYS,
    )


def internal(kind: str, body: dict[str, Any], journaled_at_ns: int, event_time_ns: int | None = None) -> bytes:
    """Return an entry without a source record."""
    value = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
    return entry(
        kind, value, journaled_at_ns, event_time_ns=journaled_at_ns if event_time_ns is None else event_time_ns
    )


def read(offset: int, raw: bytes | None, partition: int | None = None) -> Journaled:
    """Return an entry as sizing folds it.

    Raises:
        StrayRecord: the record is not an entry. It names the partition if that is given.
    """
    try:
        return _read(offset, raw or b"")
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise stray(partition, offset, error) from error


def stray(partition: int | None, offset: int, why: object) -> StrayRecord:
    """Return the error that names a record which no worker wrote, and what to run."""
    reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    place = f"{TOPIC} partition {'?' if partition is None else partition}, offset {offset}"
    return StrayRecord(
        f"{place}: not an entry of a worker ({reason[:REASON_CHARS]}); nothing of it is folded. To see it: himari "
        f"journal show {'P' if partition is None else partition} {offset}; what to do: docs/errors.md, a stray record"
    )


def _read(offset: int, raw: bytes) -> Journaled:
    fields = orjson.loads(raw)
    source = fields["source"]
    body = orjson.loads(fields["value"])
    if source is None:
        return Journaled(offset, fields["kind"], "", 0, 0, 0, fields["journaled_at_ns"], body, raw)
    return Journaled(
        offset,
        fields["kind"],
        source["topic"],
        source["epoch"],
        source["partition"],
        source["offset"],
        fields["journaled_at_ns"],
        body,
        raw,
    )
