"""Workers as processes that can be hurt, on a cluster of their own prefix."""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaProducer, TopicPartition
from broker.cluster import PARTITIONS, Cluster
from faults.judge import PATIENCE_S, Findings, judge, records, settled
from faults.load import Load

from streams.journal.topics import PROGRESS, Names
from streams.kafka import read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.broker import BrokerProcess, free_port
from streams.kafka.connection import Connection

POLL_S = 0.05
SESSION_S = 3.0
"""What a successor waits for after a `kill -9`."""
ROOT = Path(__file__).parents[2]


class Member:
    """One worker process, with a data folder and a log of its own that outlive it."""

    def __init__(self, name: str, cluster: Cluster, folder: Path) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        tree = cluster.settings.model_dump(exclude_defaults=True)
        tree["kafka"] |= {"data_dir": str(folder / "state"), "session_timeout_s": SESSION_S}
        self.config, self.log = folder / "settings.yaml", folder / "worker.log"
        self.port = free_port()
        tree["monitoring"] |= {"web_port": self.port}
        self.tree = tree
        self.process: asyncio.subprocess.Process | None = None
        self._begun = 0
        """Where this process's log begins."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self, environment: Mapping[str, str] | None = None, **kafka: object) -> None:
        """Start a process; it is not ready yet."""
        self.config.write_text(json.dumps({**self.tree, "kafka": {**self.tree["kafka"], **kafka}}))
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streams", "--config", str(self.config), "worker"),
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            )

    async def ready(self) -> None:
        """Return when it is ready. Raises: AssertionError where it dies before, or takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while "himari: worker ready" not in self.said():
                    assert self.running, f"{self.name} died: {self.said()[-2_000:]}"
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            msg = f"{self.name} was not ready within {PATIENCE_S:g} s: {self.said()[-2_000:]}"
            raise AssertionError(msg) from None

    def said(self) -> str:
        """Return what this process has logged."""
        return self.log.read_bytes()[self._begun :].decode(errors="replace")

    async def told(self) -> str:
        """Return what its own page says of its health."""
        if not self.running:
            return f"{self.name} has ended: {self.said()[-1_000:]}"
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/ready") as answer:
                return f"{self.name}: {answer.status} {(await answer.text())[:1_000]}"
        except aiohttp.ClientError as error:
            return f"{self.name}: {error!r}"

    def hit(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.running:
            self.process.send_signal(number)

    async def over(self, patience_s: float = PATIENCE_S) -> int:
        """Return its exit code when it is over."""
        try:
            return await asyncio.wait_for(self.process.wait(), patience_s)
        except TimeoutError:
            msg = f"{self.name} did not end within {patience_s:g} s: {self.said()[-2_000:]}"
            raise AssertionError(msg) from None

    async def kill(self) -> None:
        """End it by `kill -9`."""
        self.hit(signal.SIGKILL)
        await self.over()

    async def leave(self) -> None:
        """Stop it cleanly. Raises: AssertionError where that is not exit 0."""
        self.hit(signal.SIGTERM)
        code = await self.over()
        assert code == 0, f"{self.name} ended with {code}: {self.said()[-2_000:]}"

    async def refuses(self, code: int, reason: str) -> None:
        """Hold that it ends by itself, with this exit code and reason."""
        try:
            found = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        except TimeoutError:
            msg = f"{self.name} goes on, wanted exit {code} with {reason!r}: {self.said()[-2_000:]}"
            raise AssertionError(msg) from None
        assert (found, reason in self.said()) == (code, True), f"exit {found}, wanted {code}: {self.said()[-2_000:]}"

    def forget(self) -> None:
        """Delete its local store."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)


class Rig:
    """A cluster with a load and workers; `hurt` by a scenario, then judged."""

    def __init__(self, broker: BrokerProcess | Connection, folder: Path, seed: int) -> None:
        connection, names = Connection(broker.bootstrap), Names(f"f{uuid.uuid4().hex[:8]}")
        self.broker, self.folder = broker, folder
        self.cluster = Cluster(connection, names, folder)
        self.load = Load(connection, names, seed)
        self.chance = random.Random(seed + 1)
        self.members: dict[str, Member] = {}

    def member(self, name: str = "a") -> Member:
        """Return a worker by name, made where there is none; it is not started."""
        if name not in self.members:
            self.members[name] = Member(name, self.cluster, self.folder / name)
        return self.members[name]

    async def up(self, *names: str, environment: Mapping[str, str] | None = None, **kafka: object) -> list[Member]:
        """Start workers and wait until all are ready."""
        members = [self.member(name) for name in names]
        for each in members:
            await each.start(environment, **kafka)
        for each in members:
            await each.ready()
        return members

    async def flow(self, least_s: float = 0.5, most_s: float = 2.0) -> None:
        """Let a while pass."""
        await asyncio.sleep(self.chance.uniform(least_s, most_s))

    async def saved(self, topic: str) -> list[list[OutgoingRecord]]:
        """Return what the partitions of a topic hold."""
        found = await records(self.cluster, topic)
        return [
            [OutgoingRecord(each.key, each.value, each.headers) for each in found[topic, n]] for n in range(PARTITIONS)
        ]

    async def rewrite(self, topic: str, partitions: Sequence[Sequence[OutgoingRecord]]) -> None:
        """Create a topic anew with other records, as a restored or tampered one. No worker may run."""
        await self.cluster.create_anew(topic)
        producer = AIOKafkaProducer(**self.cluster.connection.options(), acks="all", max_request_size=1 << 23)
        await producer.start()
        try:
            for partition, lines in enumerate(partitions):
                await append(producer, TopicPartition(self.cluster.names.topic(topic), partition), lines)
        finally:
            await producer.stop()

    async def settled(self, *, checkpointed: bool = True) -> None:
        """Let all that was sent be answered, and checkpointed. Raises: AssertionError where a minute is too short."""
        missing = await settled(self.cluster, self.load, checkpointed=checkpointed)
        if missing:
            pages = [await each.told() for each in self.members.values()]
            raise AssertionError("; ".join([f"after {PATIENCE_S:g} s: {missing}", *pages]))

    async def checkpointed(self) -> None:
        """Return when sizing and market have each made a checkpoint; the load must flow."""
        async with asyncio.timeout(PATIENCE_S):
            for table in PROGRESS.values():
                topic = self.cluster.names.changelog(table)
                places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
                while not any((await read.high_watermarks(self.cluster.connection, places)).values()):
                    await asyncio.sleep(POLL_S)

    async def refuted(self) -> None:
        """Hold that `himari audit verify` finds what is wrong: exit 4."""
        code, out, err = await self.cluster.himari("audit", "verify")
        assert code == 4, f"audit verify: exit {code}, wanted 4: {out}{err[-2_000:]}"

    async def verdict(self, *, two_owners: bool) -> Findings:
        """Let the workers answer all that was sent, stop them, and judge.

        `two_owners`: whether a worker may have written what another already owned: repeats of equal bytes, and records
        of an older checkpoint over those of a newer. A worker without a local store must then make the tables good.
        """
        if not any(each.running for each in self.members.values()):
            await self.up(next(iter(self.members), "a"))
        await self._rest()
        found = await judge(self.cluster, self.load, two_owners=two_owners)
        if not (two_owners and found.spoiled):
            return found
        for each in self.members.values():
            each.forget()
        await self.up(next(iter(self.members)))
        await self._rest()
        again = await judge(self.cluster, self.load, two_owners=two_owners)
        return again._replace(spoiled=found.spoiled)

    async def _rest(self) -> None:
        """Stop all workers once everything is answered and in a checkpoint."""
        await self.settled()
        for each in [each for each in self.members.values() if each.running]:
            await each.leave()

    async def end(self) -> None:
        """Leave no process and no topic behind."""
        for each in self.members.values():
            if each.running:
                await each.kill()
