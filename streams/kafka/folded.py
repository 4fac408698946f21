"""The state of a journal partition at this moment: its last checkpoint and the entries after it. Nothing is changed."""

import asyncio

from aiokafka import TopicPartition

from engines.state import State
from streams import journal
from streams.checkpoint import BEGINNING, Ledger, Progress, Tables, unpack
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.ports import RecordKey
from streams.sizing import SizingFold
from streams.topics import PROGRESS, Names

TRIES = 3
"""A worker may write a checkpoint while its tables are read; the digest tells."""


async def folded(connection: Connection, names: Names, partition: int) -> State:
    """Return the state of a journal partition, folded up to the journal's end of this moment."""
    fold = SizingFold(partition)
    last = -1
    for _ in range(TRIES):
        progress, ledger = await _checkpoint(connection, names, partition)
        if ledger.digest == progress.digest:
            fold.restore(progress.meta, ledger.records())
            last = progress.offset
            break
    place = TopicPartition(names.topic(journal.TOPIC), partition)
    async for entry in read.records(connection, place, last + 1):
        fold.fold(entry)
    return fold.state


async def _checkpoint(connection: Connection, names: Names, partition: int) -> tuple[Progress, Ledger]:
    place = TopicPartition(names.changelog(PROGRESS[journal.TOPIC]), partition)
    value = await read.newest(connection, place)
    progress = BEGINNING if value is None else Progress.from_bytes(value)
    tables = await asyncio.gather(*(_table(connection, names, table, partition) for table in SizingFold.tables))
    stored = {key: versions for table in tables for key, versions in table.items()}
    return progress, Ledger.read(stored, progress.offset)


async def _table(connection: Connection, names: Names, table: str, partition: int) -> Tables:
    prefix = partition.to_bytes(4, "big")
    frames: dict[RecordKey, bytes] = {}
    async for record in read.records(connection, TopicPartition(names.changelog(table), partition), 0):
        key = (table, record.key[len(prefix) :])
        if record.value is None:
            frames.pop(key, None)
        elif record.key.startswith(prefix):
            frames[key] = record.value
    return {key: unpack(frame) for key, frame in frames.items()}
