"""Appends to partitions in batches, with any aiokafka producer."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from streams.processing.ports import Headers


class OutgoingRecord(NamedTuple):
    """One record to append."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


async def append(producer: Any, target: TopicPartition, lines: Sequence[OutgoingRecord]) -> list[int]:
    """Append lines to one partition with an aiokafka producer, in order; return their offsets when acknowledged.

    Batches are built here, because the producer spends far more on single records.

    Raises:
        KafkaError: a batch was not acknowledged.
    """
    pending = []
    for batch, count in _batches(producer, lines):
        pending.append((await producer.send_batch(batch, target.topic, partition=target.partition), count))
    offsets: list[int] = []
    for metadata, (_, count) in zip(await asyncio.gather(*(sent for sent, _ in pending)), pending, strict=True):
        offsets.extend(range(metadata.offset, metadata.offset + count))
    return offsets


def _batches(producer: Any, lines: Sequence[OutgoingRecord]) -> Iterable[tuple[Any, int]]:
    """Yield full batches with the number of their records; a record too large for a batch gets its own."""
    batch, count = producer.create_batch(), 0
    for line in lines:
        if batch.append(key=line.key, value=line.value, timestamp=None, headers=list(line.headers)) is None:
            yield batch, count
            batch, count = producer.create_batch(), 0
            batch.append(key=line.key, value=line.value, timestamp=None, headers=list(line.headers))
        count += 1
    if count:
        yield batch, count
