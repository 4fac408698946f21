"""A worker on a broker publishes the bytes that a backtest has of the same journal."""

import asyncio
import json
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from broker.cluster import PATIENCE_S, Cluster
from markets import settings, walk

from streams.archives.archive import Archive
from streams.backtest.execute import execute
from streams.backtest.request import Request
from streams.kafka import admin, read
from streams.kafka.journal_origin import begin

pytestmark = [pytest.mark.broker]


def archived(folder: Path, topic: str) -> list[bytes]:
    archive = Archive(folder)
    return [each.value or b"" for chunk in archive.chunks(topic, 0, 0, archive.end(topic, 0)) for each in chunk]


async def test_a_worker_publishes_the_bytes_of_a_backtest(broker, names, tmp_path):
    candles = [walk("BTC-USD", 110, 1), walk("ETH-USD", 110, 2)]
    execute(Request(candles, settings()), archive=tmp_path / "backtest", check=False)
    first, *rest = archived(tmp_path / "backtest", "journal")
    wanted = archived(tmp_path / "backtest", "allocations")
    assert len(wanted) > 200

    cluster = Cluster(broker, names, tmp_path)
    tree = json.loads(cluster.config.read_text())
    cluster.config.write_text(json.dumps({**tree, "topics": {**tree["topics"], "partitions": 1}}))
    await admin.apply(cluster.connection, names, 1)
    await begin(cluster.connection, names, 1, first)
    await cluster.publish("journal", rest)
    place = TopicPartition(names.topic("allocations"), 0)
    async with cluster.worker(), asyncio.timeout(PATIENCE_S):
        while len(found := [each async for each in read.records(cluster.connection, place, 0)]) < len(wanted):
            await asyncio.sleep(0.1)
    assert [each.value for each in found[: len(wanted)]] == wanted
