"""A product under test: topics, journal and worker processes on a broker, driven through the command line."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from config.settings import Settings
from streams.audits.verify import Verdict
from streams.demo.host import PAGE
from streams.journal.genesis import genesis, new_journal_id
from streams.journal.topics import Names
from streams.kafka import admin, read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection
from streams.kafka.journal_origin import begin
from streams.kafka.verification import verify_cluster
from streams.processing.partitioner import partition_of

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
PATIENCE_S = 120.0


class Cluster:
    """Everything of one prefix on one broker."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        folder: Path,
        security: Mapping[str, Any] = MappingProxyType({}),
        environment: Mapping[str, str] = MappingProxyType({}),
        code: Path = ROOT,
    ) -> None:
        """Take what commands and workers log in with as well: `kafka.security`, and variables of their environment.

        `code`: the checkout that they run.
        """
        self.connection, self.names, self.folder, self.environment = connection, names, folder, environment
        self.code = code
        self.page_url = ""
        """Address of the page of the worker that was started last."""
        self.settings = Settings.model_validate(
            {
                "kafka": {
                    "bootstrap_servers": connection.bootstrap,
                    "data_dir": str(folder / "state"),
                    "session_timeout_s": 6.0,
                    "checkpoint_interval_s": 1.0,
                    "security": dict(security),
                },
                "topics": {"prefix": names.prefix, "partitions": PARTITIONS},
                "monitoring": {"metrics_port": 0, "web_port": 0, "log_level": "ERROR"},
            }
        )
        self.config = folder / "settings.yaml"
        self.config.write_text(json.dumps(self.settings.model_dump(exclude_defaults=True)))

    async def lay(self) -> None:
        await admin.apply(self.connection, self.names, PARTITIONS)
        value = genesis(new_journal_id(), PARTITIONS, self.settings.decision(), time.time_ns())
        await begin(self.connection, self.names, PARTITIONS, value)

    async def himari(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a command; return exit code, stdout and stderr."""
        process = await asyncio.create_subprocess_exec(
            *self._command(*arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(),
            cwd=self.code,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE_S)
        return process.returncode or 0, out.decode(), err.decode()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a worker that is ready; it is stopped at the end, if it still runs."""
        process = await self.start_worker()
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), PATIENCE_S)

    async def start_worker(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self._command("worker"), stderr=asyncio.subprocess.PIPE, env=self._environment(), cwd=self.code
        )
        assert process.stderr is not None
        said = []
        async with asyncio.timeout(PATIENCE_S):
            async for line in process.stderr:
                said.append(line.decode())
                if line.startswith(PAGE):
                    self.page_url = line.removeprefix(PAGE).decode().strip()
                if b"worker ready" in line:
                    return process
        raise AssertionError("".join(said))

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "streams", "--config", str(self.config), *arguments]

    async def publish(self, topic: str, messages: Iterable[Mapping[str, Any] | bytes], partition: int = 0) -> None:
        """Append raw records to one partition of a topic."""
        lines = [OutgoingRecord(None, m if isinstance(m, bytes) else orjson.dumps(dict(m))) for m in messages]
        producer = AIOKafkaProducer(**self.connection.options(), acks="all")
        await producer.start()
        try:
            await append(producer, TopicPartition(self.names.topic(topic), partition), lines)
        finally:
            await producer.stop()

    async def create_anew(self, topic: str) -> None:
        """Delete a topic and create it again, as somebody might by mistake."""
        client = AIOKafkaAdminClient(**self.connection.options())
        await client.start()
        try:
            await client.delete_topics([self.names.topic(topic)])
            async with asyncio.timeout(PATIENCE_S):
                while self.names.topic(topic) in await client.list_topics():
                    await asyncio.sleep(0.1)
        finally:
            await client.close()
        await admin.apply(self.connection, self.names, PARTITIONS)

    async def price(self, symbol: str, price: float) -> None:
        message = {"symbol": symbol, "price": price, "timestamp_ns": time.time_ns()}
        await self.publish("prices", [message], partition_of(symbol.encode(), PARTITIONS))

    async def records(self, topic: str) -> list[Any]:
        places = [TopicPartition(self.names.topic(topic), partition) for partition in range(PARTITIONS)]
        return [record for place in places async for record in read.records(self.connection, place, 0)]

    async def until(self, topic: str, count: int) -> list[Any]:
        """Return a topic's records once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := await self.records(topic)) < count:
                await asyncio.sleep(0.1)
        return found

    async def answered(self, signal_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return all allocations once every one of these signals has one."""
        wanted = set(signal_ids)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [orjson.loads(record.value) for record in await self.records("allocations")]
                if wanted <= {fields["trigger"]["id"] for fields in found}:
                    return found
                await asyncio.sleep(0.1)

    async def verify(self) -> Verdict:
        return await verify_cluster(self.connection, self.names, PARTITIONS)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "PYTHONPATH": str(self.code)}
