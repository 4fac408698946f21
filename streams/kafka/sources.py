"""Source topics over time: their epochs, and the detection of topics that were recreated."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError

from schemas.errors import NotFound, ProcessorStopped
from streams.journal import entries as journal
from streams.journal.topics import INPUTS, PROGRESS, Names
from streams.kafka import read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection, allowed, reach
from streams.kafka.journal_origin import appended
from streams.stages.market import OPEN


async def epochs(connection: Connection, names: Names) -> dict[str, int]:
    """Return the epoch of each source topic known to `progress`, or adopted in the journal after it."""
    progress = await _progress(connection, names, "journal", 0)
    known = {topic: source["epoch"] for topic, source in progress["meta"].get("sources", {}).items()}
    tail = read.records(connection, TopicPartition(names.topic(journal.TOPIC), 0), progress["offset"] + 1)
    async with aclosing(tail) as records:
        async for record in records:
            entry = journal.read(record.offset, record.value, record.partition)
            if entry.kind == "adopt":
                known[entry.body["topic"]] = entry.body["epoch"]
    return known


async def refuse_recreated(
    connection: Connection, names: Names, partitions: int, epochs_now: Mapping[str, int]
) -> None:
    """Return if every source still reaches the offsets that the journal has of it.

    Raises:
        ProcessorStopped: one ends below them, so it was recreated; the text says what to run.
    """
    taken = await _ticks_taken(connection, names)
    for progress in (await _progress_of(connection, names, "journal", range(partitions))).values():
        for topic, source in progress["meta"].get("sources", {}).items():
            if source["epoch"] == epochs_now.get(topic, 0):
                for number, offset in source["offsets"].items():
                    place = TopicPartition(names.topic(topic), int(number))
                    taken[place] = max(offset, taken.get(place, -1))
    for place, end in (await read.high_watermarks(connection, sorted(taken))).items():
        if end <= taken[place]:
            logical = names.logical(place.topic)
            msg = (
                f"{place.topic}[{place.partition}] ends at {end}, but the journal has its offset {taken[place]}: "
                f"the topic was recreated. If that is intended, run: himari topics adopt {logical}"
            )
            raise ProcessorStopped(msg)


async def checkpointed(connection: Connection, names: Names, partition: int) -> int:
    """Return the journal offset of a partition's last checkpoint; -1 if there is none."""
    offset: int = (await _progress(connection, names, "journal", partition))["offset"]
    return offset


async def take_part(connection: Connection, names: Names) -> None:
    """Return if this user may join the workers' group; aiokafka would retry forever.

    Raises:
        NotAllowed: the broker denies it.
    """
    consumer = _group_member(connection, names)
    await reach(consumer, connection)
    try:
        with allowed("join", f"group {names.application}"):
            await consumer.committed(TopicPartition(names.topic(journal.TOPIC), 0))
    finally:
        await consumer.stop()


async def adopt(connection: Connection, names: Names, topic: str, now_ns: int) -> int:
    """Journal a new epoch of a source topic and reset the group to its beginning; return the epoch. No worker may run.

    Raises:
        NotFound: no input topic has this name.
        ProcessorStopped: workers are still in the group; nothing is changed.
    """
    if topic not in {each.name for each in INPUTS}:
        msg = f"{topic} is not an input topic; input topics are {', '.join(each.name for each in INPUTS)}"
        raise NotFound(msg)
    await _commit_beginning(connection, names, topic)
    if topic == "prices":
        await _forget_steps(connection, names)
    epoch = (await epochs(connection, names)).get(topic, 0) + 1
    value = journal.internal("adopt", {"epoch": epoch, "topic": topic}, now_ns)
    await appended(connection, names, value)
    return epoch


async def _ticks_taken(connection: Connection, names: Names) -> dict[TopicPartition, int]:
    """Return the last offset of each partition of `prices` that the market has folded."""
    async with read.reader(connection, []) as consumer:
        places = await read.partitions(consumer, names.topic("prices"))
    progress = await _progress_of(connection, names, "prices", [place.partition for place in places])
    taken = {place: progress[place.partition]["offset"] for place in places}
    return {place: offset for place, offset in taken.items() if offset >= 0}


async def _forget_steps(connection: Connection, names: Names) -> None:
    """Delete the market's checkpoint with tombstones: it restarts with its source."""
    producer = AIOKafkaProducer(**connection.options(), acks="all", enable_idempotence=False)
    await reach(producer, connection)
    try:
        for place in await _ticks_taken(connection, names):
            prefix = place.partition.to_bytes(4, "big")
            for table, key in (OPEN, (PROGRESS["prices"], b"")):
                target = TopicPartition(names.changelog(table), place.partition)
                await append(producer, target, [OutgoingRecord(prefix + key, None)])
    finally:
        await producer.stop()


async def _progress(connection: Connection, names: Names, source: str, partition: int) -> dict[str, Any]:
    """Return the newest `progress` of a source's partition; with offset -1 if there is none."""
    return (await _progress_of(connection, names, source, [partition]))[partition]


async def _progress_of(
    connection: Connection, names: Names, source: str, partitions: Iterable[int]
) -> dict[int, dict[str, Any]]:
    """Return the same for several partitions, with one consumer."""
    places = [TopicPartition(names.changelog(PROGRESS[source]), partition) for partition in partitions]
    values = await read.newest_of(connection, places)
    return {
        place.partition: {"offset": -1, "meta": {}} if value is None else orjson.loads(value)
        for place, value in values.items()
    }


async def _commit_beginning(connection: Connection, names: Names, topic: str) -> None:
    consumer = _group_member(connection, names)
    await reach(consumer, connection)
    try:
        partitions = await read.places(connection, names.topic(topic))
        consumer.assign(partitions)
        with allowed("join", f"group {names.application}"):
            await consumer.commit(await consumer.beginning_offsets(partitions))
    except CommitFailedError as error:
        msg = f"group {names.application} still has members: stop the workers, wait a session timeout, and try again"
        raise ProcessorStopped(msg) from error
    finally:
        await consumer.stop()


def _group_member(connection: Connection, names: Names) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(**connection.reading(), group_id=names.application)
