"""Every kind of payload against a worker process on a broker: each is journaled or a dead letter, and it lives."""

import asyncio
import time
from collections import Counter

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from broker.cluster import PARTITIONS, PATIENCE_S, Cluster
from payloads import TAKEN, Payload, payloads
from worlds import signal

from schemas import dead_letter
from streams.journal.dead_letters import CUT
from streams.journal.topics import DLQ
from streams.kafka.append import OutgoingRecord, append

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(600)]

BOMB = b'{"x":"' + b"0" * (20 << 20) + b'"}'
"""Compressed it is smaller than any limit; no dead-letter topic takes it whole."""


async def published(cluster: Cluster, rows: list[Payload], *, bombs: bool) -> dict[tuple[str, int], Payload]:
    """Publish all rows, each to partition 0 of its topic; return them by topic and offset."""
    options = cluster.connection.options()
    producer = AIOKafkaProducer(**options, acks="all", max_request_size=64 << 20, compression_type="gzip")
    await producer.start()
    places = {}
    try:
        for topic in ("signals", "prices") if bombs else ():
            rows.append(Payload("a bomb", topic, BOMB, "too_large"))
            rows.append(Payload("a bomb of a key", topic, b"{}", "missing", key=BOMB))
        for row in rows:
            place = TopicPartition(cluster.names.topic(row.topic), 0)
            (offset,) = await append(producer, place, [OutgoingRecord(row.key, row.value, row.headers)])
            places[row.topic, offset] = row
    finally:
        await producer.stop()
    return places


async def letters(cluster: Cluster, topics) -> list:
    return [record for topic in topics for record in await cluster.records(topic + DLQ)]


async def test_each_payload_is_journaled_or_a_dead_letter_and_the_worker_lives(broker, names, tmp_path):
    cluster = Cluster(broker, names, tmp_path)
    await cluster.lay()
    kafka = "embedded" not in str(tmp_path)
    async with cluster.worker() as process:
        places = await published(cluster, payloads(time.time_ns()), bombs=kafka)
        topics = sorted({topic for topic, _ in places})
        expected = Counter(row.code for row in places.values() if row.code != TAKEN)
        async with asyncio.timeout(PATIENCE_S):
            while len(found := await letters(cluster, topics)) < sum(expected.values()):
                assert process.returncode is None, (await process.stderr.read()).decode()[-3_000:]
                await asyncio.sleep(0.2)
        await cluster.publish("signals", [signal(time.time_ns(), signal_id="after-all", portfolio_id="fresh")])
        await cluster.answered(["after-all"])
        assert process.returncode is None
    assert process.returncode == 0
    found = await letters(cluster, topics)
    why: dict[tuple[str, int], list[str]] = {}
    for each in map(dead_letter.read, (record.headers for record in found)):
        why.setdefault((each.topic, each.offset), []).append(each.code)
    first = {place: codes[0] for place, codes in why.items()}
    assert first == {place: row.code for place, row in places.items() if row.code != TAKEN}
    assert {topic for (topic, _), codes in why.items() if len(codes) > 1} == {"prices"}, "one letter a tick"
    assert sum(CUT in dict(record.headers) for record in found) == (4 if kafka else 0)
    entries = [orjson.loads(record.value) for record in await cluster.records("journal")]
    journaled = {(each["source"]["topic"], each["source"]["offset"]) for each in entries if each["source"]}
    taken = {place for place, row in places.items() if place[0] != "prices" and (row.code == TAKEN or row.folded)}
    assert journaled - {("signals", max(offset for _, offset in journaled))} >= taken - journaled == set()
    assert len(journaled) == len(taken) + 1, "and the one after all"
    assert (await cluster.verify()).ok
    assert PARTITIONS > 1
