"""Reads partitions without a consumer group, from an offset to the log's current end.

The end is the high watermark that Fetch reports: the embedded broker's ListOffsets(latest) is too low.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import MappingProxyType
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import NotFound, TopicsUnfit
from streams.kafka.connection import Connection, allowed, reach

FETCH_WAIT_MS = 50
"""With a shorter wait, the embedded broker returns nothing from a long log."""
FETCH_BYTES = 8 << 20
CHUNK_RECORDS = 5_000
POLL_MS = 200
NOWHERE: Mapping[TopicPartition, int] = MappingProxyType({})
APPEAR_S = 5.0
"""How long a partition may be missing: a broker that has just started does not know all of them."""


@asynccontextmanager
async def reader(connection: Connection, partitions: Sequence[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a consumer of `partitions` without a group.

    Raises:
        BrokerUnreachable: no broker answers.
        TopicsUnfit: a partition does not exist, or this user may not see it; aiokafka would wait forever.
        NotAllowed: this user may not read one.
    """
    consumer = AIOKafkaConsumer(
        **connection.reading(),
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
        max_poll_records=CHUNK_RECORDS,
    )
    try:
        await reach(consumer, connection)
        await _appear(consumer, connection, partitions)
        consumer.assign(list(partitions))
        with allowed("read"):
            yield consumer
    finally:
        await consumer.stop()


async def _appear(consumer: AIOKafkaConsumer, connection: Connection, wanted: Sequence[TopicPartition]) -> None:
    """Return once the broker knows all partitions, within `APPEAR_S`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + APPEAR_S
    while wanted:
        cluster = await _topics(consumer)
        missing = [
            place for place in wanted if place.partition not in (cluster.partitions_for_topic(place.topic) or ())
        ]
        if not missing:
            return
        if loop.time() >= deadline:
            raise _no_such(f"{missing[0].topic}[{missing[0].partition}]", "partition", connection)
        await asyncio.sleep(0.1)


async def high_watermarks(connection: Connection, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the end of each partition: the offset of its next record that is not in an open transaction."""
    if not partitions:
        return {}
    async with reader(connection, partitions) as consumer:
        return await ends(consumer, partitions)


async def first_offset(connection: Connection, partition: TopicPartition) -> int:
    """Return the offset of the first available record, or the end of an empty partition."""
    async with reader(connection, [partition]) as consumer:
        found: int = (await consumer.beginning_offsets([partition]))[partition]
        return found


async def offset_at(connection: Connection, partition: TopicPartition, time_ms: int) -> int:
    """Return the offset of the first record that is not older than a time, or the end if there is none.

    The embedded broker returns the first available offset, which is never too late.
    """
    async with reader(connection, [partition]) as consumer:
        found = (await consumer.offsets_for_times({partition: max(0, time_ms)}))[partition]
        return int(found.offset) if found is not None else (await ends(consumer, [partition]))[partition]


async def newest(connection: Connection, partition: TopicPartition) -> bytes | None:
    """Return the value of the last record, None if it is a tombstone: the value of a compacted one-key partition."""
    return (await newest_of(connection, [partition]))[partition]


