"""A paper execution engine: trades what allocations ask for at the last price, and reports as an engine should.

    python -m examples.paper_broker --bootstrap localhost:9092 --delay 2 --partial 0.3 --seconds 600 --json

It reads `allocations` by the reader's rule (sequence and hash chain), from its start on, and keeps its books in memory
alone. It publishes `positions` after fills, or every so often, and `outcomes` of the claims that it acted on when their
horizon is over (of signals that have a `signal_id`).

The rule for whoever reports positions: equity, quantities and `as_of_sequence` are of one moment. After a report with
`as_of_sequence` N, every order of allocations up to N is filled or given up: none of them changes the position any
more. An order whose target a later allocation repeats is still an order of the first one that asked for it.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from config.load import load
from examples.paper_account import Account
from examples.paper_claims import Claims
from schemas import wire
from schemas.errors import InvalidMessage
from schemas.signal import TacticalSignal
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import reach
from streams.kafka.login import connect
from streams.reports.allocation_reader import AllocationReader

PRICES_BACK = 2_000
"""Records of each partition of `prices` that are read from before the start."""


class PaperBroker:
    """Accounts of all portfolios, moved by what comes from Kafka and by the clock."""

    def __init__(self, options: argparse.Namespace, names: Names, producer: Any) -> None:
        self.options, self.names, self.producer = options, names, producer
        self.chance = random.Random(options.seed)  # noqa: S311 delays and fates, no secrets
        self.reader = AllocationReader()
        self.prices: dict[str, float] = {}
        self.claims = Claims(self.prices)
        self.accounts: dict[str, Account] = {}
        self.reported_ns: dict[str, int] = {}
        self.next_report_s = 0.0
        self.counts = dict.fromkeys(("signals", "refused", "reports", "lost", "doubled", "outcomes"), 0)

    def price(self, value: bytes) -> None:
        """Take the prices of one record; the worker makes a dead letter of one that cannot be taken."""
        try:
            ticks = wire.decode_prices(value, place="prices")
        except InvalidMessage:
            self.counts["refused"] += 1
            return
        self.prices.update((tick["symbol"], tick["price"]) for tick in ticks)

    def signal(self, value: bytes) -> None:
        """Take a signal, for its horizon alone."""
        self.counts["signals"] += 1
        try:
            self.claims.signal(wire.decode(TacticalSignal, value, place="signals"))
        except InvalidMessage:
            self.counts["refused"] += 1

    def allocation(self, value: bytes) -> None:
        """Take an allocation once; a fork or a gap ends the run."""
        taken = self.reader.take(value)
        if taken is None or self.options.portfolio not in {None, taken.fields["portfolio_id"]}:
            return
        portfolio = taken.fields["portfolio_id"]
        if portfolio not in self.accounts:
            cash = taken.fields["portfolio_value"]
            self.accounts[portfolio] = Account(cash, self.prices, self.options.fee)
        self.accounts[portfolio].take(taken.fields, time.monotonic() + self.delay())
        self.claims.take(taken.fields)

    def delay(self) -> float:
        """Return how long the next fill takes."""
        return self.options.delay * (self.chance.random() if self.options.random_delay else 1.0)

    async def trade(self) -> None:
        """Fill what is due, report what changed, or everything where it is time."""
        now_s = time.monotonic()
        periodic = self.options.report_every
        tell_all = bool(periodic) and now_s >= self.next_report_s
        if tell_all:
            self.next_report_s = now_s + periodic
        for portfolio, account in self.accounts.items():
            due = account.due(now_s)
            for symbol in due:
                whole = self.chance.random() >= self.options.partial
                account.fill(symbol, 1.0 if whole else self.chance.uniform(0.1, 0.9), now_s + self.delay())
            if tell_all or (due and not periodic):
                await self.report(portfolio, account)

    async def report(self, portfolio: str, account: Account) -> None:
        """Publish what a portfolio holds; some reports are lost, some come twice."""
        now_ns = self.reported_ns[portfolio] = max(time.time_ns(), self.reported_ns.get(portfolio, 0) + 1)
        told = account.report(portfolio, now_ns)
        if self.chance.random() < self.options.lose:
            self.counts["lost"] += 1
            return
        again = self.chance.random() < self.options.double
        self.counts["reports"] += 1
        self.counts["doubled"] += again
        for _ in range(1 + again):
            await self.send("positions", portfolio, told)

    async def settle(self) -> None:
        """Publish what became of the claims whose horizon is over."""
        for outcome in self.claims.due(time.time_ns()):
            self.counts["outcomes"] += 1
            await self.send("outcomes", outcome["portfolio_id"], outcome)

    async def send(self, topic: str, key: str, message: dict[str, Any]) -> None:
        """Publish a message."""
        await self.producer.send_and_wait(self.names.topic(topic), orjson.dumps(message), key=key.encode())

    def summary(self) -> dict[str, Any]:
        """Return what was asked for, what was traded and what was told."""
        accounts = self.accounts.values()
        kinds = sorted({kind: None for account in accounts for kind in account.allocations})
        return {
            **self.counts,
            "portfolios": len(accounts),
            "allocations": {kind: sum(each.allocations.get(kind, 0) for each in accounts) for kind in kinds},
            "asked_usd": {kind: round(sum(each.asked_usd.get(kind, 0.0) for each in accounts), 2) for kind in kinds},
            "traded_usd": round(sum(each.traded_usd for each in accounts), 2),
            "fills": sum(each.fills for each in accounts),
            "on_order": sum(len(each.orders) for each in accounts),
            "repeats": self.reader.repeats,
        }


async def places(consumer: Any, connection: Any, names: Names) -> dict[str, str]:
    """Let a consumer begin at the end of its topics, of prices a little before; return their logical names."""
    every = await read.places_of(connection, map(names.topic, ("prices", "signals", "allocations")))
    found = [place for partitions in every.values() for place in partitions]
    consumer.assign(found)
    firsts, ends = await consumer.beginning_offsets(found), await consumer.end_offsets(found)
    for place in found:
        back = PRICES_BACK if place.topic == names.topic("prices") else 0
        consumer.seek(place, max(firsts[place], ends[place] - back))
    return {names.topic(name): name for name in ("prices", "signals", "allocations")}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Trade for so long, and return what came of it."""
    overrides = {"kafka.bootstrap_servers": options.bootstrap, "topics.prefix": options.prefix}
    given = {name: value for name, value in overrides.items() if value}
    settings = load(options.config, dict(os.environ), given).settings
    connection, names = connect(settings), Names(settings.topics.prefix)
    producer = AIOKafkaProducer(**connection.options(), acks="all")
    consumer = AIOKafkaConsumer(**connection.options(), enable_auto_commit=False, fetch_max_wait_ms=20)
    broker = PaperBroker(options, names, producer)
    take = {"prices": broker.price, "signals": broker.signal, "allocations": broker.allocation}
    await reach(producer, connection)
    await reach(consumer, connection)
    try:
        topics = await places(consumer, connection, names)
        print("paper broker ready", file=sys.stderr, flush=True)
        end_s = time.monotonic() + options.seconds
        while time.monotonic() < end_s:
            records: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=20)
            for place in sorted(records, key=lambda each: list(take).index(topics[each.topic])):
                for record in records[place]:
                    take[topics[place.topic]](record.value)
            await broker.trade()
            await broker.settle()
    finally:
        await consumer.stop()
        await producer.stop()
    return broker.summary()


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Trade on paper what allocations ask for, and report positions.")
    add = parser.add_argument
    add("--config", metavar="FILE", help="settings of himari: broker, login, prefix of the topics")
    add("--bootstrap", metavar="HOST:PORT", help="Kafka broker; wins over the settings")
    add("--prefix", help="prefix of the topics; wins over the settings")
    add("--portfolio", help="trade this portfolio alone; otherwise all")
    add("--delay", type=float, default=0.0, metavar="S", help="seconds from an allocation to its fills")
    add("--random-delay", action="store_true", help="let a fill take anything up to --delay")
    add("--partial", type=float, default=0.0, metavar="P", help="probability that a fill is a part; the rest follows")
    add("--fee", type=float, default=0.0, metavar="RATIO", help="fee, as a ratio of what is traded")
    add("--report-every", type=float, default=0.0, metavar="S", help="report so often; otherwise after fills")
    add("--lose", type=float, default=0.0, metavar="P", help="probability that a report is lost")
    add("--double", type=float, default=0.0, metavar="P", help="probability that a report comes twice")
    add("--seed", type=int, default=7, help="of the delays, parts and losses")
    add("--seconds", type=float, default=float("inf"), metavar="N", help="how long; otherwise until it is stopped")
    add("--json", action="store_true", help="print the summary as one JSON object")
    return parser.parse_args(arguments)


def main() -> None:
    """Trade, then say what came of it."""
    chosen = options()
    found = asyncio.run(run(chosen))
    print(json.dumps(found) if chosen.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
