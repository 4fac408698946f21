"""The closed loop on a broker: signals, a worker, and the paper broker that trades and reports. `make loop` runs it.

    python -m benchmarks.closed_loop --kafka --seconds 600 -- --delay 2 --random-delay --partial 0.3 --fee 0.0005

Arguments after `--` go to the paper broker. The output is one JSON object: signals, allocations by trigger, USD
requested by signals (the sum of |change of target| of their allocations) and by other triggers, USD traded, allocations
after the last signal while prices are constant, dead letters, cells whose posterior moved, and the result of
`himari audit verify`.

The audit uses the code on disk: do not change the checkout while it runs.
"""

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from benchmarks.rig import Lane, broker, contestant, lane
from streams.journal.topics import DEAD_LETTERS, Names
from streams.kafka import read
from streams.kafka.connection import Connection, reach

PRICES = {"BTC-USD": 43_500.0, "ETH-USD": 2_280.0, "SOL-USD": 98.0}
PORTFOLIOS = ("main", "alpha")
STRATEGIES = ("carry", "momentum")
PER_SECOND = 20
TICK_S = 0.5
TICK_SD, PULL = 0.002, 0.02
"""Log prices revert to their start, within about one percent."""
TURN = 0.02
"""Probability that a signal reverses its strategy's side."""
CLAIM_SD, CLAIM_RETURN = 0.01, 0.006
QUIET_S = 10.0
PATIENCE_S = 60.0
ROOT = Path(__file__).parents[1]
FRESH = {"validation_criteria": {}}


class Feeder:
    """Mean-reverting prices, and strategies whose signals seldom change side."""

    def __init__(self, producer: Any, names: Names, horizon_s: float, seed: int = 7) -> None:
        self.producer, self.names, self.horizon_s = producer, names, horizon_s
        self.rng = random.Random(seed)
        self.tag = f"{time.time_ns():x}"
        self.logs = dict.fromkeys(PRICES, 0.0)
        cells = [(p, strategy, symbol) for p in PORTFOLIOS for strategy in STRATEGIES for symbol in PRICES]
        self.sides = {cell: self.rng.choice((1, -1)) for cell in cells}
        self.sent = 0
        self.last_ns = 0
        """When the last signal was sent."""

    async def send(self, topic: str, key: str, body: dict[str, Any]) -> None:
        await self.producer.send_and_wait(self.names.topic(topic), orjson.dumps(body), key=key.encode())

    async def prices(self) -> None:
        """Send the current prices."""
        for symbol, price in PRICES.items():
            quote = {"symbol": symbol, "price": price * math.exp(self.logs[symbol]), "timestamp_ns": time.time_ns()}
            await self.send("prices", symbol, quote)

    async def signal(self) -> None:
        """Send the next cell's claim."""
        cell = list(self.sides)[self.sent % len(self.sides)]
        if self.rng.random() < TURN:
            self.sides[cell] *= -1
        portfolio, strategy, symbol = cell
        self.last_ns = time.time_ns()
        body = {
            "signal_id": f"{self.tag}-{self.sent}",
            "portfolio_id": portfolio,
            "strategy_id": strategy,
            "symbol": symbol,
            "action": "buy" if self.sides[cell] > 0 else "sell",
            "confidence": 0.8,
            "risk_score": 0.1,
            "regime": "ranging",
            "expected_return": self.sides[cell] * CLAIM_RETURN * self.rng.uniform(0.8, 1.2),
            "predicted_volatility": CLAIM_SD,
            "horizon_s": self.horizon_s,
            "valid_for_s": 3_600,
            "timestamp_ns": self.last_ns,
        }
        self.sent += 1
        await self.send("signals", portfolio, body)

    async def run(self, seconds: float, per_second: float) -> None:
        """Move prices and send signals for `seconds`; `per_second` 0: constant prices, no signals."""
        began, ticks, claimed = time.monotonic(), 0, 0
        while (now := time.monotonic() - began) < seconds:
            if now >= ticks * TICK_S:
                ticks += 1
                if per_second:
                    self.logs = {name: log * (1 - PULL) + self.rng.gauss(0, TICK_SD) for name, log in self.logs.items()}
                await self.prices()
            if per_second and now >= claimed / per_second:
                claimed += 1
                await self.signal()
            else:
                await asyncio.sleep(0.005)

    async def until_priced(self, connection: Connection) -> None:
        """Send prices until they appear in the journal, which shows that a worker is running."""
        places = await read.places(connection, self.names.topic("journal"))
        begun = sum((await read.high_watermarks(connection, places)).values())
        async with asyncio.timeout(PATIENCE_S):
            while sum((await read.high_watermarks(connection, places)).values()) < begun + len(places):
                await self.run(1.0, 0)


@asynccontextmanager
async def feeding(connection: Connection, names: Names, horizon_s: float) -> AsyncIterator[Feeder]:
    """Yield a feeder on a broker."""
    producer = AIOKafkaProducer(**connection.options(), acks="all")
    await reach(producer, connection)
    try:
        yield Feeder(producer, names, horizon_s)
    finally:
        await producer.stop()