async def partitions(client: Any, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic, empty if it is missing; `client` is a started consumer."""
    cluster = await _topics(client)
    return [TopicPartition(topic, partition) for partition in sorted(cluster.partitions_for_topic(topic) or ())]


async def _topics(client: Any) -> Any:
    """Return the metadata of all topics.

    All are requested: a name would create the topic on the embedded broker, and aiokafka's own metadata covers only the
    topics it is subscribed to.
    """
    return await client._client.fetch_all_metadata()  # noqa: SLF001 the consumer shows only its subscription


async def places(connection: Connection, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic.

    Raises:
        TopicsUnfit: there is no such topic, or none that this user may see: Kafka does not distinguish the two.
    """
    return (await places_of(connection, [topic]))[topic]


async def places_of(connection: Connection, topics: Iterable[str]) -> dict[str, list[TopicPartition]]:
    """Return the partitions of each of several topics.

    Raises:
        TopicsUnfit: as `places`.
    """
    async with reader(connection, []) as consumer:
        cluster = await _topics(consumer)
    found = {}
    for topic in topics:
        numbers = cluster.partitions_for_topic(topic)
        if not numbers:
            raise _no_such(topic, "topic", connection)
        found[topic] = [TopicPartition(topic, number) for number in sorted(numbers)]
    return found


def _no_such(name: str, what: str, connection: Connection) -> TopicsUnfit:
    advice = "run: himari topics apply (or its ACLs hide it from this user)"
    return TopicsUnfit(f"{name}: no such {what} on {connection.bootstrap}; {advice}")


async def ends(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the ends of partitions, before the first open transaction; the consumer is positioned there afterwards.

    ListOffsets returns an offset at or below the end, which is always valid to fetch from.
    """
    for partition, offset in (await consumer.end_offsets(list(partitions))).items():
        consumer.seek(partition, offset)
    while any(consumer.highwater(partition) is None for partition in partitions):
        await consumer.getmany(timeout_ms=POLL_MS)
    return {partition: _end(consumer, partition) for partition in partitions}


def _end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """Return the last stable offset; the high watermark where the broker knows no transactions."""
    high: int = consumer.highwater(partition)
    stable = consumer.last_stable_offset(partition)
    return high if stable is None or stable < 0 else min(high, stable)


async def records(
    connection: Connection, partition: TopicPartition, first: int, end: int | None = None
) -> AsyncGenerator[Any, None]:
    """Yield the records from `first` (or the first available) up to, not including, `end`, at most the current end."""
    stops = {} if end is None else {partition: end}
    async with aclosing(records_of(connection, {partition: first}, stops)) as found:
        async for record in found:
            yield record


async def records_of(
    connection: Connection, firsts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int] = NOWHERE
) -> AsyncGenerator[Any, None]:
    """Yield the records of several partitions with one consumer: in order per partition, as `records`."""
    if not firsts:
        return
    async with reader(connection, list(firsts)) as consumer:
        left = {}
        for place, end in (await ends(consumer, list(firsts))).items():
            stop = min(end, stops.get(place, end))
            if firsts[place] < stop:
                consumer.seek(place, firsts[place])
                left[place] = stop
            else:
                consumer.pause(place)
        while left:
            for place, chunk in (await consumer.getmany(*left, timeout_ms=POLL_MS)).items():
                for record in chunk:
                    if record.offset < left[place]:
                        yield record
            for place in [place for place, stop in left.items() if await consumer.position(place) >= stop]:
                consumer.pause(place)
                del left[place]


async def newest_of(connection: Connection, places: Sequence[TopicPartition]) -> dict[TopicPartition, bytes | None]:
    """Return the value of the last record of each partition, None if it is a tombstone or missing."""
    found = await high_watermarks(connection, places)
    last: dict[TopicPartition, Any] = {}
    for firsts in ({place: end - 1 for place, end in found.items() if end}, dict.fromkeys(found, 0)):
        sought = {place: first for place, first in firsts.items() if found[place] and place not in last}
        async with aclosing(records_of(connection, sought, found)) as records:
            async for record in records:
                last[TopicPartition(record.topic, record.partition)] = record.value
    return {place: None if last.get(place) is None else bytes(last[place]) for place in places}


async def one(connection: Connection, place: TopicPartition, offset: int) -> Any:
    """Return one record.

    Raises:
        NotFound: it does not exist, or no longer.
        TopicsUnfit: its topic is missing.
    """
    if place in await places(connection, place.topic):
        async with aclosing(records(connection, place, offset, offset + 1)) as found:
            async for record in found:
                return record
    msg = f"{place.topic}/{place.partition}/{offset}: no such record"
    raise NotFound(msg)
