"""Signal-to-allocation latency at 500 signals/s: the worker against a relay with the same two hops."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.rig import PATIENCE_S, Lane, broker, contestant, lane, preload, prices, ratios, signal, spread

TARGET = 2.0
"""p99 of the worker over that of the relay, at most."""
PER_SECOND = 500
BURST = 5
WARM_S = 3.0
PORTFOLIOS = 10


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return p50 and p99 in ms from `send` to receipt by the consumer, and the ratios of worker to relay."""
    runs, seconds = (1, 2.0) if quick else (5, 8.0)
    took: dict[str, list[tuple[float, float]]] = {"worker": [], "relay": []}
    async with broker(kind) as (connection, folder):
        for _ in range(runs):
            for name, quantiles in took.items():
                at = await lane(connection, folder)
                await preload(at, "journal", [prices(time.time_ns() // 10**9 * 10**9)])
                async with contestant(at, name), talking(at) as client:
                    quantiles.append(await client.measure(seconds))
    p50, p99 = ({name: [pair[k] for pair in pairs] for name, pairs in took.items()} for k in (0, 1))
    return {
        "broker": kind,
        "per_second": PER_SECOND,
        "p50_ms": {name: spread(values) for name, values in p50.items()},
        "p99_ms": {name: spread(values) for name, values in p99.items()},
        "p50_over_relay": ratios(p50["worker"], p50["relay"]),
        "p99_over_relay": ratios(p99["worker"], p99["relay"]),
        "target": TARGET,
    }


class Client:
    """Sends signals at a fixed rate, and measures the time until each is answered."""

    def __init__(self, at: Lane, producer: Any, consumer: Any, per_second: int = PER_SECOND) -> None:
        self.at, self.producer, self.consumer, self.per_second = at, producer, consumer, per_second
        self.number = 0
        self.sent_at: dict[str, float] = {}
        self.took: list[float] = []

    async def measure(self, seconds: float) -> tuple[float, float]:
        """Return p50 and p99 in ms, measured after a warm-up."""
        reading = asyncio.create_task(self.read())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not self.took:
                    await self.send(0.1)
                await self.send(WARM_S)
                await self.answered()
                self.took.clear()
                await self.send(seconds)
                await self.answered()
        finally:
            reading.cancel()
        found = statistics.quantiles(self.took, n=100)
        return 1e3 * found[49], 1e3 * found[98]

    async def send(self, seconds: float) -> None:
        """Send for `seconds`, in bursts."""
        began = time.perf_counter()
        for number in range(int(seconds * self.per_second)):
            body = signal(self.number, time.time_ns(), PORTFOLIOS)
            self.number += 1
            self.sent_at[body["signal_id"]] = time.perf_counter()
            await self.producer.send(self.at.names.topic("signals"), orjson.dumps(body), partition=0)
            if number % BURST == 0:
                await asyncio.sleep(max(0.0, began + number / self.per_second - time.perf_counter()))

    async def answered(self) -> None:
        """Wait until every signal is answered."""
        while self.sent_at:
            await asyncio.sleep(0.01)

    async def read(self) -> None:
        """Record answers as they arrive."""
        while True:
            for records in (await self.consumer.getmany(timeout_ms=100)).values():
                now = time.perf_counter()
                self.took += [now - sent for each in records if (sent := self.sent_at.pop(_id(each.value), None))]


@asynccontextmanager
async def talking(at: Lane, per_second: int = PER_SECOND) -> AsyncIterator[Client]:
    """Yield a started client on a lane."""
    producer = AIOKafkaProducer(**at.connection.options(), acks="all")
    consumer = AIOKafkaConsumer(**at.connection.options(), enable_auto_commit=False, fetch_max_wait_ms=50)
    await producer.start()
    await consumer.start()
    place = TopicPartition(at.names.topic("allocations"), 0)
    consumer.assign([place])
    consumer.seek(place, 0)
    try:
        yield Client(at, producer, consumer, per_second)
    finally:
        await producer.stop()
        await consumer.stop()


def _id(value: bytes) -> str:
    """Return the signal id of an allocation, or of a record forwarded by the relay."""
    fields = orjson.loads(value)
    trigger = fields.get("trigger")
    return str(fields.get("signal_id") if trigger is None else trigger["id"])
