"""Benchmark rig: a broker, a preloaded log, contestants in separate processes, and a consumer that counts outputs."""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from config.settings import Settings
from streams.journal import entries as journal
from streams.journal.genesis import genesis, new_journal_id
from streams.journal.topics import Names
from streams.kafka import admin
from streams.kafka.apache_kafka import apache_kafka
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.broker import embedded
from streams.kafka.connection import Connection
from streams.kafka.journal_origin import begin

START_NS = 1_700_000_000_000_000_000
SYMBOLS = ("ADA-USD", "BNB-USD", "BTC-USD", "ETH-USD", "SOL-USD")
PATIENCE_S = 180.0


class Lane(NamedTuple):
    """One topic prefix on one broker, used by one contestant."""

    connection: Connection
    names: Names
    folder: Path
    extra: Mapping[str, Any] = MappingProxyType({})
    """Sections that override the default settings below."""

    def settings(self) -> Settings:
        """Return the worker settings of the lane."""
        return Settings.model_validate(
            {
                "kafka": {
                    "bootstrap_servers": self.connection.bootstrap,
                    "data_dir": str(self.folder / self.names.prefix),
                    "session_timeout_s": 2.0 if "embedded" in self.folder.name else 6.0,
                },
                "topics": {"prefix": self.names.prefix, "partitions": 1},
                "monitoring": {"metrics_port": 0, "web_port": 0, "log_level": "ERROR"},
                "validation_criteria": {"max_price_age_s": 1e6},
                **self.extra,
            }
        )


@asynccontextmanager
async def broker(kind: str) -> AsyncIterator[tuple[Connection, Path]]:
    """Run a broker, "embedded" or "kafka", while the context is open."""
    with tempfile.TemporaryDirectory(prefix=f"himari-bench-{kind}-") as name:
        folder = Path(name)
        process = (apache_kafka if kind == "kafka" else embedded)(folder)
        process.start()
        try:
            await process.ready()
            yield Connection(process.bootstrap), folder
        finally:
            process.stop()


async def lane(connection: Connection, folder: Path, extra: Mapping[str, Any] = MappingProxyType({})) -> Lane:
    """Create the topics of a new prefix and its journal; `extra` are sections of the settings."""
    made = Lane(connection, Names(f"b{uuid4().hex[:8]}"), folder, extra)
    settings = made.settings()
    await admin.apply(connection, made.names, 1)
    value = genesis(new_journal_id(1), 1, settings.decision(), START_NS)
    await begin(connection, made.names, 1, value)
    return made


async def preload(to: Lane, topic: str, values: Sequence[bytes]) -> None:
    """Append records to partition 0 of a topic."""
    producer = AIOKafkaProducer(**to.connection.options(), max_request_size=9 << 20, max_batch_size=1 << 20)
    await producer.start()
    try:
        for first in range(0, len(values), 5_000):
            lines = [OutgoingRecord(None, value) for value in values[first : first + 5_000]]
            await append(producer, TopicPartition(to.names.topic(topic), 0), lines)
    finally:
        await producer.stop()


def entries(count: int, portfolios: int = 10, cells: int = 1) -> list[bytes]:
    """Return journal entries: a price of every symbol, then `count` signals, one millisecond apart."""
    found = [prices(START_NS)]
    for number in range(count):
        now_ns = START_NS + number * 1_000_000
        place = journal.SourcePlace("signals", 0, 0, number)
        value = orjson.dumps(signal(number, now_ns, portfolios, cells)).decode()
        found.append(journal.entry("signal", value, now_ns, event_time_ns=now_ns, place=place))
    return found


def prices(now_ns: int, symbols: Sequence[str] = SYMBOLS) -> bytes:
    """Return the journal entry of a step that ends now, with a price of every symbol."""
    body = {
        "source_partition": 0,
        "step": now_ns // 10**9 - 1,
        "step_s": 1,
        "symbols": {symbol: [100.0, 100.0, 100.0, 100.0, 1.0, 1] for symbol in symbols},
    }
    return journal.internal("step", body, now_ns)


def signal(number: int, now_ns: int, portfolios: int, cells: int = 1) -> dict[str, Any]:
    """Return signal `number` of a mix over portfolios with `cells` cells each, one symbol per cell."""
    return {
        "signal_id": f"s-{number}",
        "portfolio_id": f"p{number % portfolios}",
        "strategy_id": "momentum",
        "symbol": SYMBOLS[(number % portfolios + number // portfolios % cells) % len(SYMBOLS)],
        "action": "buy" if number % 3 else "sell",
        "confidence": 0.5 + number % 5 / 10,
        "risk_score": 0.2,
        "regime": "ranging",
        "timestamp_ns": now_ns,
        "expected_return": 0.012 if number % 3 else -0.012,
        "predicted_volatility": 0.02,
        "horizon_s": 86_400,
    }


@asynccontextmanager
async def contestant(at: Lane, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a contestant: `worker`, or one of `benchmarks.contestants`."""
    if name == "worker":
        path = at.folder / f"{at.names.prefix}.yaml"
        path.write_text(json.dumps(at.settings().model_dump(exclude_defaults=True)))
        command = ["-m", "streams", "worker", "--config", str(path)]
    else:
        command = ["-m", "benchmarks.contestants", name, at.connection.bootstrap, at.names.prefix]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.DEVNULL, cwd=Path(__file__).parents[1]
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Course(NamedTuple):
    """A contestant's input, and where its outputs are counted."""

    contestant: str
    source: str
    values: Sequence[bytes]
    target: str
    outputs: int
    skip: int = 0
    """Records in the target before the start."""


async def race(kind: str, runs: int, courses: Mapping[str, Course]) -> dict[str, list[float]]:
    """Return outputs/s by course, one value per run; the courses alternate within a run."""
    found: dict[str, list[float]] = {name: [] for name in courses}
    async with broker(kind) as (connection, folder):
        for _ in range(runs):
            for name, course in courses.items():
                found[name].append(await _rate(await lane(connection, folder), course))
    return found


async def _rate(at: Lane, course: Course) -> float:
    """Return outputs/s as seen by a consumer, from its first batch to the last record."""
    await preload(at, course.source, course.values)
    consumer = AIOKafkaConsumer(
        **at.connection.options(),
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=16 << 20,
    )
    await consumer.start()
    place = TopicPartition(at.names.topic(course.target), 0)
    consumer.assign([place])
    consumer.seek(place, course.skip)
    seen = first = 0
    began = ended = 0.0
    try:
        async with contestant(at, course.contestant), asyncio.timeout(PATIENCE_S):
            while seen < course.outputs:
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    seen += len(records)
                    ended = time.perf_counter()
                    if not first:
                        first, began = seen, ended
    finally:
        await consumer.stop()
    if seen == first:
        msg = f"{course.contestant}: all {seen} records came in one chunk, nothing to time"
        raise ValueError(msg)
    return (seen - first) / (ended - began)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return the spread of the ratios, run by run."""
    return spread([a / b for a, b in zip(one, other, strict=True)])
