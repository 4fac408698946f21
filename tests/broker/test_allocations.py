"""Allocations out of a cluster: each once, in order of time; the newest wherever it stands."""

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from worlds import Driver, last, priced, signal

from schemas.errors import AllocationFork, NotFound, TopicsUnfit
from streams.kafka import admin
from streams.kafka import allocations as source
from streams.kafka.append import OutgoingRecord, append

pytestmark = [pytest.mark.broker]

PORTFOLIOS = ("main", "alpha", "beta", "gamma")


def day() -> Driver:
    driver = priced(Driver(partitions=2))
    for number in range(24):
        name = PORTFOLIOS[number % 4] if number < 8 else PORTFOLIOS[number % 3]
        driver.publish("signals", signal(driver.now_ns, signal_id=f"s-{number}", portfolio_id=name, valid_for_s=86_400))
        driver.advance(1.0)
    return driver


DAY = day()


async def laid(connection, names, *, twice=False) -> None:
    """Publish what the driver did, partition by partition."""
    await admin.apply(connection, names, 2)
    producer = AIOKafkaProducer(**connection.options(), acks="all")
    await producer.start()
    try:
        for partition in range(2):
            lines = [OutgoingRecord(None, record.value) for record in DAY.cluster.log("allocations", partition).read(0)]
            await append(producer, TopicPartition(names.topic("allocations"), partition), lines * (1 + twice))
    finally:
        await producer.stop()


async def test_every_allocation_comes_once_in_order_of_time_however_often_it_was_published(broker, names):
    await laid(broker, names, twice=True)
    found = [fields async for fields in source.allocations(broker, names)]
    assert sorted(map(orjson.dumps, found)) == sorted(map(orjson.dumps, DAY.allocations()))
    assert [each["timestamp_ns"] for each in found] == sorted(each["timestamp_ns"] for each in found)
    mine = [fields["sequence"] async for fields in source.allocations(broker, names, "alpha")]
    assert mine == list(range(1, last(DAY, "alpha")["sequence"] + 1))


@pytest.mark.parametrize("window", [1, 2, 1_000])
async def test_the_newest_is_found_wherever_it_stands(embedded_broker, names, monkeypatch, window):
    monkeypatch.setattr(source, "WINDOW", window)
    await laid(embedded_broker, names)
    for name in PORTFOLIOS:
        assert await source.newest(embedded_broker, names, name) == last(DAY, name)
    with pytest.raises(NotFound, match="portfolio stranger has no allocation in"):
        await source.newest(embedded_broker, names, "stranger")


@pytest.mark.parametrize("window", [1, 3, 1_000])
async def test_from_a_time_on_none_is_left_out_and_most_of_those_before_are_not_read(
    embedded_broker, names, monkeypatch, window
):
    monkeypatch.setattr(source, "WINDOW", window)
    await laid(embedded_broker, names)
    everything = sorted(DAY.allocations(), key=lambda fields: fields["timestamp_ns"])
    read_back = {}
    for since_ns in (everything[0]["timestamp_ns"], everything[12]["timestamp_ns"], everything[-1]["timestamp_ns"] + 1):
        found = [fields async for fields in source.allocations(embedded_broker, names, since_ns=since_ns)]
        wanted = [fields for fields in everything if fields["timestamp_ns"] >= since_ns]
        assert [fields for fields in found if fields["timestamp_ns"] >= since_ns] == wanted
        read_back[since_ns] = len(found)
    if window == 1:
        assert max(read_back.values()) == len(everything)
        assert min(read_back.values()) <= 2 * (window + 1)
    with pytest.raises(NotFound, match="portfolio stranger"):
        [fields async for fields in source.allocations(embedded_broker, names, "stranger", since_ns=1)]


async def test_a_log_that_forks_is_not_exported(embedded_broker, names):
    await laid(embedded_broker, names)
    producer = AIOKafkaProducer(**embedded_broker.options(), acks="all")
    await producer.start()
    fields = last(DAY)
    target = TopicPartition(names.topic("allocations"), fields["journal"]["partition"])
    await append(producer, target, [OutgoingRecord(None, orjson.dumps({**fields, "kept": ["forged"]}))])
    await producer.stop()
    with pytest.raises(AllocationFork, match="published with other bytes"):
        [fields async for fields in source.allocations(embedded_broker, names, "main")]


async def test_without_the_topic_it_is_said_what_to_run(embedded_broker, names):
    with pytest.raises(TopicsUnfit, match="run: himari topics apply"):
        await source.newest(embedded_broker, names, "main")
