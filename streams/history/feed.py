"""What a feeder sends: records for the input topics, each with the moment at which it is sent."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

SECOND_NS = 1_000_000_000

ORDER = ("prices", "outcomes", "cascade-indicators", "signals")
"""What is sent first of one moment: what is known before what is made of it."""


class FeedEvent(NamedTuple):
    """One record and when it is sent; no time inside `value` lies after `time_ns`."""

    time_ns: int
    topic: str
    """Logical name: `prices`, `outcomes`, `cascade-indicators` or `signals`."""
    key: bytes
    """The symbol."""
    value: bytes
    """JSON, validated by nobody yet: ingest does that, as with anybody's records."""


def event(time_ns: int, topic: str, symbol: str, fields: dict[str, Any]) -> FeedEvent:
    """Return a record of `fields`, whose `timestamp_ns` is the moment of sending unless they give one."""
    return FeedEvent(time_ns, topic, symbol.encode(), orjson.dumps({"timestamp_ns": time_ns, **fields}))


def in_order(feeds: Iterable[Iterable[FeedEvent]]) -> Iterator[FeedEvent]:
    """Yield the events of several feeds, each already in order, by time; of one moment, by `ORDER`, then by feed."""
    return heapq.merge(*feeds, key=_rank)


def sort(events: Iterable[FeedEvent]) -> list[FeedEvent]:
    """Return events by time; of one moment, by `ORDER`, then as they came."""
    return sorted(events, key=_rank)


def _rank(each: FeedEvent) -> tuple[int, int]:
    return each.time_ns, ORDER.index(each.topic)
