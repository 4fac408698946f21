"""Speed of `audit verify` against the worker that produced the journal, on one core and on two.

A rate is in entries per second between the first and the last completed entries; process start-up is excluded on all
sides, since it is negligible for a long journal. Rates per second of processor time show what an idle core would do,
and are steadier on a shared machine; for two processes it is the slower one's.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.rig import PATIENCE_S, Lane, broker, contestant, entries, lane, ratios, spread
from config.load import load
from streams.audits.segment import CHUNK
from streams.kafka import read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.verification import verify

TARGETS = {"one_over_live": 1.3, "two_over_one": 1.7}
COUNT = 20_000
RUNS = 5
PORTFOLIOS = 100


class Rate(NamedTuple):
    """Entries per second, by the wall's clock and by the processor's."""

    wall: float
    cpu: float


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return entries/s of worker and verification, in alternating runs, and the ratios."""
    runs, count = (1, 3_000) if quick else (RUNS, COUNT)
    found: dict[str, list[Rate]] = {"live": [], "one": [], "two": []}
    journaled = entries(count, PORTFOLIOS)
    async with broker(kind) as (connection, folder):
        for _ in range(runs):
            at = await lane(connection, folder)
            await preload(at, journaled)
            found["live"].append(await worked(at, count))
            found["one"].append(await verified(at, 1, count))
            found["two"].append(await verified(at, 2, count))
    rates, cores = ({name: [each[k] for each in made] for name, made in found.items()} for k in (0, 1))
    return {
        "broker": kind,
        "entries": count,
        "portfolios": PORTFOLIOS,
        "per_second": {name: spread(values) for name, values in rates.items()},
        "one_over_live": ratios(rates["one"], rates["live"]),
        "two_over_one": ratios(rates["two"], rates["one"]),
        "per_cpu_second": {name: spread(values) for name, values in cores.items()},
        "one_over_live_by_cpu": ratios(cores["one"], cores["live"]),
        "two_over_one_by_cpu": ratios(cores["two"], cores["one"]),
        "targets": TARGETS,
    }


async def preload(at: Lane, values: list[bytes]) -> None:
    """Append entries under their keys, as ingest does."""
    bodies = [json.loads(json.loads(value)["value"]) for value in values]
    keys = [body["portfolio_id"].encode() if "portfolio_id" in body else None for body in bodies]
    lines = [OutgoingRecord(key, value) for key, value in zip(keys, values, strict=True)]
    producer = AIOKafkaProducer(**at.connection.options(), max_request_size=9 << 20, max_batch_size=1 << 20)
    await producer.start()
    try:
        for first in range(0, len(lines), 5_000):
            await append(producer, TopicPartition(at.names.topic("journal"), 0), lines[first : first + 5_000])
    finally:
        await producer.stop()


def cpu_s(pid: int) -> float:
    """Return the processor time of a process, s; needs /proc."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def worked(at: Lane, count: int) -> Rate:
    """Return allocations/s of a worker, from the end offset of the topic; no consumer reads it meanwhile."""
    place = TopicPartition(at.names.topic("allocations"), 0)
    consumer = AIOKafkaConsumer(**at.connection.options(), enable_auto_commit=False)
    await consumer.start()
    consumer.assign([place])
    first = began = used = 0.0
    try:
        async with contestant(at, "worker") as process, asyncio.timeout(PATIENCE_S):
            while (seen := (await read.ends(consumer, [place]))[place]) < count:
                if seen and not began:
                    first, began, used = seen, time.perf_counter(), cpu_s(process.pid)
                await asyncio.sleep(0.02)
            ended, used = time.perf_counter(), cpu_s(process.pid) - used
    finally:
        await consumer.stop()
    return Rate((seen - first) / (ended - began), (seen - first) / used)


async def verified(at: Lane, processes: int, count: int) -> Rate:
    """Return entries/s of `audit verify` with `processes` processes."""
    path = at.folder / f"{at.names.prefix}.yaml"
    command = [sys.executable, "-m", "benchmarks.verify", str(path), str(processes)]
    root = Path(__file__).parents[1]
    done = await asyncio.to_thread(subprocess.run, command, cwd=root, stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    return Rate(report["rate"], (count - CHUNK) / max(report["cpu_s"]))


def main(path: str, processes: int) -> None:
    """Verify, and print the rate."""
    counted: list[tuple[float, int]] = []
    settings = load(Path(path)).settings
    found = verify(settings, processes=processes, on_progress=lambda more: counted.append((time.perf_counter(), more)))
    if not found.verdict.ok or not found.verdict.checked:
        sys.exit(f"not verified: {found.verdict}")
    done = sum(more for _, more in counted[1:])
    print(json.dumps({"rate": done / found.processes / (counted[-1][0] - counted[0][0]), "cpu_s": found.cpu_s}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