@asynccontextmanager
async def paper(connection: Connection, names: Names, *switches: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the paper broker, ready to trade; it prints its summary when it ends by itself."""
    at = ("--bootstrap", connection.bootstrap, "--prefix", names.prefix, "--json", *switches)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.paper_broker", *at),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stderr is not None
        said = []
        async with asyncio.timeout(PATIENCE_S):
            while b"ready" not in (line := await process.stderr.readline()):
                said.append(line.decode())
                if not line:
                    raise RuntimeError("".join(said))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def close(
    connection: Connection, names: Names, seconds: float, per_second: float, horizon_s: float, switches: Sequence[str]
) -> dict[str, Any]:
    """Run the loop for `seconds`, then with constant prices until the last outcomes are known; return the result."""
    stands_s = QUIET_S + horizon_s
    async with feeding(connection, names, horizon_s) as feeder:
        await feeder.until_priced(connection)
        trades_s = seconds + stands_s
        async with paper(connection, names, "--seconds", str(trades_s), *switches) as process:
            await feeder.run(seconds, per_second)
            ends = asyncio.create_task(process.communicate())
            while not ends.done():
                await feeder.run(1.0, 0)
            out, err = await ends
    if process.returncode:
        raise RuntimeError(err.decode())
    found = orjson.loads(out)
    allocations = await published(connection, names)
    late = [each for each in allocations if each["timestamp_ns"] > feeder.last_ns + SETTLES_NS]
    return {
        "seconds": seconds,
        "signals": feeder.sent,
        "unanswered": feeder.sent - found["allocations"].get("signal", 0),
        "allocations": found["allocations"],
        "asked_by_signals_usd": found["asked_usd"].get("signal", 0.0),
        "asked_by_others_usd": {kind: usd for kind, usd in found["asked_usd"].items() if kind != "signal"},
        "traded_usd": found["traded_usd"],
        "after_the_last_signal": [each["trigger"]["kind"] for each in late],
        "dead_letters": await dead_letters(connection, names),
        "cells": len(calibrations(allocations)),
        "cells_that_learnt": sum(len(set(each)) > 1 for each in calibrations(allocations).values()),
        "broker": found,
    }


SETTLES_NS = 2_000_000_000
"""Time allowed for a step that closes late."""


async def published(connection: Connection, names: Names) -> list[dict[str, Any]]:
    """Return all allocations."""
    places = await read.places(connection, names.topic("allocations"))
    return [orjson.loads(record.value) async for record in read.records_of(connection, dict.fromkeys(places, 0))]


async def dead_letters(connection: Connection, names: Names) -> dict[str, int]:
    """Return the number of dead letters by topic."""
    found = {}
    for topic in DEAD_LETTERS:
        places = await read.places(connection, names.topic(topic.name))
        found[topic.name] = sum((await read.high_watermarks(connection, places)).values())
    return {name: count for name, count in found.items() if count}


def calibrations(allocations: list[dict[str, Any]]) -> dict[tuple[str, ...], list[float]]:
    """Return the calibration used by each signal decision, by cell."""
    found: dict[tuple[str, ...], list[float]] = {}
    for each in allocations:
        kelly = (each.get("diagnostics") or {}).get("kelly")
        if kelly is not None:
            cell = (each["portfolio_id"], each["strategy_id"], each["symbol"])
            found.setdefault(cell, []).append(kelly["calibration"])
    return found


async def verified(at: Lane) -> dict[str, Any]:
    """Return the report and exit code of `himari audit verify`."""
    path = at.folder / f"{at.names.prefix}.yaml"
    command = (sys.executable, "-m", "streams", "--config", str(path), "audit", "verify", "--json")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    return {"exit": process.returncode, **orjson.loads(out)}


async def run(
    kind: str, seconds: float, per_second: float, horizon_s: float, switches: Sequence[str]
) -> dict[str, Any]:
    """Start a broker, a worker and the paper broker; return the result."""
    async with broker(kind) as (connection, folder):
        at = await lane(connection, folder, FRESH)
        async with contestant(at, "worker") as worker:
            found = await close(connection, at.names, seconds, per_second, horizon_s, switches)
            if worker.returncode is not None:
                raise RuntimeError(f"the worker stopped with exit code {worker.returncode} after {found}")
        return {"broker_kind": kind, **found, "verify": await verified(at)}


def main() -> None:
    """Run it, and print one JSON object."""
    parser = argparse.ArgumentParser(description="Run the closed loop on a broker, and print the result.")
    parser.add_argument(
        "--kafka", action="store_true", help="Apache Kafka from its jars; otherwise the embedded broker"
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help="signals")
    parser.add_argument("--horizon", type=float, default=60.0, help="of the signals' claims, in seconds")
    parser.add_argument("switches", nargs="*", help="for the paper broker, after --")
    given = parser.parse_args()
    kind = "kafka" if given.kafka else "embedded"
    found = asyncio.run(run(kind, given.seconds, given.per_second, given.horizon, given.switches))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
