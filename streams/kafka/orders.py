"""Orders to the workers: control records, and the journal partitions' answers."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from schemas.errors import NotAllowed, TopicsUnfit, Unheard
from streams.journal import entries as journal
from streams.journal.topics import PROGRESS, Names
from streams.kafka import read
from streams.kafka.connection import Connection, reach
from streams.stages.control import Ordered, SettingsInForce, asked, behind, ordered

WINDOW = 10_000
"""Journal entries searched for an order, from the end; then ten times as many, and so on."""

LISTEN_S = 10.0
"""How long to wait for access to the answers' topics before an order is given without it."""


async def settings_in_force(connection: Connection, names: Names) -> dict[str, Any]:
    """Return the decision settings in force on journal partition 0: its last checkpoint, and the entries after it.

    Changes that no worker has folded yet are judged as sizing will judge them.
    """
    in_force, first = SettingsInForce(), 0
    value = await read.newest(connection, TopicPartition(names.changelog(PROGRESS["journal"]), 0))
    if value is not None:
        progress = orjson.loads(value)
        in_force, first = SettingsInForce(progress["meta"]), progress["offset"] + 1
    async with aclosing(read.records(connection, TopicPartition(names.topic(journal.TOPIC), 0), first)) as records:
        async for record in records:
            in_force.take(journal.read(record.offset, record.value, record.partition))
    return dict(in_force.tree)


async def give(connection: Connection, names: Names, order: Mapping[str, Any]) -> None:
    """Publish a control record; return when it is acknowledged. Orders of one kind keep their order.

    Raises:
        TopicsUnfit: there is no such topic.
        NotAllowed: the broker denies it.
    """
    topic = names.topic("control")
    await read.places(connection, topic)
    producer = AIOKafkaProducer(**connection.options(), acks="all", enable_idempotence=False)
    await reach(producer, connection)
    try:
        value = orjson.dumps(order, option=orjson.OPT_SORT_KEYS)
        await producer.send_and_wait(topic, value, key=str(order["kind"]).encode())
    except TopicAuthorizationFailedError as error:
        msg = f"{topic}: the broker denies this user: write; nothing was ordered"
        raise NotAllowed(msg) from error
    finally:
        await producer.stop()


class OrderAnswers(NamedTuple):
    """The journal partitions' answers to an order."""

    answers: dict[int, str]
    """Partition → applied, no_op, or the reason for a refusal."""
    missing: list[int]
    """Partitions that did not answer in time."""


async def give_and_wait(
    connection: Connection, names: Names, order: Mapping[str, Any], timeout_s: float
) -> OrderAnswers:
    """Publish a control record; return the answers of its journal partitions within `timeout_s`.

    It is published even if the answers cannot be read.

    Raises:
        InvalidControlException: it would become a dead letter.
        TopicsUnfit: as `give`.
        NotAllowed: as `give`.
        Unheard: it is ordered, but the topics of the answers are unavailable, or this user may not read them.
    """
    asked(order, 1)
    consumer = AIOKafkaConsumer(**connection.reading(), fetch_max_wait_ms=50)
    await reach(consumer, connection)
    answers: dict[int, str] = {}
    try:
        try:
            partitions = await _listen(consumer, connection, names, order)
        except (TopicsUnfit, NotAllowed, TopicAuthorizationFailedError, TimeoutError) as error:
            await give(connection, names, order)
            why = str(error) or f"{names.topic('alerts')} did not answer within {LISTEN_S:g} s"
            msg = f"ordered {order['control_id']}; whether it is in force is not known: {why}"
            raise Unheard(msg) from error
        await give(connection, names, order)
        async with asyncio.timeout(timeout_s):
            while len(answers) < len(partitions):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    answers |= _answers([record.value for record in records], order["control_id"])
    except TimeoutError:
        pass
    finally:
        await consumer.stop()
    return OrderAnswers(answers, [partition for partition in partitions if partition not in answers])


async def _listen(
    consumer: AIOKafkaConsumer, connection: Connection, names: Names, order: Mapping[str, Any]
) -> list[int]:
    """Move to the end of `alerts`; return the journal partitions that will answer."""
    async with asyncio.timeout(LISTEN_S):
        partitions = asked(order, len(await read.places(connection, names.topic(journal.TOPIC))))
        places = await read.places(connection, names.topic("alerts"))
        consumer.assign(places)
        await read.ends(consumer, places)
    return partitions


def _answers(values: list[bytes], control_id: str) -> dict[int, str]:
    alerts = [orjson.loads(value) for value in values]
    return {
        alert["journal"]["partition"]: alert["result"]
        for alert in alerts
        if alert["kind"] == "control_applied" and alert["subject"] == control_id
    }


# -- reading back ---------------------------------------------------------------------------------------------------
async def orders(
    connection: Connection, names: Names, partition: int, first: int = 0, end: int | None = None
) -> list[Ordered]:
    """Return the orders in a journal partition from `first` up to, not including, `end`, repeats included."""
    place = TopicPartition(names.topic(journal.TOPIC), partition)
    async with aclosing(read.records(connection, place, first, end)) as records:
        return [order async for record in records if (order := ordered(record.offset, record.value)) is not None]


async def orders_behind(
    connection: Connection, names: Names, partition: int, scopes: Mapping[str, str]
) -> dict[str, Ordered]:
    """Return the order behind each trading state in force; the journal is searched from its end."""
    place = TopicPartition(names.topic(journal.TOPIC), partition)
    end, window = (await read.high_watermarks(connection, [place]))[place], WINDOW
    while True:
        first = max(0, end - window)
        found = behind(scopes, await orders(connection, names, partition, first, end))
        if first == 0 or found.keys() >= scopes.keys():
            return found
        window *= 10
