"""A paper execution engine: fills allocations at the last price, and reports positions and outcomes.

    python -m examples.paper_broker --bootstrap localhost:9092 --delay 2 --partial 0.3 --seconds 600 --json

It reads `allocations` by the reader's rule (sequence and hash chain) from the time it starts, and keeps its books in
memory only. It publishes `positions` after fills or at an interval, and `outcomes` of the claims it acted on once their
horizon is over (for signals with a `signal_id`).

The rule for reporting positions: equity, quantities and `as_of_sequence` belong to one moment. After a report with
`as_of_sequence` N, every order of allocations up to N is filled or cancelled, so none of them changes the position any
more. An order whose target is repeated by a later allocation still belongs to the first one that requested it.
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
from examples.paper_claims import Claims
from schemas import wire
from schemas.errors import InvalidMessage
from schemas.signal import TacticalSignal
from streams.backtest.account import Account
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import reach
from streams.kafka.login import connect
from streams.reports.allocation_reader import AllocationReader

PRICES_BACK = 2_000
"""Records per partition of `prices` read from before the start."""


class PaperBroker:
    """The accounts of all portfolios, updated from Kafka and by the clock."""

    def __init__(self, options: argparse.Namespace, names: Names, producer: Any) -> None:
        self.options, self.names, self.producer = options, names, producer
        self.rng = random.Random(options.seed)  # noqa: S311 delays and faults, no secrets
        self.reader = AllocationReader()
        self.prices: dict[str, float] = {}
        self.claims = Claims(self.prices)
        self.accounts: dict[str, Account] = {}
        self.reported_ns: dict[str, int] = {}
        self.next_report_s = 0.0
        self.counts = dict.fromkeys(("signals", "refused", "reports", "lost", "doubled", "outcomes"), 0)

    def price(self, value: bytes) -> None:
        """Update prices from one record; an invalid one becomes a dead letter in the worker."""
        try:
            ticks = wire.decode_prices(value, place="prices")
        except InvalidMessage:
            self.counts["refused"] += 1
            return
        self.prices.update((tick["symbol"], tick["price"]) for tick in ticks)

    def signal(self, value: bytes) -> None:
        """Record a signal's horizon."""
        self.counts["signals"] += 1
        try:
            self.claims.signal(wire.decode(TacticalSignal, value, place="signals"))
        except InvalidMessage:
            self.counts["refused"] += 1

    def allocation(self, value: bytes) -> None:
        """Apply an allocation once; a fork or a gap ends the run."""
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
        """Return the delay of the next fill, s."""
        return self.options.delay * (self.rng.random() if self.options.random_delay else 1.0)

    async def trade(self) -> None:
        """Fill due orders; report changed accounts, or all of them at the report interval."""
        now_s = time.monotonic()
        periodic = self.options.report_every
        report_all = bool(periodic) and now_s >= self.next_report_s
        if report_all:
            self.next_report_s = now_s + periodic
        for portfolio, account in self.accounts.items():
            due = account.due(now_s)
            for symbol in due:
                whole = self.rng.random() >= self.options.partial
                account.fill(symbol, 1.0 if whole else self.rng.uniform(0.1, 0.9), now_s + self.delay())
            if report_all or (due and not periodic):
                await self.report(portfolio, account)

    async def report(self, portfolio: str, account: Account) -> None:
        """Publish a portfolio's positions; some reports are lost, some duplicated."""
        now_ns = self.reported_ns[portfolio] = max(time.time_ns(), self.reported_ns.get(portfolio, 0) + 1)
        message = account.report(portfolio, now_ns)
        if self.rng.random() < self.options.lose:
            self.counts["lost"] += 1
            return
        again = self.rng.random() < self.options.double
        self.counts["reports"] += 1
        self.counts["doubled"] += again
        for _ in range(1 + again):
            await self.send("positions", portfolio, message)

    async def settle(self) -> None:
        """Publish the outcomes of claims whose horizon is over."""
        for outcome in self.claims.due(time.time_ns()):
            self.counts["outcomes"] += 1
            await self.send("outcomes", outcome["portfolio_id"], outcome)

    async def send(self, topic: str, key: str, message: dict[str, Any]) -> None:
        """Publish a message."""
        await self.producer.send_and_wait(self.names.topic(topic), orjson.dumps(message), key=key.encode())

    def summary(self) -> dict[str, Any]:
        """Return what was requested, traded and reported."""
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
    """Position a consumer at the end of its topics, for prices a little earlier; return their logical names."""
    every = await read.places_of(connection, map(names.topic, ("prices", "signals", "allocations")))
    found = [place for partitions in every.values() for place in partitions]
    consumer.assign(found)
    firsts, ends = await consumer.beginning_offsets(found), await consumer.end_offsets(found)
    for place in found:
        back = PRICES_BACK if place.topic == names.topic("prices") else 0
        consumer.seek(place, max(firsts[place], ends[place] - back))
    return {names.topic(name): name for name in ("prices", "signals", "allocations")}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Trade for `options.seconds`; return the summary."""
    overrides = {"kafka.bootstrap_servers": options.bootstrap, "topics.prefix": options.prefix}
    given = {name: value for name, value in overrides.items() if value}
    settings = load(options.config, dict(os.environ), given).settings
    connection, names = connect(settings), Names(settings.topics.prefix)
    producer = AIOKafkaProducer(**connection.options(), acks="all")
    consumer = AIOKafkaConsumer(**connection.reading(), fetch_max_wait_ms=20)
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
    parser = argparse.ArgumentParser(description="Paper-trade allocations, and report positions and outcomes.")
    add = parser.add_argument
    add("--config", metavar="FILE", help="himari settings file: broker, login, topic prefix")
    add("--bootstrap", metavar="HOST:PORT", help="Kafka broker; overrides the settings file")
    add("--prefix", help="topic prefix; overrides the settings file")
    add("--portfolio", help="trade only this portfolio (default: all)")
    add("--delay", type=float, default=0.0, metavar="S", help="seconds from an allocation to its fills")
    add("--random-delay", action="store_true", help="draw each delay between 0 and --delay")
    add("--partial", type=float, default=0.0, metavar="P", help="probability of a partial fill; the rest follows later")
    add("--fee", type=float, default=0.0, metavar="RATIO", help="fee, as a ratio of the traded amount")
    add("--report-every", type=float, default=0.0, metavar="S", help="report interval (default: after fills)")
    add("--lose", type=float, default=0.0, metavar="P", help="probability that a report is lost")
    add("--double", type=float, default=0.0, metavar="P", help="probability that a report is sent twice")
    add("--seed", type=int, default=7, help="seed of delays, partial fills and faults")
    add("--seconds", type=float, default=float("inf"), metavar="N", help="run time (default: until stopped)")
    add("--json", action="store_true", help="print the summary as one JSON object")
    return parser.parse_args(arguments)


def main() -> None:
    """Trade, then print the summary."""
    chosen = options()
    found = asyncio.run(run(chosen))
    print(json.dumps(found) if chosen.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
