"""Orders to the workers: control records, and the answers of the journal partitions to them."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import journal
from streams.kafka import read
from streams.kafka.connection import Connection, reach
from streams.topics import PROGRESS, Names


async def settings_in_force(connection: Connection, names: Names) -> dict[str, Any]:
    """Return the decision settings in force on journal partition 0: what `progress` knows, and the journal after it.

    A change that is not folded yet is taken as applied if its base fits, as sizing will.
    """
    tree: dict[str, Any] = {}
    known, first = "", 0
    value = await read.newest(connection, TopicPartition(names.changelog(PROGRESS["journal"]), 0))
    if value is not None:
        progress = orjson.loads(value)
        tree, known = progress["meta"]["settings"], progress["meta"]["settings_hash"]
        first = progress["offset"] + 1
    async for record in read.records(connection, TopicPartition(names.topic(journal.TOPIC), 0), first):
        entry = journal.read(record.offset, record.value)
        if entry.kind == "genesis":
            tree, known = entry.body["settings"], entry.body["settings_hash"]
        elif entry.kind == "control" and entry.body["kind"] == "settings":
            payload = entry.body["payload"]
            if payload["base_hash"] == known:
                tree, known = payload["tree"], payload["hash"]
    return tree


async def give(connection: Connection, names: Names, order: Mapping[str, Any]) -> None:
    """Publish a control record; return when it is acknowledged."""
    producer = AIOKafkaProducer(**connection.options(), acks="all", enable_idempotence=False)
    await reach(producer, connection.bootstrap)
    try:
        value = orjson.dumps(order, option=orjson.OPT_SORT_KEYS)
        await producer.send_and_wait(names.topic("control"), value, key=str(order["kind"]).encode())
    finally:
        await producer.stop()


async def give_and_wait(
    connection: Connection, names: Names, order: Mapping[str, Any], partitions: int, timeout_s: float
) -> dict[int, str]:
    """Publish a control record; return each journal partition's answer, as far as they came within `timeout_s`."""
    consumer = AIOKafkaConsumer(**connection.options(), enable_auto_commit=False, fetch_max_wait_ms=50)
    await reach(consumer, connection.bootstrap)
    answers: dict[int, str] = {}
    try:
        places = await read.partitions(consumer, names.topic("alerts"))
        consumer.assign(places)
        await read.ends(consumer, places)
        await give(connection, names, order)
        async with asyncio.timeout(timeout_s):
            while len(answers) < partitions:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    answers |= _answers([record.value for record in records], order["control_id"])
    except TimeoutError:
        pass
    finally:
        await consumer.stop()
    return answers


def _answers(values: list[bytes], control_id: str) -> dict[int, str]:
    alerts = [orjson.loads(value) for value in values]
    return {
        alert["journal"]["partition"]: alert["result"]
        for alert in alerts
        if alert["kind"] == "control_applied" and alert["subject"] == control_id
    }
