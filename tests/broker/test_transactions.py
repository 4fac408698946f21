"""Producers that write in transactions: what is aborted or still open is not traded, and what follows waits for it."""

import asyncio
import time

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from broker.cluster import PARTITIONS, Cluster
from worlds import signal, tick

from streams.kafka import read
from streams.processing.partitioner import partition_of

pytestmark = [pytest.mark.broker, pytest.mark.long]

SYMBOL, PORTFOLIO = "BTC-USD", "main"
PLACE = partition_of(PORTFOLIO.encode(), PARTITIONS)


def claim(name: str) -> bytes:
    return orjson.dumps(signal(time.time_ns(), signal_id=name, valid_for_s=3_600))


async def decided(cluster: Cluster) -> list[str]:
    return [orjson.loads(record.value)["trigger"]["id"] for record in await cluster.records("allocations")]


async def test_aborted_records_are_not_traded_and_open_ones_wait_for_their_commit(kafka_broker, names, tmp_path):
    cluster = Cluster(kafka_broker, names, tmp_path)
    await cluster.lay()
    producer = AIOKafkaProducer(**kafka_broker.options(), transactional_id=names.prefix)
    await producer.start()
    signals, prices = names.topic("signals"), names.topic("prices")
    try:
        async with cluster.worker():
            await cluster.price(SYMBOL, 43_500.0)
            async with producer.transaction():
                await producer.send_and_wait(signals, claim("committed"), partition=PLACE)
            await cluster.answered(["committed"])

            await producer.begin_transaction()
            await producer.send_and_wait(signals, claim("aborted"), partition=PLACE)
            wrong = orjson.dumps(tick(time.time_ns(), SYMBOL, 47_000.0))
            await producer.send_and_wait(prices, wrong, partition=partition_of(SYMBOL.encode(), PARTITIONS))
            await asyncio.sleep(0.5)
            await producer.abort_transaction()
            await cluster.publish("signals", [claim("after")], PLACE)
            found = await cluster.answered(["committed", "after"])
            assert found[-1]["diagnostics"]["price"] == 43_500.0

            await producer.begin_transaction()
            await producer.send_and_wait(signals, claim("open"), partition=PLACE)
            await cluster.publish("signals", [claim("behind")], PLACE)
            elsewhere = signal(time.time_ns(), signal_id="elsewhere", portfolio_id="p-1", valid_for_s=3_600)
            assert partition_of(b"p-1", PARTITIONS) != PLACE
            await cluster.publish("signals", [elsewhere], 1 - PLACE)
            await cluster.answered(["elsewhere"])
            assert {"open", "behind"}.isdisjoint(await decided(cluster))
            place = TopicPartition(signals, PLACE)
            assert [record.value async for record in read.records(kafka_broker, place, 0)][-1] != claim("open")
            await producer.commit_transaction()
            await cluster.answered(["open", "behind"])
            assert "aborted" not in await decided(cluster)
        code, out, err = await cluster.himari("tail", "signals", "--from-beginning", "--max", "5", "--json")
        assert (code, "aborted" in out) == (0, False), err
        code, out, err = await cluster.himari("audit", "verify")
        assert code == 0, out + err
    finally:
        await producer.stop()
