"""The current state of a journal partition, read-only: its last checkpoint, and the entries after it."""

from collections.abc import Sequence
from contextlib import aclosing

from aiokafka import TopicPartition

from engines.state.partition import State
from streams.journal import entries as journal
from streams.journal.topics import PROGRESS, Names
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.processing.checkpoint import Ledger, Progress, Tables, unpack
from streams.processing.ports import RecordKey
from streams.stages.sizing import SizingFold

TRIES = 3
"""A worker may write a checkpoint while its tables are read; the digest reveals that."""


async def folded(connection: Connection, names: Names, partition: int) -> State:
    """Return the state of a journal partition, folded up to the current end of the journal."""
    return (await folded_all(connection, names, [partition]))[0]


async def folded_all(connection: Connection, names: Names, partitions: Sequence[int]) -> list[State]:
    """Return the states of journal partitions, each folded up to the current end, with few consumers."""
    folds = {partition: SizingFold(partition) for partition in partitions}
    firsts, torn = dict.fromkeys(partitions, 0), list(partitions)
    for _ in range(TRIES):
        found = await checkpoints(connection, names, torn)
        torn = [partition for partition, (progress, ledger) in found.items() if ledger.digest != progress.digest]
        for partition in found.keys() - set(torn):
            progress, ledger = found[partition]
            folds[partition].restore(progress.meta, ledger.records())
            firsts[partition] = progress.offset + 1
    places = {TopicPartition(names.topic(journal.TOPIC), partition): first for partition, first in firsts.items()}
    async with aclosing(read.records_of(connection, places)) as entries:
        async for entry in entries:
            folds[entry.partition].fold(entry)
    return [folds[partition].state for partition in partitions]


async def checkpoints(
    connection: Connection, names: Names, partitions: Sequence[int]
) -> dict[int, tuple[Progress, Ledger]]:
    """Return the last checkpoint of each partition that has one."""
    topic = names.changelog(PROGRESS[journal.TOPIC])
    values = await read.newest_of(connection, [TopicPartition(topic, partition) for partition in partitions])
    progress = {place.partition: Progress.from_bytes(value) for place, value in values.items() if value is not None}
    stored = await _tables(connection, names, list(progress))
    return {number: (each, Ledger.read(stored[number], each.offset)) for number, each in progress.items()}


async def _tables(connection: Connection, names: Names, partitions: Sequence[int]) -> dict[int, Tables]:
    """Return the records of all tables, by partition."""
    tables = {names.changelog(table): table for table in SizingFold.tables}
    frames: dict[int, dict[RecordKey, bytes]] = {partition: {} for partition in partitions}
    places = [TopicPartition(topic, partition) for topic in tables for partition in partitions]
    async with aclosing(read.records_of(connection, dict.fromkeys(places, 0))) as records:
        async for record in records:
            prefix = record.partition.to_bytes(4, "big")
            key = (tables[record.topic], record.key[len(prefix) :])
            if record.value is None:
                frames[record.partition].pop(key, None)
            elif record.key.startswith(prefix):
                frames[record.partition][key] = record.value
    return {partition: {key: unpack(frame) for key, frame in each.items()} for partition, each in frames.items()}
