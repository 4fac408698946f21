"""The demo's environment: topics, a journal, and a producer."""

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition

from config.settings import Settings
from streams.history.feed import FeedEvent
from streams.journal.genesis import genesis, new_journal_id
from streams.journal.topics import JOURNAL_BYTES_MAX, ROOM, Names
from streams.kafka import admin
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection, reach
from streams.kafka.journal_origin import begin
from streams.processing.partitioner import partition_of
from streams.processing.ports import Send

PARTITIONS = 2


class DemoEnvironment:
    """Topics and a journal on a broker, and a producer to write to them."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.connection = Connection(settings.kafka.bootstrap_servers)
        self.names = Names(settings.topics.prefix)
        self.seed = seed
        self.producer: Any = None

    async def create(self, start_ns: int) -> None:
        """Create the topics and initialise the journal at `start_ns`."""
        await admin.apply(self.connection, self.names, PARTITIONS)
        value = genesis(new_journal_id(self.seed), PARTITIONS, self.settings.decision(), start_ns)
        await begin(self.connection, self.names, PARTITIONS, value)
        self.producer = AIOKafkaProducer(
            **self.connection.options(), enable_idempotence=False, max_request_size=JOURNAL_BYTES_MAX + ROOM
        )
        await reach(self.producer, self.connection)

    async def publish(self, sends: Iterable[Send]) -> None:
        """Publish partition by partition, and wait for the acknowledgements."""
        by_place: dict[TopicPartition, list[OutgoingRecord]] = {}
        for send in sends:
            partition = partition_of(send.key or b"", PARTITIONS) if send.partition is None else send.partition
            place = TopicPartition(self.names.topic(send.topic), partition)
            by_place.setdefault(place, []).append(OutgoingRecord(send.key, send.value, send.headers))
        for place, lines in by_place.items():
            await append(self.producer, place, lines)

    async def send(self, events: Sequence[FeedEvent]) -> None:
        """Publish events to their input topics."""
        await self.publish(Send(event.topic, None, event.key, event.value) for event in events)

    async def close(self) -> None:
        """Close the producer."""
        if self.producer is not None:
            await self.producer.stop()
