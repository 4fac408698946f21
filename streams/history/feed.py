"""Feed events: records for the input topics, each with its send time."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

SECOND_NS = 1_000_000_000

ORDER = ("prices", "outcomes", "cascade-indicators", "signals")
"""Send order of events at the same time: data before the signals derived from it."""


class FeedEvent(NamedTuple):
    """One record and its send time; no time inside `value` is later than `time_ns`."""

    time_ns: int
    topic: str
    """Logical name: `prices`, `outcomes`, `cascade-indicators` or `signals`."""
    key: bytes
    """The symbol."""
    value: bytes
    """JSON, not yet validated; ingest validates it like any other record."""


def event(time_ns: int, topic: str, symbol: str, fields: dict[str, Any]) -> FeedEvent:
    """Return a record of `fields`; `timestamp_ns` defaults to the send time."""
    return FeedEvent(time_ns, topic, symbol.encode(), orjson.dumps({"timestamp_ns": time_ns, **fields}))


def in_order(feeds: Iterable[Iterable[FeedEvent]]) -> Iterator[FeedEvent]:
    """Merge sorted feeds by time; ties by `ORDER`, then by feed."""
    return heapq.merge(*feeds, key=_rank)


def sort(events: Iterable[FeedEvent]) -> list[FeedEvent]:
    """Return events sorted by time; ties by `ORDER`, then in input order."""
    return sorted(events, key=_rank)


def _rank(each: FeedEvent) -> tuple[int, int]:
    return each.time_ns, ORDER.index(each.topic)
