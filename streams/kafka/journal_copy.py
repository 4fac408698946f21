"""Copies a journal into topics of another prefix, without records that no worker wrote.

Kafka cannot take a record out of the middle of a log. No worker folds a record that is no entry, or anything after it
in its partition, so the journal without it decides everything as before: a worker of the other prefix folds the copy
from Genesis and publishes the same allocations again, byte for byte. Input records that the journal does not hold yet
are copied after it.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition

from engines.handlers.effects import Journaled
from schemas.errors import ProcessorStopped, TopicsUnfit
from streams.journal import entries as journal
from streams.journal.topics import INPUTS, JOURNAL_BYTES_MAX, ROOM, Names
from streams.kafka import admin, read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection, allowed, reach
from streams.kafka.sources import checkpointed

CHUNK: Final = 2_000
TICKS: Final = "prices"
"""Input that is not journaled record by record: its old ticks are of no use."""


class Copied(NamedTuple):
    """How many records were copied."""

    entries: int
    left_out: int
    inputs: int
    """Input records that the journal did not hold yet."""


class LeftOut(NamedTuple):
    """A record of the journal that is not copied."""

    partition: int
    offset: int


class Taken:
    """What a journal holds of the input topics."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = defaultdict(int)
        self._offsets: dict[TopicPartition, tuple[int, int]] = {}
        """Epoch and offset of the newest record that the journal holds of each partition."""

    def note(self, entry: Journaled) -> None:
        """Note an entry."""
        if entry.kind == "adopt":
            topic = entry.body["topic"]
            self._epochs[topic] = max(self._epochs[topic], entry.body["epoch"])
        elif entry.topic:
            place = TopicPartition(entry.topic, entry.partition)
            self._epochs[entry.topic] = max(self._epochs[entry.topic], entry.epoch)
            self._offsets[place] = max(self._offsets.get(place, (0, -1)), (entry.epoch, entry.source_offset))

    def following(self, topic: str, partition: int) -> int:
        """Return the offset of the first record of an input partition that the journal does not hold."""
        epoch, offset = self._offsets.get(TopicPartition(topic, partition), (0, -1))
        return offset + 1 if epoch == self._epochs[topic] else 0

    def adopted(self, now_ns: int) -> list[bytes]:
        """Return the entries by which the journal adopts new input topics, whose offsets begin at 0."""
        return [
            journal.internal("adopt", {"epoch": self._epochs[topic.name] + 1, "topic": topic.name}, now_ns)
            for topic in INPUTS
        ]


