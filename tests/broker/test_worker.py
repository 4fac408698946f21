"""A toy topology on Faust, against what a plain loop over the same journal gives: on every broker."""

import asyncio
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from broker.toy import POISON, Toy

from streams.journal.topics import Names
from streams.kafka import admin, read
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection

pytestmark = [pytest.mark.broker]

PARTITIONS = 2
TOY = Path(__file__).with_name("toy.py")


@asynccontextmanager
async def producer(connection: Connection) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(**connection.options(), acks="all")
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def toy(
    connection: Connection, names: Names, directory: Path, kind: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, str(TOY), connection.bootstrap, names.prefix, str(directory / "data"), kind]
    environment = os.environ | {"PYTHONPATH": str(TOY.parents[2])}
    with (directory / "toy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def outputs(connection: Connection, names: Names, partition: int) -> list[bytes]:
    target = TopicPartition(names.topic("allocations"), partition)
    return [record.value async for record in read.records(connection, target, 0)]


async def until(
    worker: asyncio.subprocess.Process, connection: Connection, names: Names, partition: int, count: int
) -> None:
    """Return when so many outputs are published."""
    target = TopicPartition(names.topic("allocations"), partition)
    while (await read.high_watermarks(connection, [target]))[target] < count:
        assert worker.returncode is None


def oracle(partition: int, lines: list[OutgoingRecord]) -> list[bytes]:
    """What the toy publishes for a journal: the plain loop."""
    fold = Toy(partition)
    return [send.value for offset, line in enumerate(lines) for send in fold.fold(read_as(offset, line))]


def read_as(offset: int, line: OutgoingRecord):
    return type("Read", (), {"offset": offset, "key": line.key, "value": line.value, "headers": ()})()


def journal(seed: int, count: int) -> list[OutgoingRecord]:
    chance = random.Random(seed)
    return [OutgoingRecord(b"p%d" % chance.randrange(40), b"%d" % chance.randrange(1_000_000)) for _ in range(count)]


async def test_killed_workers_lose_nothing_and_double_nothing(broker, names, tmp_path, request):
    kind = request.node.callspec.id
    await admin.apply(broker, names, PARTITIONS)
    entries = [journal(partition, 12_000) for partition in range(PARTITIONS)]
    parts = [(0, 5_000), (5_000, 9_000), (9_000, 12_000)]
    async with producer(broker) as client, asyncio.timeout(40):
        for step, (first, end) in enumerate(parts):
            async with toy(broker, names, tmp_path, kind) as worker:
                for partition in range(PARTITIONS):
                    target = TopicPartition(names.topic("journal"), partition)
                    await append(client, target, entries[partition][first:end])
                if step < len(parts) - 1:
                    await until(worker, broker, names, 1, first + (end - first) // 2)
                    worker.kill()
                    await worker.wait()
                else:
                    for partition in range(PARTITIONS):
                        await until(worker, broker, names, partition, end)
                    worker.send_signal(signal.SIGTERM)
                    assert await worker.wait() == 0, (tmp_path / "toy.log").read_text()[-3000:]
            if step == 0:
                shutil.rmtree(tmp_path / "data")
    for partition in range(PARTITIONS):
        assert await outputs(broker, names, partition) == oracle(partition, entries[partition])


async def members(connection: Connection, names: Names) -> int:
    """Return how many workers the group has."""
    client = AIOKafkaAdminClient(**connection.options())
    await client.start()
    try:
        (response,) = await client.describe_consumer_groups([names.application])
    finally:
        await client.close()
    return len(response.groups[0][5])


async def test_a_second_worker_joins_and_takes_all_when_the_first_leaves(broker, names, tmp_path, request):
    kind = request.node.callspec.id
    await admin.apply(broker, names, PARTITIONS)
    lines = journal(3, 400)
    targets = [TopicPartition(names.topic("journal"), partition) for partition in range(PARTITIONS)]
    written = 0

    async def feed(client: AIOKafkaProducer) -> None:
        nonlocal written
        for target in targets:
            await append(client, target, lines)
        written += len(lines)

    async def all_out(worker: asyncio.subprocess.Process) -> None:
        for partition in range(PARTITIONS):
            await until(worker, broker, names, partition, written)

    first_home, second_home = tmp_path / "first", tmp_path / "second"
    first_home.mkdir()
    second_home.mkdir()
    async with (
        asyncio.timeout(60),
        producer(broker) as client,
        toy(broker, names, first_home, kind) as first,
        toy(broker, names, second_home, kind) as second,
    ):
        while await members(broker, names) < 2:
            await feed(client)
        await feed(client)
        await all_out(first)
        first.send_signal(signal.SIGTERM)
        assert await first.wait() == 0
        await feed(client)
        await all_out(second)
        second.send_signal(signal.SIGTERM)
        assert await second.wait() == 0
    for partition in range(PARTITIONS):
        entries = lines * (written // len(lines))
        assert await outputs(broker, names, partition) == oracle(partition, entries)


@pytest.mark.parametrize("way", ["back", "ahead"])
async def test_a_consumer_that_strays_reads_on_where_it_was(broker, names, tmp_path, request, monkeypatch, way):
    monkeypatch.setenv("TOY_STRAYS", way)
    await admin.apply(broker, names, PARTITIONS)
    target, lines = TopicPartition(names.topic("journal"), 0), journal(11, 2_000)
    kind = request.node.callspec.params["broker"].removesuffix("_broker")
    sent = 100
    async with producer(broker) as client, asyncio.timeout(60):
        await append(client, target, lines[:sent])
        async with toy(broker, names, tmp_path, kind) as worker:
            while "seeking to" not in (tmp_path / "toy.log").read_text():
                await append(client, target, lines[sent : sent + 1])
                sent += 1
                await asyncio.sleep(0.05)
            await append(client, target, lines[sent : sent + 10])
            await until(worker, broker, names, 0, sent + 10)
            worker.send_signal(signal.SIGTERM)
            assert await worker.wait() == 0
    assert await outputs(broker, names, 0) == oracle(0, lines[: sent + 10])


async def test_a_defect_in_the_fold_stops_the_worker_with_nothing_committed_past_it(broker, names, tmp_path, request):
    await admin.apply(broker, names, PARTITIONS)
    target = TopicPartition(names.topic("journal"), 1)
    lines = journal(7, 100)
    async with producer(broker) as client, asyncio.timeout(40):
        await append(client, target, [*lines, OutgoingRecord(b"p", POISON), *lines])
        for _ in range(2):
            async with toy(broker, names, tmp_path, request.node.callspec.id) as worker:
                assert await worker.wait() == 1
            assert (tmp_path / "toy.log").read_text().count("ValueError: poison") >= 1
    assert len(await outputs(broker, names, 1)) in {0, 100}
