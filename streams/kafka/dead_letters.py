"""Dead letters on a broker: read, checked for earlier replays, and replayed."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from schemas.base import RECORD_BYTES_MAX
from schemas.errors import NotAllowed, NotFound
from streams.journal import entries as journal
from streams.journal.dead_letters import REPLAY_OF, Letter, headers_in, replayed
from streams.journal.topics import DLQ, ROOM, Names
from streams.kafka import read
from streams.kafka.connection import Connection, reach
from streams.processing.ports import Send

AT_ONCE = 4
"""Partitions read in parallel."""
SLACK_MS = 3_600_000
"""Largest clock difference between producers."""


async def letters(connection: Connection, names: Names, topics: Iterable[str]) -> list[Letter]:
    """Return the dead letters of source topics, by time.

    Raises:
        TopicsUnfit: a dead-letter topic is missing.
    """
    sources = {names.topic(topic + DLQ): topic for topic in topics}
    places = [place for each in (await read.places_of(connection, sources)).values() for place in each]
    async with aclosing(read.records_of(connection, dict.fromkeys(places, 0))) as records:
        found = [_letter(sources[record.topic], record) async for record in records]
    return sorted(found, key=lambda each: (each.timestamp_ms, each.topic, each.partition, each.offset))


async def one(connection: Connection, names: Names, topic: str, partition: int, offset: int) -> Letter:
    """Return one dead letter.

    Raises:
        NotFound: it does not exist, or no longer.
        TopicsUnfit: its topic is missing.
    """
    try:
        record = await read.one(connection, TopicPartition(names.topic(topic + DLQ), partition), offset)
    except NotFound:
        msg = f"{topic}{DLQ}/{partition}/{offset}: no such dead letter"
        raise NotFound(msg) from None
    return _letter(topic, record)


def _letter(topic: str, record: Any) -> Letter:
    return Letter(
        topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )


# -- earlier replays -------------------------------------------------------------------------------------------------
async def replayed_before(connection: Connection, names: Names, topic: str, since_ms: int) -> dict[str, str]:
    """Return the dead letters of a source topic that were replayed after a time, with the place of each replay.

    They are found by the headers in the source topic, and in the journal, which outlives the topic's retention.
    """
    sources = await read.places(connection, names.topic(topic))
    entries = await read.places(connection, names.topic(journal.TOPIC))
    slots = asyncio.Semaphore(AT_ONCE)

    async def look(place: TopicPartition, *, journaled: bool) -> dict[str, str]:
        async with slots:
            return await _replays(connection, place, since_ms - SLACK_MS, journaled=journaled)

    tasks = [look(place, journaled=True) for place in entries] + [look(place, journaled=False) for place in sources]
    found: dict[str, str] = {}
    for each in await asyncio.gather(*tasks):
        found |= each
    return found


async def _replays(connection: Connection, place: TopicPartition, since_ms: int, *, journaled: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    first = await read.offset_at(connection, place, since_ms)
    async with aclosing(read.records(connection, place, first)) as records:
        async for record in records:
            headers = _journaled(record.value) if journaled else record.headers
            found |= dict.fromkeys(replayed(headers), f"{place.topic}/{place.partition}/{record.offset}")
    return found


def _journaled(value: bytes | None) -> list[tuple[str, bytes]]:
    if value is None or REPLAY_OF.encode() not in value:
        return []
    return headers_in(orjson.loads(value))


# -- replay ----------------------------------------------------------------------------------------------------------
async def send_back(connection: Connection, names: Names, sends: Sequence[Send]) -> list[str]:
    """Send records to their topics one by one, each acknowledged; return their places.

    Raises:
        NotAllowed: the broker refuses.
    """
    producer = AIOKafkaProducer(
        **connection.options(), acks="all", enable_idempotence=False, max_request_size=RECORD_BYTES_MAX + ROOM
    )
    await reach(producer, connection)
    places = []
    try:
        for send in sends:
            topic = names.topic(send.topic)
            sent = await producer.send_and_wait(
                topic, send.value, send.key, partition=send.partition, headers=list(send.headers)
            )
            places.append(f"{topic}/{sent.partition}/{sent.offset}")
    except TopicAuthorizationFailedError as error:
        msg = f"{topic}: the broker denies this user: write; {len(places)} of {len(sends)} were sent"
        raise NotAllowed(msg) from error
    finally:
        await producer.stop()
    return places
