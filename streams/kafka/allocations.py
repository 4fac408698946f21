"""Allocations out of a cluster: by the reader's rule, all portfolios in one order of time, or the newest of one."""

import heapq
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import orjson
from aiokafka import TopicPartition

from schemas.errors import NotFound
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.partitioner import partition_of
from streams.ports import Record
from streams.reader import AllocationReader
from streams.topics import Names

WINDOW = 1_000
"""Records that are looked through for a portfolio's newest, from the end; then ten times as many, and so on."""

Fields = dict[str, Any]
Stream = AsyncGenerator[Fields, None]
"""Allocations one by one; whoever stops before its end closes it, so that its consumer leaves the broker."""


async def allocations(connection: Connection, names: Names, portfolio: str | None = None) -> Stream:
    """Yield each allocation once, of all portfolios or of one, by the time it was decided at.

    Raises:
        TopicsUnfit: there is no such topic.
        AllocationFork, AllocationGap: the log does not hold what it should.
    """
    every = await places(connection, names)
    asked = every if portfolio is None else [every[partition_of(portfolio.encode(), len(every))]]
    async with aclosing(merged([taken(read.records(connection, place, 0), portfolio) for place in asked])) as found:
        async for fields in found:
            yield fields


async def newest(connection: Connection, names: Names, portfolio: str) -> Fields:
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
    """Yield what the reader's rule takes of one partition, of all portfolios or of one."""
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
    """Yield what several streams hold, each in order of its times, in one order of time; equal times in their order."""
    heads: list[tuple[int, int, Fields]] = []

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
