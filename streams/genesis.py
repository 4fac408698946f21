"""Genesis: what makes an empty log a journal, and how a worker knows which journal it has."""

import hashlib
from base64 import b32encode
from importlib.metadata import version
from secrets import token_bytes
from typing import NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition

from engines.allocation import DECISION_VERSION
from engines.parameters import DecisionParams, tree_hash
from schemas.errors import TopicsUnfit
from streams import journal, read
from streams.connection import Connection, reach
from streams.tables import Line, append
from streams.topics import JOURNAL_BYTES_MAX, ROOM, Names


class Origin(NamedTuple):
    """What entry 0 of every journal partition says."""

    journal_id: str
    partitions: int
    params: DecisionParams
    version: str
    """Of this package, not of the journal: it goes into the headers of what is published."""


def new_journal_id(seed: int | None = None) -> str:
    """Return 8 base32 characters: by chance, or from a seed where a demo has to repeat itself."""
    raw = token_bytes(5) if seed is None else hashlib.sha256(f"journal {seed}".encode()).digest()[:5]
    return b32encode(raw).decode()


def genesis(journal_id: str, partitions: int, params: DecisionParams, now_ns: int) -> bytes:
    """Return entry 0 of every journal partition."""
    body = {
        "decision_version": DECISION_VERSION,
        "journal_id": journal_id,
        "partitions": partitions,
        "settings": params.model_dump(),
        "settings_hash": tree_hash(params),
    }
    return journal.internal("genesis", body, now_ns)


async def begin(connection: Connection, names: Names, partitions: int, value: bytes) -> bool:
    """Write Genesis to the journal partitions that are empty; return whether any was.

    A half-done set is completed with the Genesis that is there, so that all partitions begin with the same bytes.
    """
    found = await _first_entries(connection, names, partitions)
    empty = [partition for partition, entry in enumerate(found) if entry is None]
    there = next((entry for entry in found if entry is not None), value)
    await _append(connection, names, empty, there)
    return bool(empty)


async def appended(connection: Connection, names: Names, value: bytes) -> None:
    """Append an entry of our own to every journal partition."""
    partitions = len(await _first_entries(connection, names, await _count(connection, names)))
    await _append(connection, names, list(range(partitions)), value)


async def origin(connection: Connection, names: Names, partitions: int) -> Origin:
    """Return what the journal begins with.

    Raises:
        TopicsUnfit: a partition is empty or begins otherwise; the text says what to run.
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
    found: list[bytes | None] = []
    for partition in range(partitions):
        place = TopicPartition(names.topic(journal.TOPIC), partition)
        values = [record.value async for record in read.records(connection, place, 0, 1)]
        found.append(values[0] if values else None)
    return found


async def _count(connection: Connection, names: Names) -> int:
    async with read.reader(connection, []) as consumer:
        return len(await read.partitions(consumer, names.topic(journal.TOPIC)))


async def _append(connection: Connection, names: Names, partitions: list[int], value: bytes) -> None:
    producer = AIOKafkaProducer(
        **connection.options(), acks="all", enable_idempotence=False, max_request_size=JOURNAL_BYTES_MAX + ROOM
    )
    await reach(producer, connection.bootstrap)
    try:
        for partition in partitions:
            await append(producer, TopicPartition(names.topic(journal.TOPIC), partition), [Line(None, value)])
    finally:
        await producer.stop()
