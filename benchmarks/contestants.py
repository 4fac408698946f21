"""Baselines for the worker, one process each: python -m benchmarks.contestants NAME BOOTSTRAP PREFIX

bare       an aiokafka loop that calls the same sizing fold and publishes the same outputs; no checkpoint
forward    an aiokafka loop that only decodes and forwards
stock      stock Faust, one event at a time, with the same fold
ticks      an aiokafka loop that calls the same market fold
relay      two aiokafka loops, one hop each: signals → journal → allocations
"""

import asyncio
import sys
import tempfile
import time

import faust
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from engines.parameters import DecisionParams
from streams.journal.topics import Names
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.connection import Connection
from streams.processing.memory_cluster import Stored
from streams.processing.ports import Fold, Send
from streams.stages.market import MarketFold
from streams.stages.sizing import SizingFold

CHUNK = 2_000


async def loop(connection: Connection, source: str, target: str, fold: object) -> None:
    """Read a partition from its start, call `fold` on each record, and publish the result; never returns."""
    consumer = AIOKafkaConsumer(**connection.options(), enable_auto_commit=False, fetch_max_wait_ms=50)
    producer = AIOKafkaProducer(**connection.options(), acks="all", max_batch_size=512 * 1024, max_request_size=9 << 20)
    await consumer.start()
    await producer.start()
    place = TopicPartition(source, 0)
    consumer.assign([place])
    consumer.seek(place, 0)
    while True:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=CHUNK)).values():
            lines = [line for record in records for line in fold(record)]  # type: ignore[operator]
            if lines:
                await append(producer, TopicPartition(target, 0), lines)


def folding(fold: Fold, topic: str) -> object:
    """Return a function that folds a record and returns the outputs for one topic."""

    def call(record: Stored) -> list[OutgoingRecord]:
        sends: list[Send] = fold.fold(record)
        return [OutgoingRecord(send.key, send.value, send.headers) for send in sends if send.topic == topic]

    return call


def forwarding(record: Stored) -> list[OutgoingRecord]:
    """Decode a record and return it unchanged."""
    orjson.loads(record.value or b"")
    return [OutgoingRecord(record.key, record.value)]


def stock(connection: Connection, names: Names) -> faust.App:
    """Return a Faust application as in its documentation."""
    app = faust.App(
        f"{names.prefix}-stock",
        broker=f"kafka://{connection.bootstrap}",
        datadir=tempfile.mkdtemp(),
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(names.topic("journal"), key_serializer="raw", value_serializer="raw")
    target = app.topic(names.topic("allocations"), key_serializer="raw", value_serializer="raw")
    fold = SizingFold(0)

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def size(stream: faust.StreamT) -> None:
        async for event in stream.events():
            record = Stored(event.message.offset, None, event.value)
            for send in fold.fold(record):
                await target.send(key=send.key, value=send.value)

    return app


async def main(name: str, bootstrap: str, prefix: str) -> None:
    """Run one contestant until it is killed."""
    connection, names = Connection(bootstrap), Names(prefix)
    journal, allocations = names.topic("journal"), names.topic("allocations")
    if name == "bare":
        await loop(connection, journal, allocations, folding(SizingFold(0), "allocations"))
    elif name == "forward":
        await loop(connection, journal, allocations, forwarding)
    elif name == "ticks":
        params = DecisionParams()
        market = MarketFold(0, 1, lambda: params, time.time_ns)
        await loop(connection, names.topic("prices"), journal, folding(market, "journal"))
    elif name == "relay":
        await asyncio.gather(
            loop(connection, names.topic("signals"), journal, forwarding),
            loop(connection, journal, allocations, forwarding),
        )
    elif name == "stock":
        await stock(connection, names).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
