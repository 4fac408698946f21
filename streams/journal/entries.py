"""Journal entries: from a source record to permanent bytes, and from those to what sizing folds."""

from base64 import b64encode
from typing import Any, NamedTuple

import orjson

from engines.handlers.effects import Journaled
from streams.processing.ports import Headers

TOPIC = "journal"


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


def read(offset: int, raw: bytes) -> Journaled:
    """Return an entry as sizing folds it.

    Raises:
        orjson.JSONDecodeError, KeyError: the record is not an entry: the log is not a journal.
    """
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
