"""`himari worker --drain`: hands a whole journal over to another decision version, with no worker running."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError

from config.settings import Settings
from engines.handlers.versions import version_of
from schemas.errors import AnotherVersion, ProcessorStopped
from streams.journal import entries as journal
from streams.journal.topics import JOURNAL_BYTES_MAX, ROOM, Names
from streams.kafka import admin
from streams.kafka.append import OutgoingRecord
from streams.kafka.connection import Connection, reach
from streams.kafka.journal_origin import origin
from streams.processing.ports import RecordKey
from streams.processing.processor import Processor
from streams.stages.drain import drain
from streams.stages.sizing import SizingFold
from streams.worker.faust_ports import FaustPorts


class ChangelogPorts(FaustPorts):
    """The effects of one processor without a local store: its checkpoint is read from the changelogs alone."""

    def __init__(self, producer: AIOKafkaProducer, connection: Connection, names: Names, partition: int) -> None:
        """`producer`: already started."""
        tables: Mapping[str, Any] = dict.fromkeys(SizingFold.tables)
        super().__init__(None, tables, connection=connection, names=names, source=journal.TOPIC, partition=partition)
        self._own = producer

    async def local(self) -> dict[RecordKey, bytes]:
        """Return nothing: there is no local store."""
        return {}

    def _store(self, table: str, lines: Iterable[OutgoingRecord]) -> None: ...

    def _replace(self, table: str, live: Mapping[bytes, bytes], last: int) -> None: ...

    def _persisted(self, table: str, offset: int) -> None: ...

    @property
    def _producer(self) -> AIOKafkaProducer:
        return self._own


async def drain_all(
    settings: Settings,
    connection: Connection,
    to_version: int | None,
    clock: Callable[[], int],
    handed_over: Callable[[int, int, int], None],
) -> None:
    """Hand every journal partition over to `to_version` (None: the next one).

    `handed_over` is called with partition, version and offset of the entry that hands over.

    Raises:
        ProcessorStopped: workers are in the group; nothing is changed.
        AnotherVersion: another version decides on a partition, or `to_version` is this one.
        TopicsUnfit, BrokerUnreachable: as for a worker.
    """
    names, count = Names(settings.topics.prefix), settings.topics.partitions
    await admin.require(connection, names, count, settings.topics.replication)
    headers = (("himari.version", (await origin(connection, names, count)).version.encode()),)
    await _alone(connection, names)
    idempotent = not await admin.embedded(connection)
    async with _producer(connection, idempotent=idempotent) as producer:
        for partition in range(count):
            fold = SizingFold(partition, headers=headers)
            successor = version_of(fold.state) + 1 if to_version is None else to_version
            if successor == version_of(fold.state):
                msg = f"decision version {successor} is this one: hand over to another, with --to"
                raise AnotherVersion(msg)
            ports = ChangelogPorts(producer, connection, names, partition)
            processor = Processor(fold, ports, partition=partition, clock=time.monotonic_ns)
            handed_over(partition, successor, await drain(fold, processor, ports, successor, clock))


async def _alone(connection: Connection, names: Names) -> None:
    """Return if no worker is in the group: only then may a non-member commit."""
    consumer = AIOKafkaConsumer(**connection.reading(), group_id=names.application)
    await reach(consumer, connection)
    place = TopicPartition(names.topic(journal.TOPIC), 0)
    try:
        consumer.assign([place])
        await consumer.commit({place: await consumer.committed(place) or 0})
    except CommitFailedError as error:
        msg = f"group {names.application} still has members: stop the workers, wait a session timeout, and try again"
        raise ProcessorStopped(msg) from error
    finally:
        await consumer.stop()


@asynccontextmanager
async def _producer(connection: Connection, *, idempotent: bool) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        **connection.options(),
        acks="all",
        enable_idempotence=idempotent,
        max_request_size=JOURNAL_BYTES_MAX + ROOM,
    )
    await reach(producer, connection)
    try:
        yield producer
    finally:
        await producer.stop()
