"""Archive, forget, verify: as operators do it, on both brokers, through the command line; then tamper."""

import asyncio
import time

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from broker.cluster import PARTITIONS, Cluster
from worlds import signal as a_signal

from streams.journal.entries import internal
from streams.journal.topics import PROGRESS
from streams.kafka import read
from streams.kafka.connection import is_embedded
from streams.processing.checkpoint import Progress
from streams.processing.partitioner import partition_of

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(900)]

PORTFOLIOS = "abcdefgh"


async def worked(cluster):
    """Let a worker answer some signals of portfolios on both partitions, and stop with a last checkpoint."""
    await cluster.lay()
    async with cluster.worker():
        await cluster.price("BTC-USD", 43_500.0)
        while not [each for each in await cluster.records("journal") if b'"kind":"step"' in each.value]:
            await asyncio.sleep(0.1)
        for first in (0, 24):
            now_ns = time.time_ns()
            names = [f"s-{number}" for number in range(first, first + 24)]
            sent = [
                a_signal(now_ns, signal_id=name, portfolio_id=PORTFOLIOS[number % 8], valid_for_s=3600)
                for number, name in enumerate(names)
            ]
            await cluster.publish("signals", sent)
            await cluster.answered(names)


async def reported(cluster, *command, code=0):
    found, out, err = await cluster.himari(*command, "--json")
    assert found == code, out + err
    return orjson.loads(out)


async def embedded(cluster):
    """Return whether this is the embedded broker, which cannot delete records."""
    async with read.reader(cluster.connection, []) as consumer:
        return await is_embedded(consumer._client)


async def forget(cluster, topic, ends):
    """Delete records below offsets, as retention does."""
    client = AIOKafkaAdminClient(**cluster.connection.options())
    await client.start()
    try:
        name = cluster.names.topic(topic)
        wanted = {TopicPartition(name, p): RecordsToDelete(before_offset=end) for p, end in ends.items()}
        await client.delete_records(wanted)
    finally:
        await client.close()


async def test_an_archive_is_made_checked_and_verified_from(broker, names, tmp_path):
    cluster, folder = Cluster(broker, names, tmp_path), str(tmp_path / "archive")
    await worked(cluster)
    whole = await reported(cluster, "audit", "verify", "--processes", "1")
    assert (whole["checked"], whole["mismatched"], whole["pending"]) == (48, 0, 0)
    shared = await reported(cluster, "audit", "verify", "--processes", "3")
    assert shared["checked"] == 48
    one = await reported(cluster, "audit", "verify", "--portfolio", "c")
    assert (one["checked"], list(one["first_entries"])) == (6, [str(partition_of(b"c", PARTITIONS))])

    added = (await reported(cluster, "journal", "archive", folder, "--entries", "10"))["added"]
    assert {each["partition"] for each in added} == set(range(PARTITIONS))
    assert (await reported(cluster, "journal", "archive", folder, "--entries", "10"))["added"] == []
    checked = await reported(cluster, "journal", "check", folder, "--against-kafka", "--processes", "2")
    assert (checked["findings"], checked["checkpoints"]) == ([], len(added))
    place = max(each["last"] for each in added if each["partition"] == 0)
    later = await reported(cluster, "audit", "verify", "--archive", folder, "--from", f"0:{place + 1}")
    assert later["first_entries"] == {"0": place + 1}
    assert later["entries"] < whole["entries"]
    live = await reported(cluster, "audit", "verify", "--from", str(time.time_ns()))
    progress = {p: (await _progress(cluster, p)).offset for p in range(PARTITIONS)}
    assert live["first_entries"] == {str(p): offset + 1 for p, offset in progress.items()}

    await tampered(
        cluster, folder, {p: max(e["last"] for e in added if e["partition"] == p) for p in range(PARTITIONS)}
    )


async def tampered(cluster, folder, ends):
    """Forget what is archived, where the broker can; then an allocation, a journal entry and a checkpoint too much."""
    if not await embedded(cluster):
        await forget(cluster, "journal", {p: end - 3 for p, end in ends.items()})
        code, out, err = await cluster.himari("audit", "verify")
        assert (code, "journal 0:0 is missing" in out) == (4, True), out + err
        again = await reported(cluster, "audit", "verify", "--archive", folder)
        assert (again["checked"], again["mismatched"]) == (48, 0)
        found = await reported(cluster, "journal", "check", folder, "--against-kafka")
        assert found["findings"] == []

    records = [each for each in await cluster.records("allocations") if each.partition == 0]
    fields = orjson.loads(records[2].value)
    forged = orjson.dumps({**fields, "portfolio_value": 1.0}, option=orjson.OPT_SORT_KEYS)
    await cluster.publish("allocations", [forged])
    code, out, _ = await cluster.himari("audit", "verify", "--archive", folder)
    assert (code, f"allocations 0:{len(records)}: {fields['portfolio_id']}" in out) == (4, True), out

    changelog = cluster.names.changelog(PROGRESS["journal"])
    progress = await _progress(cluster, 1)
    spoiled = progress._replace(digest=progress.digest ^ 1).to_bytes()
    await _append(cluster, changelog, 1, spoiled)
    code, out, _ = await cluster.himari("journal", "check", folder, "--against-kafka")
    assert (code, f"changelog[1]: the checkpoint at entry {progress.offset} has digest" in out) == (4, True), out
    code, out, err = await cluster.himari("audit", "verify", "--from", str(time.time_ns()))
    assert (code, f"changelog[1]: the checkpoint at entry {progress.offset}" in err) == (4, True), out + err

    await cluster.publish("journal", [internal("nonsense", {}, time.time_ns())], 1)
    code, out, _ = await cluster.himari("audit", "verify", "--archive", folder)
    assert (code, "cannot be folded" in out or "published with other bytes" in out) == (4, True), out


async def _progress(cluster, partition):
    place = TopicPartition(cluster.names.changelog(PROGRESS["journal"]), partition)
    return Progress.from_bytes(await read.newest(cluster.connection, place))


async def _append(cluster, topic, partition, value):
    producer = AIOKafkaProducer(**cluster.connection.options())
    await producer.start()
    try:
        key = partition.to_bytes(4, "big")
        await producer.send_and_wait(topic, value, key=key, partition=partition)
    finally:
        await producer.stop()
