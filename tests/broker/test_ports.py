"""FaustPorts on a started application: what a processor asks of the world, on every broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from broker.toy import build

from streams.journal.topics import Names
from streams.kafka import admin, read
from streams.kafka.connection import Connection
from streams.processing.ports import Send
from streams.worker.faust_ports import FaustPorts

pytestmark = [pytest.mark.broker, pytest.mark.everyday]


@asynccontextmanager
async def started(connection: Connection, names: Names, directory, kind: str) -> AsyncIterator[tuple]:
    """Run the toy's application in this process until its partitions are assigned and recovered."""
    app, owned = build(connection, names, directory, embedded=kind == "embedded")
    await app.start()
    try:
        async with asyncio.timeout(90):
            while len(owned.processors) < 2:
                await asyncio.sleep(0.02)
        yield app, owned
    finally:
        await app.stop()


def ports_of(app, connection: Connection, names: Names, partition: int) -> FaustPorts:
    return FaustPorts(app, dict(app.tables), connection=connection, names=names, source="journal", partition=partition)


async def test_records_come_back_from_the_store_and_from_the_changelog(broker, names, tmp_path, request):
    kind = request.node.callspec.id
    await admin.apply(broker, names, 2)
    large = b"x" * 3_000_000
    async with started(broker, names, tmp_path / "a", kind) as (app, _):
        ports, other = (ports_of(app, broker, names, partition) for partition in (0, 1))
        assert await ports.progress() is None
        await ports.write({("books", b"p"): b"1", ("books", b"q"): large, ("targets", b"p"): b"t"})
        await other.write({("books", b"p"): b"other"})
        await ports.write({("books", b"p"): b"2", ("targets", b"p"): None})
        expected = {("books", b"p"): b"2", ("books", b"q"): large}
        assert await ports.local() == await ports.changelog() == expected
        assert await other.local() == {("books", b"p"): b"other"}
        for value in (b"first", b"second"):
            await ports.write_progress(value)
        assert await ports.progress() == b"second"
        assert await other.progress() is None
        changelog = TopicPartition(names.changelog("books"), 0)
        keys = [record.key async for record in read.records(broker, changelog, 0)]
        assert keys == [b"\0\0\0\0p", b"\0\0\0\0q", b"\0\0\0\0p"]
        persisted = app.tables["books"].data.persisted_offset(changelog)
        assert persisted == 2


async def test_a_store_with_strays_holds_just_the_changelog_after_it_was_read(broker, names, tmp_path, request):
    await admin.apply(broker, names, 2)
    async with started(broker, names, tmp_path, request.node.callspec.id) as (app, _):
        ports = ports_of(app, broker, names, 1)
        await ports.write({("books", b"p"): b"1"})
        ports._database("books").put(b"\0\0\0\1stray", b"x")
        ports._database("books").put(b"\0\0\0\1p", b"spoiled")
        assert await ports.local() == {("books", b"p"): b"spoiled", ("books", b"stray"): b"x"}
        assert await ports.changelog() == {("books", b"p"): b"1"}
        assert await ports.local() == {("books", b"p"): b"1"}


async def test_sends_keep_their_order_and_their_offsets_are_the_brokers(broker, names, tmp_path, request):
    await admin.apply(broker, names, 2)
    async with started(broker, names, tmp_path, request.node.callspec.id) as (app, _):
        ports = ports_of(app, broker, names, 0)
        value = b"v" * 2_000
        sends = [Send("allocations", n % 2, b"p", b"%d " % n + value, (("h", b"%d" % n),)) for n in range(1_000)]
        sends += [Send("alerts", None, b"key-%d" % n, b"alert") for n in range(50)]
        offsets = await ports.send(sends)
        for partition in (0, 1):
            mine = [(at, send) for at, send in zip(offsets, sends, strict=True) if send.partition == partition]
            target = TopicPartition(names.topic("allocations"), partition)
            found = [(r.offset, r.value, tuple(r.headers)) async for r in read.records(broker, target, 0)]
            assert found == [(at, send.value, send.headers) for at, send in mine]
        assert await ports.outputs("allocations", 498) == [(498, sends[996].value), (499, sends[998].value)]
        alerts = [TopicPartition(names.topic("alerts"), partition) for partition in (0, 1)]
        assert sum((await read.high_watermarks(broker, alerts)).values()) == 50


async def test_the_source_is_read_again_up_to_its_end_of_this_moment(broker, names, tmp_path, request):
    await admin.apply(broker, names, 2)
    async with started(broker, names, tmp_path, request.node.callspec.id) as (app, _):
        ports = ports_of(app, broker, names, 1)
        assert (await ports.source_first(), await ports.source_end()) == (0, 0)
        assert [record async for record in ports.source(0)] == []
        await ports.send([Send("journal", 1, b"p", b"%d" % n) for n in range(10)])
        assert (await ports.source_first(), await ports.source_end()) == (0, 10)
        assert [record.offset async for record in ports.source(4)] == [4, 5, 6, 7, 8, 9]
        assert [record.value async for record in ports.source(4, 6)] == [b"4", b"5"]
        assert [record.offset async for record in ports.source(8, 99)] == [8, 9]
        assert [record.offset async for record in ports.source(10)] == []
