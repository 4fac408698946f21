"""Reading partitions outside any consumer group: from a place to the log's end of this moment.

The end is the high watermark that Fetch reports: the embedded broker's ListOffsets(latest) is too low.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import TopicsUnfit
from streams.kafka.connection import Connection, reach

FETCH_WAIT_MS = 50
"""Shorter, and the embedded broker gives up on a long log before it has found anything."""
FETCH_BYTES = 8 << 20
CHUNK_RECORDS = 5_000
POLL_MS = 200


@asynccontextmanager
async def reader(connection: Connection, partitions: Sequence[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a consumer of `partitions` that belongs to no group.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    consumer = AIOKafkaConsumer(
        **connection.options(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
        max_poll_records=CHUNK_RECORDS,
    )
    try:
        await reach(consumer, connection)
        consumer.assign(list(partitions))
        yield consumer
    finally:
        await consumer.stop()


async def high_watermarks(connection: Connection, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the end of each partition: the offset that its next record will have."""
    if not partitions:
        return {}
    async with reader(connection, partitions) as consumer:
        return await ends(consumer, partitions)


async def first_offset(connection: Connection, partition: TopicPartition) -> int:
    """Return the offset of the first record that is still there, or the end of an empty partition."""
    async with reader(connection, [partition]) as consumer:
        found: int = (await consumer.beginning_offsets([partition]))[partition]
        return found


async def offset_at(connection: Connection, partition: TopicPartition, time_ms: int) -> int:
    """Return the offset of the first record that is not older than a time, or the end where there is none.

    The embedded broker says the first there is, which is never too late.
    """
    async with reader(connection, [partition]) as consumer:
        found = (await consumer.offsets_for_times({partition: max(0, time_ms)}))[partition]
        return int(found.offset) if found is not None else (await ends(consumer, [partition]))[partition]


async def newest(connection: Connection, partition: TopicPartition) -> bytes | None:
    """Return the value of the last record, None where it is a tombstone: what a compacted partition of one key says."""
    end = (await high_watermarks(connection, [partition]))[partition]
    for first in (end - 1, 0) if end else ():
        last = None
        async for record in records(connection, partition, first, end):
            last = record
        if last is not None:
            return None if last.value is None else bytes(last.value)
    return None


async def partitions(client: Any, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic, none where it is missing; `client` is a started consumer.

    All topics are asked for: a name would create the topic on the embedded broker, and aiokafka's own answer knows
    only the topics that it is subscribed to.
    """
    cluster = await client._client.fetch_all_metadata()  # noqa: SLF001 the consumer shows only its subscription
    return [TopicPartition(topic, partition) for partition in sorted(cluster.partitions_for_topic(topic) or ())]


async def places(connection: Connection, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic.

    Raises:
        TopicsUnfit: there is no such topic, or none that this user may see: Kafka tells nobody the difference.
    """
    async with reader(connection, []) as consumer:
        found = await partitions(consumer, topic)
    if not found:
        advice = "run: himari topics apply (or its ACLs hide it from this user)"
        msg = f"{topic}: no such topic on {connection.bootstrap}; {advice}"
        raise TopicsUnfit(msg)
    return found


async def ends(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the high watermarks; the consumer stands at them afterwards.

    ListOffsets gives a place at or below the end, which is always a valid one to fetch from.
    """
    for partition, offset in (await consumer.end_offsets(list(partitions))).items():
        consumer.seek(partition, offset)
    while any(consumer.highwater(partition) is None for partition in partitions):
        await consumer.getmany(timeout_ms=POLL_MS)
    return {partition: consumer.highwater(partition) for partition in partitions}


async def records(
    connection: Connection, partition: TopicPartition, first: int, end: int | None = None
) -> AsyncGenerator[Any, None]:
    """Yield the records from `first` (or the first there is) to before `end`, at most the log's end of this moment."""
    async with reader(connection, [partition]) as consumer:
        known = (await ends(consumer, [partition]))[partition]
        stop = known if end is None else min(end, known)
        if first >= stop:
            return
        consumer.seek(partition, first)
        while await consumer.position(partition) < stop:
            for chunk in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in chunk:
                    if record.offset >= stop:
                        return
                    yield record
