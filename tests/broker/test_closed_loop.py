"""The loop closed on Apache Kafka: an engine that fills and reports makes nobody trade in circles."""

import asyncio
import time

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from broker.cluster import PARTITIONS, PATIENCE_S, Cluster
from worlds import PRICES, signal

from benchmarks.closed_loop import close, dead_letters
from streams.backtest.account import Account

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

LOOPS_S = 6.0
"""Seconds in which the engine of before made 300 allocations."""


async def listening(cluster: Cluster):
    consumer = AIOKafkaConsumer(**cluster.connection.options(), enable_auto_commit=False, fetch_max_wait_ms=20)
    await consumer.start()
    consumer.assign([TopicPartition(cluster.names.topic("allocations"), number) for number in range(PARTITIONS)])
    await consumer.seek_to_beginning()
    return consumer


async def priced(cluster: Cluster) -> bool:
    """Return whether the price of every symbol stands in the journal of every partition."""
    steps = [record.value for record in await cluster.records("journal") if b'"kind":"step"' in record.value]
    return all(sum(symbol.encode() in step for step in steps) >= PARTITIONS for symbol in PRICES)


@pytest.mark.parametrize(
    "equity", [pytest.param(True, id="with equity"), pytest.param(False, id="without", marks=pytest.mark.long)]
)
async def test_a_client_that_fills_exactly_and_reports_after_each_fill_sees_no_more_than_it_asked_for(
    kafka_broker, names, tmp_path, equity
):
    """`cases/clients/loop.py`, on our own client and without `as_of_sequence`, as clients were written so far."""
    cluster = Cluster(kafka_broker, names, tmp_path)
    await cluster.lay()
    claims = [(strategy, symbol) for symbol in PRICES for strategy in ("s1", "s2")]
    asked = [
        signal(time.time_ns(), signal_id=f"{strategy}-{symbol}", strategy_id=strategy, symbol=symbol, valid_for_s=600)
        for strategy, symbol in claims
    ]
    async with cluster.worker():
        for symbol, price in PRICES.items():
            await cluster.price(symbol, price)
        while not await priced(cluster):
            await asyncio.sleep(0.1)
        consumer = await listening(cluster)
        await cluster.publish("signals", asked)
        account = Account(100_000.0, dict(PRICES), fee_ratio=0.0005)
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                for record in records:
                    account.take(orjson.loads(record.value), 0.0)
                    for symbol in account.due(0.0):
                        account.fill(symbol)
                        told = account.report("main", time.time_ns())
                        del told["as_of_sequence"]
                        await cluster.publish("positions", [told if equity else told | {"equity": None}])
                        if account.allocations["signal"] == len(claims):
                            until_s = min(until_s, time.monotonic() + LOOPS_S)
        await consumer.stop()
    assert account.allocations["signal"] == len(claims)
    assert sum(account.allocations.values()) <= len(claims) + len(claims) + 2
    others = sum(usd for kind, usd in account.asked_usd.items() if kind != "signal")
    assert others <= 0.1 * account.asked_usd["signal"], (dict(account.asked_usd), dict(account.allocations))
    assert 0.0 < account.traded_usd <= account.asked_usd["signal"] + others
    assert await dead_letters(cluster.connection, names) == {}


@pytest.mark.long
async def test_the_paper_broker_at_20_signals_a_second_trades_what_signals_ask_for_and_lets_posteriors_move(
    kafka_broker, names, tmp_path
):
    cluster = Cluster(kafka_broker, names, tmp_path)
    await cluster.lay()
    switches = ("--delay", "1.5", "--random-delay", "--partial", "0.3", "--fee", "0.0005", "--double", "0.2")
    async with cluster.worker():
        found = await close(cluster.connection, names, 20.0, 20.0, 5.0, (*switches, "--lose", "0.2"))
    code, out, err = await cluster.himari("audit", "verify", "--json")
    assert (code, orjson.loads(out)["checked"]) == (0, sum(found["allocations"].values())), err
    assert found["dead_letters"] == {}
    assert (found["signals"], found["allocations"]["signal"]) == (400, 400)
    assert found["after_the_last_signal"] == []
    assert 0.0 < found["traded_usd"] <= found["asked_by_signals_usd"] + sum(found["asked_by_others_usd"].values())
    assert sum(found["asked_by_others_usd"].values()) <= 0.1 * found["asked_by_signals_usd"]
    assert found["broker"]["outcomes"] > 100
    assert found["cells_that_learnt"] == found["cells"] == 12
    assert found["broker"]["on_order"] == 0
