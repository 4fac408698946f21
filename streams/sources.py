"""Source topics over time: their epochs, and whether one was created anew under the workers' feet."""

from collections.abc import Sequence

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import NotFound, ProcessorStopped
from streams import journal, read
from streams.connection import Connection, reach
from streams.genesis import appended
from streams.topics import INPUTS, PROGRESS, Names


async def epochs(connection: Connection, names: Names) -> dict[str, int]:
    """Return the epoch of each source topic that was ever adopted: what `progress` knows, and the journal after it."""
    place = TopicPartition(names.changelog(PROGRESS["journal"]), 0)
    known: dict[str, int] = {}
    first = 0
    async for record in read.records(connection, place, 0):
        if record.value is not None:
            progress = orjson.loads(record.value)
            sources = progress["meta"].get("sources", {})
            known = {topic: source["epoch"] for topic, source in sources.items() if source["epoch"]}
            first = progress["offset"] + 1
    async for record in read.records(connection, TopicPartition(names.topic(journal.TOPIC), 0), first):
        entry = journal.read(record.offset, record.value)
        if entry.kind == "adopt":
            known[entry.body["topic"]] = entry.body["epoch"]
    return known


async def refuse_recreated(connection: Connection, names: Names, topics: Sequence[str]) -> None:
    """Return if no source ends below what the group has committed.

    Raises:
        ProcessorStopped: one does, so it was created anew; the text names what to run.
    """
    for topic in topics:
        for partition, (committed, end) in (await _places(connection, names, topic)).items():
            if committed > end:
                msg = (
                    f"{names.topic(topic)}[{partition}] ends at {end}, below the committed {committed}: the topic was "
                    f"created anew. If that is right, run: himari topics adopt {topic}"
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


async def _places(connection: Connection, names: Names, topic: str) -> dict[int, tuple[int, int]]:
    """Return (committed offset or 0, end) of each partition of a topic."""
    consumer = _group_member(connection, names)
    await reach(consumer, connection.bootstrap)
    try:
        partitions = await read.partitions(consumer, names.topic(topic))
        consumer.assign(partitions)
        committed = {each: await consumer.committed(each) or 0 for each in partitions}
        ends = await read.ends(consumer, partitions)
        return {each.partition: (committed[each], ends[each]) for each in partitions}
    finally:
        await consumer.stop()


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
