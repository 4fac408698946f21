"""The beginning of a journal on a broker: Genesis, written once and read by every worker."""

from contextlib import aclosing
from importlib.metadata import version
from typing import NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition

from engines.parameters import DecisionParams
from schemas.errors import ProcessorStopped, TopicsUnfit
from streams.journal import entries as journal
from streams.journal.topics import JOURNAL_BYTES_MAX, ROOM, Names
from streams.kafka import read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection, allowed, reach


class Origin(NamedTuple):
    """The contents of entry 0 of every journal partition."""

    journal_id: str
    partitions: int
    params: DecisionParams
    version: str
    """Version of this package, not of the journal: published in headers."""


async def begin(connection: Connection, names: Names, partitions: int, value: bytes) -> bool:
    """Write Genesis to the journal partitions that are empty; return whether any was.

    An incomplete set is completed with the existing Genesis, so that all partitions begin with the same bytes.

    Raises:
        ProcessorStopped: a partition has lost its beginning; nothing is written.
    """
    found = await _first_entries(connection, names, partitions)
    empty = [partition for partition, entry in enumerate(found) if entry is None]
    value = next((entry for entry in found if entry is not None), value)
    await _append(connection, names, empty, value)
    return bool(empty)


async def appended(connection: Connection, names: Names, value: bytes) -> None:
    """Append an internal entry to every journal partition."""
    partitions = len(await _first_entries(connection, names, await _count(connection, names)))
    await _append(connection, names, list(range(partitions)), value)


async def origin(connection: Connection, names: Names, partitions: int) -> Origin:
    """Return the beginning of the journal.

    Raises:
        TopicsUnfit: a partition is empty or begins with something else; the text says what to run.
        ProcessorStopped: a partition has lost its beginning.
    """
    found = await _first_entries(connection, names, partitions)
    run = f"run: himari --bootstrap {connection.bootstrap} topics apply"
    bodies = []
    for partition, value in enumerate(found):
        place = f"{names.topic(journal.TOPIC)}[{partition}]"
        if value is None:
            msg = f"{place}: entry 0 must be Genesis, the partition is empty; {run}"
            raise TopicsUnfit(msg)
        entry = journal.read(0, value)
        if entry.kind != "genesis" or entry.body["partitions"] != partitions:
            msg = f"{place}: entry 0 must be Genesis of {partitions} partitions, was {entry.kind} {entry.body}"
            raise TopicsUnfit(msg)
        bodies.append(entry.body)
    if len({body["journal_id"] for body in bodies}) > 1:
        msg = f"{names.topic(journal.TOPIC)}: partitions begin with different journals"
        raise TopicsUnfit(msg)
    params = DecisionParams.model_validate(bodies[0]["settings"])
    return Origin(bodies[0]["journal_id"], partitions, params, version("himari-layer3"))


async def _first_entries(connection: Connection, names: Names, partitions: int) -> list[bytes | None]:
    """Return entry 0 of each partition, None if it is empty. Raises: ProcessorStopped if it was deleted."""
    places = [TopicPartition(names.topic(journal.TOPIC), partition) for partition in range(partitions)]
    values: dict[int, bytes] = {}
    async with aclosing(read.records_of(connection, dict.fromkeys(places, 0), dict.fromkeys(places, 1))) as records:
        async for record in records:
            values[record.partition] = record.value
    for place in places:
        first = 0 if place.partition in values else await read.first_offset(connection, place)
        if first:
            msg = (
                f"{place.topic}[{place.partition}] begins at {first}, entry 0 must be Genesis: entries of the journal "
                "were deleted. Restore them (and look for a retention); topics apply would begin another journal"
            )
            raise ProcessorStopped(msg)
    return [values.get(partition) for partition in range(partitions)]


async def _count(connection: Connection, names: Names) -> int:
    async with read.reader(connection, []) as consumer:
        return len(await read.partitions(consumer, names.topic(journal.TOPIC)))


async def _append(connection: Connection, names: Names, partitions: list[int], value: bytes) -> None:
    producer = AIOKafkaProducer(
        **connection.options(), acks="all", enable_idempotence=False, max_request_size=JOURNAL_BYTES_MAX + ROOM
    )
    await reach(producer, connection)
    try:
        with allowed("write", names.topic(journal.TOPIC)):
            for partition in partitions:
                await append(
                    producer, TopicPartition(names.topic(journal.TOPIC), partition), [OutgoingRecord(None, value)]
                )
    finally:
        await producer.stop()
