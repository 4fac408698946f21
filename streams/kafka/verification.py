"""The audit of a whole cluster."""

from aiokafka import TopicPartition

from streams import audit
from streams.audit import Verdict
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.sizing import Observer
from streams.topics import Names


async def verify_cluster(
    connection: Connection,
    names: Names,
    partitions: int,
    portfolio: str | None = None,
    observe: Observer | None = None,
) -> Verdict:
    """Verify every journal partition; `observe` is told what the entries of the first one led to."""
    total = Verdict()
    for partition in range(partitions):
        allocations = TopicPartition(names.topic("allocations"), partition)
        published = [record.value async for record in read.records(connection, allocations, 0)]
        journal = read.records(connection, TopicPartition(names.topic("journal"), partition), 0)
        total += await audit.verify(partition, journal, published, portfolio, None if partition else observe)
    return total