async def copy(
    connection: Connection,
    source: Names,
    target: Names,
    partitions: int,
    without: Collection[LeftOut],
    now_ns: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Create the topics of `target` and copy the journal of `source` into them; no worker may run on either.

    Args:
        connection: of the cluster that has both.
        source: names of the topics to copy from; they stay as they are.
        target: names of the topics to copy to.
        partitions: of the journal.
        without: the records to leave out.
        now_ns: journal time of the entries that adopt the new input topics.
        on_progress: called with the number of records copied since the last call.

    Raises:
        StrayRecord: a record that is not left out is no entry; the text names it.
        ProcessorStopped: a record to leave out was folded.
        TopicsUnfit: the topics of `target` do not fit, or its journal is not empty.
    """
    await _refuse_folded(connection, source, without)
    taken = await _taken(connection, source, partitions, without)
    await admin.apply(connection, target, partitions)
    await _refuse_filled(connection, target, partitions)
    producer = AIOKafkaProducer(
        **connection.options(), acks="all", enable_idempotence=False, max_request_size=JOURNAL_BYTES_MAX + ROOM
    )
    await reach(producer, connection)
    try:
        with allowed("write", target.topic(journal.TOPIC)):
            entries = 0
            for partition in range(partitions):
                entries += await _entries(connection, producer, source, target, partition, without, on_progress)
            adopted = [OutgoingRecord(None, value) for value in taken.adopted(now_ns)]
            for partition in range(partitions):
                await append(producer, TopicPartition(target.topic(journal.TOPIC), partition), adopted)
            inputs = await _inputs(connection, producer, source, target, taken, on_progress)
    finally:
        await producer.stop()
    return Copied(entries, len(without), inputs)


async def _refuse_folded(connection: Connection, names: Names, without: Iterable[LeftOut]) -> None:
    """Raise ProcessorStopped if a record to leave out was folded: a checkpoint or an allocation covers it."""
    for place in without:
        folded = max(
            await checkpointed(connection, names, place.partition), await _decided(connection, names, place.partition)
        )
        if place.offset <= folded:
            msg = (
                f"journal partition {place.partition}, offset {place.offset}: must be above {folded}, up to which "
                "workers have folded: without it, the journal would decide otherwise"
            )
            raise ProcessorStopped(msg)


async def _decided(connection: Connection, names: Names, partition: int) -> int:
    """Return the newest journal offset that a partition's allocations name; -1 if there is none."""
    newest = -1
    async for record in read.records(connection, TopicPartition(names.topic("allocations"), partition), 0):
        with suppress(ValueError, KeyError, TypeError):  # a record that is no allocation says nothing
            newest = max(newest, orjson.loads(record.value or b"")["journal"]["offset"])
    return newest


async def _taken(connection: Connection, names: Names, partitions: int, without: Collection[LeftOut]) -> Taken:
    """Return what the journal holds of the inputs. Raises: StrayRecord for the first record that is no entry."""
    taken = Taken()
    for partition in range(partitions):
        async for record in read.records(connection, TopicPartition(names.topic(journal.TOPIC), partition), 0):
            if LeftOut(partition, record.offset) not in without:
                taken.note(journal.read(record.offset, record.value, partition))
    return taken


async def _refuse_filled(connection: Connection, names: Names, partitions: int) -> None:
    places = [TopicPartition(names.topic(journal.TOPIC), partition) for partition in range(partitions)]
    for place, end in (await read.high_watermarks(connection, places)).items():
        if end:
            msg = f"{place.topic}[{place.partition}] must be empty, has {end} records: copy to another prefix"
            raise TopicsUnfit(msg)


async def _entries(
    connection: Connection,
    producer: AIOKafkaProducer,
    source: Names,
    target: Names,
    partition: int,
    without: Collection[LeftOut],
    on_progress: Callable[[int], None],
) -> int:
    """Copy one partition of the journal."""
    place = TopicPartition(source.topic(journal.TOPIC), partition)
    ours = TopicPartition(target.topic(journal.TOPIC), partition)
    count = 0
    async for chunk in _chunks(connection, place, 0):
        lines = [
            OutgoingRecord(record.key, record.value, tuple(record.headers))
            for record in chunk
            if LeftOut(partition, record.offset) not in without
        ]
        await append(producer, ours, lines)
        count += len(lines)
        on_progress(len(lines))
    return count


async def _inputs(
    connection: Connection,
    producer: AIOKafkaProducer,
    source: Names,
    target: Names,
    taken: Taken,
    on_progress: Callable[[int], None],
) -> int:
    """Copy the input records that the journal does not hold yet."""
    count = 0
    for topic in INPUTS:
        if topic.name == TICKS:
            continue
        for place in await read.places(connection, source.topic(topic.name)):
            ours = TopicPartition(target.topic(topic.name), place.partition)
            async for chunk in _chunks(connection, place, taken.following(topic.name, place.partition)):
                lines = [OutgoingRecord(each.key, each.value, tuple(each.headers)) for each in chunk]
                await append(producer, ours, lines)
                count += len(lines)
                on_progress(len(lines))
    return count


async def _chunks(connection: Connection, place: TopicPartition, first: int) -> AsyncIterator[list[Any]]:
    chunk: list[Any] = []
    async for record in read.records(connection, place, first):
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
