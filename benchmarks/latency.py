"""Signal → allocation at 500 a second: the worker beside a bare relay with the same two hops."""

import asyncio
import statistics
import time
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.rig import Lane, broker, contestant, lane, signal

TARGET = 2.0
PER_SECOND = 500
BURST = 5
WARM_S = 12.0


async def run(kind: str, seconds: float = 8.0, runs: int = 3) -> dict[str, Any]:
    """Return p50 and p99 in ms, medians over the runs, and the ratio of the p99s."""
    found: dict[str, list[tuple[float, float]]] = {"worker": [], "relay": []}
    async with broker(kind) as (connection, folder):
        for _ in range(runs):
            for name, quantiles in found.items():
                at = await lane(connection, folder)
                async with contestant(at, name, 0):
                    await asyncio.sleep(WARM_S)
                    quantiles.append(await _measure(at, seconds))
    p50, p99 = ({name: statistics.median(q[k] for q in each) for name, each in found.items()} for k in (0, 1))
    over = statistics.median(w[1] / r[1] for w, r in zip(found["worker"], found["relay"], strict=True))
    return {
        "broker": kind,
        "per_second": PER_SECOND,
        "p50_ms": p50,
        "p99_ms": p99,
        "p99_over_relay": over,
        "target": TARGET,
    }


async def _measure(at: Lane, seconds: float) -> tuple[float, float]:
    producer = AIOKafkaProducer(**at.connection.options(), acks="all")
    consumer = AIOKafkaConsumer(**at.connection.options(), enable_auto_commit=False, fetch_max_wait_ms=50)
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(at.names.topic("allocations"), 0)])
    sent_at: dict[str, float] = {}
    took: list[float] = []
    count = int(seconds * PER_SECOND)

    async def read() -> None:
        while len(took) < count:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                now = time.perf_counter()
                took.extend(now - sent for record in records if (sent := sent_at.pop(_id(record.value), None)))

    reading = asyncio.create_task(read())
    began = time.perf_counter()
    for number in range(count):
        body = signal(number, time.time_ns(), 10)
        sent_at[body["signal_id"]] = time.perf_counter()
        await producer.send(at.names.topic("signals"), orjson.dumps(body), partition=0)
        if number % BURST == 0:
            await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.perf_counter()))
    await asyncio.wait_for(reading, 60.0)
    await producer.stop()
    await consumer.stop()
    ordered = sorted(took)
    return 1e3 * ordered[len(ordered) // 2], 1e3 * ordered[int(0.99 * len(ordered))]


def _id(value: bytes) -> str:
    """Return the signal's id: of an allocation, or of the signal itself as the relay brings it."""
    fields = orjson.loads(value)
    trigger = fields.get("trigger")
    return str(fields.get("signal_id") if trigger is None else trigger["id"])
