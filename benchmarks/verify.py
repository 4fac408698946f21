"""`audit verify` beside the worker that made what it verifies: on one core, and on two.

A rate is entries a second, from the first that are done to the last: what a process takes to start is left out on
every side, as a long journal leaves it out.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.rig import PATIENCE_S, Lane, broker, contestant, entries, lane, ratios, spread
from config.load import load
from streams.kafka import read
from streams.kafka.append import Line, append
from streams.kafka.verification import verify

TARGETS = {"one_over_live": 1.3, "two_over_one": 1.7}
COUNT = 20_000
PORTFOLIOS = 10


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return entries a second live and verified, run by run in turns, and the ratios."""
    runs, count = (1, 3_000) if quick else (5, COUNT)
    rates: dict[str, list[float]] = {"live": [], "one": [], "two": []}
    journaled = entries(count, PORTFOLIOS)
    async with broker(kind) as (connection, folder):
        for _ in range(runs):
            at = await lane(connection, folder)
            await preload(at, journaled)
            rates["live"].append(await worked(at, count))
            rates["one"].append(await verified(at, 1))
            rates["two"].append(await verified(at, 2))
    return {
        "broker": kind,
        "entries": count,
        "portfolios": PORTFOLIOS,
        "per_second": {name: spread(values) for name, values in rates.items()},
        "one_over_live": ratios(rates["one"], rates["live"]),
        "two_over_one": ratios(rates["two"], rates["one"]),
        "targets": TARGETS,
    }


async def preload(at: Lane, values: list[bytes]) -> None:
    """Append entries under their keys, as ingest does."""
    bodies = [json.loads(json.loads(value)["value"]) for value in values]
    keys = [body["portfolio_id"].encode() if "portfolio_id" in body else None for body in bodies]
    lines = [Line(key, value) for key, value in zip(keys, values, strict=True)]
    producer = AIOKafkaProducer(**at.connection.options(), max_request_size=9 << 20, max_batch_size=1 << 20)
    await producer.start()
    try:
        for first in range(0, len(lines), 5_000):
            await append(producer, TopicPartition(at.names.topic("journal"), 0), lines[first : first + 5_000])
    finally:
        await producer.stop()


async def worked(at: Lane, count: int) -> float:
    """Return allocations a second of a worker, as the log's end shows them: nobody reads them meanwhile."""
    place = TopicPartition(at.names.topic("allocations"), 0)
    consumer = AIOKafkaConsumer(**at.connection.options(), enable_auto_commit=False)
    await consumer.start()
    consumer.assign([place])
    first = began = 0.0
    try:
        async with contestant(at, "worker"), asyncio.timeout(PATIENCE_S):
            while (seen := (await read.ends(consumer, [place]))[place]) < count:
                if seen and not began:
                    first, began = seen, time.perf_counter()
                await asyncio.sleep(0.02)
            ended = time.perf_counter()
    finally:
        await consumer.stop()
    return (seen - first) / (ended - began)


async def verified(at: Lane, processes: int) -> float:
    """Return entries a second of `audit verify` in so many processes."""
    path = at.folder / f"{at.names.prefix}.yaml"
    command = [sys.executable, "-m", "benchmarks.verify", str(path), str(processes)]
    root = Path(__file__).parents[1]
    done = await asyncio.to_thread(subprocess.run, command, cwd=root, stdout=subprocess.PIPE, check=True)
    rate: float = json.loads(done.stdout)
    return rate


def main(path: str, processes: int) -> None:
    """Verify, and print how many entries a second."""
    told: list[tuple[float, int]] = []
    settings = load(Path(path)).settings
    found = verify(settings, processes=processes, told=lambda more: told.append((time.perf_counter(), more)))
    if not found.verdict.ok or not found.verdict.checked:
        sys.exit(f"not verified: {found.verdict}")
    done = sum(more for _, more in told[1:])
    print(done / found.processes / (told[-1][0] - told[0][0]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
