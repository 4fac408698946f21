"""The load under which a worker is hurt: every kind of input, drawn by a seed, each with what must become of it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer
from worlds import PRICES, SYMBOLS, control, signal, tick

from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.processing.partitioner import partition_of
from streams.stages.ingest import EVERYWHERE
from streams.stages.market import SECOND_NS

PAUSE_S = 0.15
SIGNALS_A_BURST = 10
STRATEGIES = ("momentum", "reversion", "carry")
PORTFOLIOS = ("main", "alpha", "beta", "gamma")

Fate = Literal["answered", "duplicate", "older", "refused", "taken"]
"""What must become of an input: an allocation, nothing (twice), a dead letter; taken: it must be in the journal."""


class Sent(NamedTuple):
    """One acknowledged input."""

    topic: str
    value: bytes
    fate: Fate
    portfolio: str
    """Whose journal partition takes it; "": all do."""
    signal_id: str = ""


class Load:
    """Traffic of several portfolios, strategies and symbols. One portfolio's signals keep to one partition."""

    def __init__(self, connection: Connection, names: Names, seed: int) -> None:
        self.connection, self.names, self.chance = connection, names, random.Random(seed)
        self.sent: list[Sent] = []
        self.steps: set[tuple[int, int]] = set()
        """(partition of `prices`, second) of every tick that came in time."""
        self.partitions = 2
        """Of `signals`; the portfolios are spread over them."""
        self.portfolios = PORTFOLIOS
        self.ahead = False
        """Whether the workers' clocks are so far behind that all of it is refused as of the future."""
        self._cells: dict[tuple[str, str, str], Sent] = {}
        """The last good signal of each cell."""
        self._count = 0
        self._halted = False

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send bursts until the block ends; every record is acknowledged then."""
        stop = asyncio.Event()
        flow = asyncio.create_task(self._flow(stop))
        try:
            yield
        finally:
            stop.set()
            await flow

    async def burst(self, count: int = 1) -> None:
        """Send so many bursts at once."""
        async with self._producer() as producer:
            for _ in range(count):
                await self._burst(producer)

    async def send(self, *records: tuple[Sent, int]) -> None:
        """Send records of the caller's own, each to a partition."""
        async with self._producer() as producer:
            await self._send(producer, list(records))

    async def repeat(self) -> None:
        """Send every signal again, and ticks and positions of a minute ago."""
        late_ns = time.time_ns() - 60 * SECOND_NS
        again = [each._replace(fate="duplicate") for each in self.sent if each.fate == "answered"]
        late = Sent("prices", orjson.dumps(tick(late_ns, "BTC-USD")), "taken", EVERYWHERE)
        held = {"portfolio_id": "gamma", "timestamp_ns": late_ns, "quantities": {"BTC-USD": 9.0}}
        places = [(each, partition_of(each.portfolio.encode(), self.partitions)) for each in again]
        await self.send(*places, (late, partition_of(b"BTC-USD", 2)), *self._of("positions", held, "gamma"))

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(**self.connection.options(), acks="all", enable_idempotence=True)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def _flow(self, stop: asyncio.Event) -> None:
        async with self._producer() as producer:
            while not stop.is_set():
                await self._burst(producer)
                await asyncio.sleep(PAUSE_S)

    async def _burst(self, producer: AIOKafkaProducer) -> None:
        records = [self._tick(symbol) for symbol in SYMBOLS]
        records += [each for _ in range(SIGNALS_A_BURST) for each in self._signal()]
        for draw, chance in ((self._outcome, 0.5), (self._readings, 0.2), (self._value, 0.05), (self._order, 0.03)):
            if self.chance.random() < chance:
                records += draw()
        await self._send(producer, records)

    async def _send(self, producer: AIOKafkaProducer, records: list[tuple[Sent, int]]) -> None:
        pending = [
            await producer.send(self.names.topic(each.topic), each.value, partition=partition)
            for each, partition in records
        ]
        await asyncio.gather(*pending)
        self.sent += [each._replace(fate="refused") if self.ahead else each for each, _ in records]

    # -- what is drawn ---------------------------------------------------------------------------------------------
    def _tick(self, symbol: str) -> tuple[Sent, int]:
        now_ns, partition = time.time_ns(), partition_of(symbol.encode(), 2)
        price = PRICES[symbol] * self.chance.uniform(0.98, 1.02)
        if not self.ahead:
            self.steps.add((partition, (now_ns - 1) // SECOND_NS))
        return Sent("prices", orjson.dumps(tick(now_ns, symbol, price)), "taken", EVERYWHERE), partition

    def _signal(self) -> list[tuple[Sent, int]]:
        """Draw a signal; sometimes with what must not be answered after it: itself, an older one, a bad one."""
        portfolio = self.chance.choice(self.portfolios)
        key = (portfolio, self.chance.choice(STRATEGIES), self.chance.choice(SYMBOLS))
        now_ns = time.time_ns()
        self._cells[key] = good = self._named(key, now_ns, "answered")
        drawn = [good]
        if self.chance.random() < 0.1:
            drawn.append(good._replace(fate="duplicate"))
        if self.chance.random() < 0.05:
            drawn.append(self._named(key, now_ns - SECOND_NS, "older"))
        if self.chance.random() < 0.03:
            drawn.append(self._named(key, now_ns, "refused", confidence=2.0))
        partition = partition_of(portfolio.encode(), self.partitions)
        return [(each, partition) for each in drawn]

    def _named(self, key: tuple[str, str, str], now_ns: int, fate: Fate, **given: Any) -> Sent:
        self._count += 1
        portfolio, strategy, symbol = key
        action = self.chance.choice(("buy", "strong_buy", "hold", "sell", "strong_sell"))
        fields = {
            "signal_id": f"s-{self._count}",
            "portfolio_id": portfolio,
            "strategy_id": strategy,
            "symbol": symbol,
            "action": action,
            "confidence": round(self.chance.random(), 3),
            "expected_return": round(self.chance.uniform(0.0, 0.05), 4) * (-1 if "sell" in action else 1),
            "valid_for_s": self.chance.choice((2, 60, 3600)),
        }
        value = orjson.dumps(signal(now_ns, **(fields | given)))
        return Sent("signals", value, fate, portfolio, fields["signal_id"])

    def _outcome(self) -> list[tuple[Sent, int]]:
        (portfolio, strategy, symbol), claimed = self.chance.choice(list(self._cells.items()))
        outcome = {
            "portfolio_id": portfolio,
            "strategy_id": strategy,
            "symbol": symbol,
            "signal_id": claimed.signal_id,
            "side": -1 if b"sell" in claimed.value else 1,
            "realized_return": round(self.chance.uniform(-0.05, 0.05), 4),
            "timestamp_ns": time.time_ns(),
        }
        return self._of("outcomes", outcome, portfolio)

    def _readings(self) -> list[tuple[Sent, int]]:
        readings = {
            "symbol": self.chance.choice(SYMBOLS),
            "onchain_whale_pressure": round(self.chance.random(), 3),
            "oi_change_pct": -round(self.chance.random(), 3),
            "timestamp_ns": time.time_ns(),
        }
        return self._of("cascade-indicators", readings, EVERYWHERE)

    def _value(self) -> list[tuple[Sent, int]]:
        """Tell a portfolio's equity, or (gamma's) what it holds."""
        portfolio, value = self.chance.choice(self.portfolios), round(self.chance.uniform(80_000, 120_000), 2)
        if portfolio == "gamma":
            held = {symbol: round(self.chance.uniform(-0.5, 0.5), 3) for symbol in SYMBOLS}
            body = {"portfolio_id": portfolio, "timestamp_ns": time.time_ns(), "equity": value, "quantities": held}
            return self._of("positions", body, portfolio)
        payload = {"portfolio_id": portfolio, "value_usd": value}
        return self._of("control", control(time.time_ns(), "portfolio_value", payload, self._order_id()), portfolio)

    def _order(self) -> list[tuple[Sent, int]]:
        """Halt a symbol, or end that."""
        self._halted = not self._halted
        payload = {"scope": "symbol:SOL-USD", "state": "HALTED" if self._halted else "ACTIVE"}
        return self._of("control", control(time.time_ns(), "trading_state", payload, self._order_id()), EVERYWHERE)

    def _order_id(self) -> str:
        self._count += 1
        return f"c-{self._count}"

    def _of(self, topic: str, body: Mapping[str, Any], portfolio: str) -> list[tuple[Sent, int]]:
        return [(Sent(topic, orjson.dumps(body), "taken", portfolio), 0)]
