"""Reads allocations from a cluster: each once, all portfolios in order of time, or the newest of one portfolio."""

import heapq
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import orjson
from aiokafka import TopicPartition

from schemas.errors import NotFound
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.processing.partitioner import partition_of
from streams.processing.ports import Record
from streams.reports.allocation_reader import AllocationReader

WINDOW = 1_000
"""Records searched for a portfolio's newest allocation, from the end; then ten times as many, and so on."""

AllocationFields = dict[str, Any]
Stream = AsyncGenerator[AllocationFields, None]
"""Allocations one by one; close it if it is not read to its end, so that its consumer disconnects."""


async def allocations(connection: Connection, names: Names, portfolio: str | None = None, since_ns: int = 0) -> Stream:
    """Yield each allocation once, of all portfolios or of one, in order of decision time.

    `since_ns`: earlier ones may be left out; most of them are not read.

    Raises:
        NotFound: `since_ns` is given and the portfolio has no allocation.
        TopicsUnfit: there is no such topic.
        AllocationFork, AllocationGap: the log is inconsistent.
    """
    every = await places(connection, names)
    asked = every if portfolio is None else [every[partition_of(portfolio.encode(), len(every))]]
    if portfolio is not None and since_ns:
        await newest(connection, names, portfolio)
    firsts = [await first_since(connection, place, since_ns) if since_ns else 0 for place in asked]
    logs = [read.records(connection, place, first) for place, first in zip(asked, firsts, strict=True)]
    async with aclosing(merged([taken(records, portfolio) for records in logs])) as found:
        async for fields in found:
            yield fields


async def first_since(connection: Connection, place: TopicPartition, since_ns: int) -> int:
    """Return an offset below which every allocation was decided before a time.

    Journal time increases along the partition, except for copies that a worker has published again: hence the margin
    of one window. Kafka's timestamps do not help, because a journal may use another clock.
    """
    low, high = await read.first_offset(connection, place), (await read.high_watermarks(connection, [place]))[place]
    while high - low > WINDOW:
        middle = (low + high) // 2
        found = [record async for record in read.records(connection, place, middle, middle + 1)]
        if found and _decided_ns(found[0].value, since_ns) < since_ns:
            low = middle
        else:
            high = middle
    return max(0, low - WINDOW)


def _decided_ns(value: bytes | None, unknown: int) -> int:
    """Return the decision time of an allocation, `unknown` if the record is not one."""
    try:
        return int(orjson.loads(value or b"")["timestamp_ns"])
    except (KeyError, TypeError, ValueError):
        return unknown


async def newest(connection: Connection, names: Names, portfolio: str) -> AllocationFields:
    """Return a portfolio's newest allocation.

    Raises:
        NotFound: it has none.
        TopicsUnfit, AllocationFork, AllocationGap: as `allocations`.
    """
    every = await places(connection, names)
    place = every[partition_of(portfolio.encode(), len(every))]
    end, window = (await read.high_watermarks(connection, [place]))[place], WINDOW
    while True:
        first = max(0, end - window)
        found = [fields async for fields in taken(read.records(connection, place, first, end), portfolio)]
        if found:
            return found[-1]
        if first == 0:
            msg = f"portfolio {portfolio} has no allocation in {place.topic}[{place.partition}]"
            raise NotFound(msg)
        window *= 10


async def places(connection: Connection, names: Names) -> list[TopicPartition]:
    """Return the partitions of `allocations`.

    Raises:
        TopicsUnfit: there is no such topic.
    """
    return await read.places(connection, names.topic("allocations"))


async def taken(records: AsyncGenerator[Record, None], portfolio: str | None) -> Stream:
    """Yield each allocation of one partition once, of all portfolios or of one."""
    reader = AllocationReader()
    async with aclosing(records):
        async for record in records:
            value = record.value or b""
            if portfolio is not None and orjson.loads(value)["portfolio_id"] != portfolio:
                continue
            allocation = reader.take(value)
            if allocation is not None:
                yield allocation.fields


async def merged(streams: Sequence[Stream]) -> Stream:
    """Merge streams, each in order of time, into one in order of time; equal times in the order of the streams."""
    heads: list[tuple[int, int, AllocationFields]] = []

    async def advance(number: int) -> None:
        fields = await anext(streams[number], None)
        if fields is not None:
            heapq.heappush(heads, (fields["timestamp_ns"], number, fields))

    async with AsyncExitStack() as open_streams:
        for number, stream in enumerate(streams):
            await open_streams.enter_async_context(aclosing(stream))
            await advance(number)
        while heads:
            _, number, fields = heapq.heappop(heads)
            yield fields
            await advance(number)
