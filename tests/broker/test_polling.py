"""The thread's poll on a consumer of aiokafka: one that a rebalance overtakes must not take records away."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.kafka import admin
from streams.worker.consumer_thread import BatchConsumerThread

pytestmark = [pytest.mark.broker, pytest.mark.everyday]


async def test_a_poll_that_a_rebalance_overtakes_puts_back_what_it_took(broker, names):
    await admin.apply(broker, names, 2)
    topic, values = names.topic("journal"), [b"%d" % number for number in range(4)]
    places = {TopicPartition(topic, partition) for partition in range(2)}

    def member() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(topic, **broker.options(), group_id=names.prefix, heartbeat_interval_ms=200)

    async with asyncio.timeout(60), AIOKafkaProducer(**broker.options()) as producer, member() as consumer:
        while consumer.assignment() != places:
            await asyncio.sleep(0.05)
        thread = BatchConsumerThread.__new__(BatchConsumerThread)
        thread.consumer = SimpleNamespace(flow_active=True)
        overtaken = asyncio.create_task(thread._fetch_records(consumer, places, timeout=40))
        async with member() as other:
            while len(consumer.assignment()) != 1 or not other.assignment():
                await asyncio.sleep(0.05)
            (place,) = consumer.assignment()
            consumer.seek(place, 0)
            for value in values:
                await producer.send_and_wait(topic, value, partition=place.partition)
            assert await overtaken == {}
            assert await consumer.position(place) == 0
            found = []
            while len(found) < len(values):
                found += (await thread._fetch_records(consumer, {place}, timeout=5)).get(place, [])
            assert [record.value for record in found] == values
