"""Source topics over time: their epochs, and whether one was created anew under the workers' feet."""

from collections.abc import Mapping
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import NotFound, ProcessorStopped
from streams import journal, read
from streams.connection import Connection, reach
from streams.genesis import appended
from streams.topics import INPUTS, PROGRESS, Names


async def epochs(connection: Connection, names: Names) -> dict[str, int]:
    """Return the epoch of each source topic that was ever adopted: what `progress` knows, and the journal after it."""
    progress = await _progress(connection, names, 0)
    known = {topic: source["epoch"] for topic, source in progress["meta"].get("sources", {}).items()}
    tail = read.records(connection, TopicPartition(names.topic(journal.TOPIC), 0), progress["offset"] + 1)
    async for record in tail:
        entry = journal.read(record.offset, record.value)
        if entry.kind == "adopt":
            known[entry.body["topic"]] = entry.body["epoch"]
    return known


async def refuse_recreated(
    connection: Connection, names: Names, partitions: int, epochs_now: Mapping[str, int]
) -> None:
    """Return if every source still holds what the journal has taken from it.

    Raises:
        ProcessorStopped: one ends below, so it was created anew; the text names what to run.
    """
    taken: dict[TopicPartition, int] = {}
    for partition in range(partitions):
        progress = await _progress(connection, names, partition)
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
                f"the topic was created anew. If that is right, run: himari topics adopt {logical}"
            )
            raise ProcessorStopped(msg)


async def adopt(connection: Connection, names: Names, topic: str, now_ns: int) -> int:
    """Journal a new epoch of a source topic and let the group begin it anew; return the epoch. No worker may run.

    Raises:
        NotFound: no input topic has that name.
    """
    if topic not in {each.name for each in INPUTS}:
        msg = f"{topic} is no input topic; there are {', '.join(each.name for each in INPUTS)}"
        raise NotFound(msg)
    epoch = (await epochs(connection, names)).get(topic, 0) + 1
    value = journal.internal("adopt", {"epoch": epoch, "topic": topic}, now_ns)
    await appended(connection, names, value)
    await _commit_beginning(connection, names, topic)
    return epoch


async def _progress(connection: Connection, names: Names, partition: int) -> dict[str, Any]:
    """Return the newest `progress` of a journal partition; before the first one it stands before entry 0."""
    value = await read.newest(connection, TopicPartition(names.changelog(PROGRESS["journal"]), partition))
    progress: dict[str, Any] = {"offset": -1, "meta": {}} if value is None else orjson.loads(value)
    return progress


async def _commit_beginning(connection: Connection, names: Names, topic: str) -> None:
    consumer = _group_member(connection, names)
    await reach(consumer, connection.bootstrap)
    try:
        partitions = await read.partitions(consumer, names.topic(topic))
        consumer.assign(partitions)
        await consumer.commit(await consumer.beginning_offsets(partitions))
    finally:
        await consumer.stop()


def _group_member(connection: Connection, names: Names) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(**connection.options(), group_id=names.application, enable_auto_commit=False)
