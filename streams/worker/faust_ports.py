"""Checkpoints on Faust: tables on RocksDB, their changelogs, and a processor's `Ports` on both.

A record's key, on disk and in the changelog, begins with its partition (4 bytes, big-endian). Faust applies the
changelogs to the local stores before a processor recovers. Writes bypass Faust's tables, which do not report when a
changelog has a record: they go to RocksDB and the changelog directly, and are awaited.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import faust
import rocksdict
from aiokafka import TopicPartition
from faust.types import TP

from streams.journal.topics import PROGRESS, TABLES, Names
from streams.kafka import read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection
from streams.processing import crashpoints
from streams.processing.partitioner import partition_of
from streams.processing.ports import Record, RecordKey, Send
from streams.worker.stall_detector import Waits

STORE_OPTIONS = {
    "driver": "rocksdict",
    "write_buffer_size": 4 << 20,
    "block_cache_size": 8 << 20,
    "max_open_files": 20,
}
"""Small: there is one database per table and partition, and the state is in memory anyway (`descriptors`)."""
OPENERS = 8
"""Databases opened in parallel; they wait for the disk."""


def make_tables(app: faust.App, source: str) -> dict[str, faust.Table]:
    """Create the Faust tables of the processor of `source` (logical name), by name."""
    return {
        table.name: app.Table(
            table.name,
            key_type=bytes,
            value_type=bytes,
            options=dict(STORE_OPTIONS),
            help=table.description,
        )
        for table in TABLES
        if table.source == source and table.stored
    }


async def open_stores(tables: Iterable[faust.Table], assigned: Collection[TP]) -> None:
    """Open the databases of assigned partitions in parallel threads, before Faust opens them one by one.

    Faust would do so between two heartbeats: on a busy disk a hundred of them take longer than the session timeout, and
    the group removes the worker. A database that cannot be opened is left to Faust, which retries.
    """
    wanted = [
        (table.data, tp.partition)
        for table in tables
        for tp in assigned
        if tp.topic in table.changelog_topic.topics and tp.partition not in table.data._dbs  # noqa: SLF001
    ]

    def opened(store: Any, partition: int) -> None:
        with suppress(Exception):
            store._dbs[partition] = store._open_for_partition(partition)  # noqa: SLF001

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(OPENERS, "himari-open") as threads:
        await asyncio.gather(*(loop.run_in_executor(threads, opened, *each) for each in wanted))


class FaustPorts:
    """The effects of one processor on one partition of its source; implements `streams.processing.ports.Ports`."""

    def __init__(
        self,
        app: faust.App,
        tables: Mapping[str, faust.Table],
        *,
        connection: Connection,
        names: Names,
        source: str,
        partition: int,
        waits: Waits | None = None,
    ) -> None:
        """Take the tables of `make_tables` and the logical name of the source; `waits` records what is awaited."""
        self.records_read = 0
        """Records read from changelogs, outputs and the source so far: the progress of a recovery."""
        self._waits = waits or Waits()
        self._app, self._tables, self._connection, self._names = app, tables, connection, names
        self._partition = partition
        self._prefix = partition.to_bytes(4, "big")
        self._source = TopicPartition(names.topic(source), partition)
        self._progress = TopicPartition(names.changelog(PROGRESS[source]), partition)

    # -- tables --------------------------------------------------------------------------------------------------------
    async def local(self) -> dict[RecordKey, bytes]:
        """Return the local store (RocksDB, caught up with its changelog) without `progress`."""
        return {
            (name, key[len(self._prefix) :]): bytes(value)
            for name in self._tables
            for key, value in self._database(name).items(from_key=self._prefix)
            if key.startswith(self._prefix)
        }

    async def changelog(self) -> dict[RecordKey, bytes]:
        """Read the tables' changelogs of this partition from their start; replace the local store by the result."""
        found: dict[RecordKey, bytes] = {}
        for name in self._tables:
            live: dict[bytes, bytes] = {}
            last = -1
            async for record in self._read(self._changelog(name), 0):
                last = record.offset
                if record.value is None:
                    live.pop(record.key, None)
                elif record.key.startswith(self._prefix):
                    live[record.key] = record.value
            self._replace(name, live, last)
            found |= {(name, key[len(self._prefix) :]): value for key, value in live.items()}
        return found

    async def write(self, changes: Mapping[RecordKey, bytes | None]) -> None:
        """Write records (None deletes) to the local store, then to the changelogs; return when all are acknowledged.

        One table at a time, so that concurrent publishing waits for the request of one table at most.
        """
        by_table: dict[str, list[OutgoingRecord]] = defaultdict(list)
        for (name, key), value in changes.items():
            by_table[name].append(OutgoingRecord(self._prefix + key, value))
        for name, lines in by_table.items():
            self._store(name, lines)
            crashpoints.at("stored")
            offsets = await self._append(self._changelog(name), lines)
            crashpoints.at("logged")
            self._persisted(name, max(offsets))

    async def progress(self) -> bytes | None:
        """Return the newest `progress` in the changelog of this partition, or None."""
        return await read.newest(self._connection, self._progress)

    async def write_progress(self, value: bytes) -> None:
        """Write `progress` to its changelog; return when it is acknowledged."""
        await self._append(self._progress, [OutgoingRecord(self._prefix, value)])

    # -- topics --------------------------------------------------------------------------------------------------------
    async def send(self, sends: Sequence[Send]) -> list[int]:
        """Publish in order, partition by partition; return each record's offset when all are acknowledged."""
        by_partition: dict[TopicPartition, list[int]] = defaultdict(list)
        for number, send in enumerate(sends):
            by_partition[await self._target(send)].append(number)

        async def part(target: TopicPartition, numbers: Sequence[int]) -> list[int]:
            lines = [OutgoingRecord(sends[n].key, sends[n].value, sends[n].headers) for n in numbers]
            offsets = await self._append(target, lines)
            crashpoints.at("sent")
            return offsets

        sent = await asyncio.gather(*(part(target, numbers) for target, numbers in by_partition.items()))
        offsets = [0] * len(sends)
        for numbers, found in zip(by_partition.values(), sent, strict=True):
            for number, offset in zip(numbers, found, strict=True):
                offsets[number] = offset
        return offsets

    async def outputs(self, topic: str, first: int) -> list[tuple[int, bytes]]:
        """Return (offset, value) of this partition's records of an output topic, from `first` to the current end."""
        target = TopicPartition(self._names.topic(topic), self._partition)
        return [(r.offset, r.value) async for r in self._read(target, first)]

    def source(self, first: int, end: int | None = None) -> AsyncIterator[Record]:
        """Re-read the source partition from `first` up to, not including, `end` (None: the current end)."""
        return self._read(self._source, first, end)

    async def source_first(self) -> int:
        """Return the offset of the source partition's first record: above 0 if retention deleted older ones."""
        return await read.first_offset(self._connection, self._source)

    async def source_end(self) -> int:
        """Return the source partition's exact end offset, never an older one from before the call."""
        return (await read.high_watermarks(self._connection, [self._source]))[self._source]

    # -- internals -----------------------------------------------------------------------------------------------------
    async def _read(self, place: TopicPartition, first: int, end: int | None = None) -> AsyncIterator[Any]:
        async for record in read.records(self._connection, place, first, end):
            self.records_read += 1
            yield record

    def _changelog(self, table: str) -> TopicPartition:
        return TopicPartition(self._names.changelog(table), self._partition)

    def _database(self, table: str) -> Any:
        return self._tables[table].data._db_for_partition(self._partition)  # noqa: SLF001 Faust's store opens it

    def _store(self, table: str, lines: Iterable[OutgoingRecord]) -> None:
        """Write lines to the table's database, all or none."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for line in lines:
            if line.value is None:
                batch.delete(line.key)
            else:
                batch.put(line.key, line.value)
        self._database(table).write(batch)

    def _replace(self, table: str, live: Mapping[bytes, bytes], last: int) -> None:
        """Replace the contents of the table's database by `live`."""
        database = self._database(table)
        strays = [key for key in database.keys(from_key=self._prefix) if key.startswith(self._prefix)]
        self._store(table, [OutgoingRecord(key, None) for key in strays if key not in live])
        self._store(table, [OutgoingRecord(key, value) for key, value in live.items()])
        if last >= 0:
            self._persisted(table, last)

    def _persisted(self, table: str, offset: int) -> None:
        """Set the changelog offset of the local store, so that the next start reads only what follows."""
        changelog = self._changelog(table)
        self._tables[table].data.set_persisted_offset(TP(changelog.topic, changelog.partition), offset)

    async def _target(self, send: Send) -> TopicPartition:
        """Return the partition of a record: the given one, or murmur2 of its key."""
        topic = self._names.topic(send.topic)
        if send.partition is not None:
            return TopicPartition(topic, send.partition)
        count = len(await self._producer.partitions_for(topic))
        return TopicPartition(topic, partition_of(send.key, count) if send.key is not None else 0)

    @property
    def _producer(self) -> Any:
        return self._app.producer._ensure_producer()  # noqa: SLF001 Faust's own send works record by record

    async def _append(self, target: TopicPartition, lines: Sequence[OutgoingRecord]) -> list[int]:
        """Append lines to a partition in batches; return their offsets when all are acknowledged.

        Raises:
            KafkaError: a batch was not acknowledged; the caller must stop.
        """
        with self._waits.on(target.topic):
            return await append(self._producer, target, lines)
