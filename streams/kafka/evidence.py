"""What a decision is explained and proved with, out of a cluster: its journal partition, and what was published."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiokafka import TopicPartition

from engines.parameters import DecisionParams, tree_hash
from schemas.errors import NotFound, VerificationMismatch
from streams import journal
from streams.evidence.bundle import Bundle
from streams.evidence.explain import Again, Copies, again, copies
from streams.evidence.named import DecisionName
from streams.evidence.whatif import Difference, whatif
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.partitioner import partition_of
from streams.topics import Names

Records = AsyncGenerator[Any, None]


async def entries(connection: Connection, names: Names, partition: int, end: int | None = None) -> Records:
    """Yield the entries of a journal partition from its beginning to before `end`.

    Raises:
        NotFound: the journal has no such partition.
        TopicsUnfit: there is no journal.
    """
    places = await read.places(connection, names.topic(journal.TOPIC))
    if partition >= len(places):
        msg = f"journal partition {partition} is not there, the journal has {len(places)}"
        raise NotFound(msg)
    async with aclosing(read.records(connection, places[partition], 0, end)) as records:
        async for record in records:
            yield record


async def decision(connection: Connection, names: Names, name: DecisionName) -> tuple[Again, Copies]:
    """Return a decision as the journal gives it again, and what is published of it.

    Raises:
        NotFound, TopicsUnfit: as `entries`.
    """
    async with aclosing(entries(connection, names, name.partition, name.offset + 1)) as records:
        found = await again(name, records)
    sequence = None if found.published is None else found.published.sequence
    published = read.records(connection, TopicPartition(names.topic("allocations"), name.partition), 0)
    return found, await copies(name, sequence, published)


async def bundle(connection: Connection, names: Names, name: DecisionName) -> Bundle:
    """Return a decision as it was first published, and its journal partition up to it.

    Raises:
        NotFound: it is not published, or the journal does not reach so far.
        VerificationMismatch: an entry of the journal is missing.
        TopicsUnfit: there is no journal.
    """
    found: list[bytes] = []
    async with aclosing(entries(connection, names, name.partition, name.offset + 1)) as records:
        async for record in records:
            if record.offset != len(found):
                msg = f"journal {name.partition}:{len(found)} is missing, next is offset {record.offset}"
                raise VerificationMismatch(msg)
            found.append(record.value or b"")
    published = read.records(connection, TopicPartition(names.topic("allocations"), name.partition), 0)
    known = await copies(name, None, published)
    if not known.values or len(found) <= name.offset:
        what = "is not published" if not known.values else f"is not in the journal, which ends at offset {len(found)}"
        msg = f"decision {name} {what}"
        raise NotFound(msg)
    return Bundle(name, known.values[0], found)


async def differences(
    connection: Connection, names: Names, params: DecisionParams, portfolio: str | None, since_ns: int, until_ns: int
) -> Difference:
    """Return what other decision settings would have changed, on every journal partition or on a portfolio's.

    Raises:
        TopicsUnfit: there is no journal.
        VerificationMismatch: an entry is missing, or cannot be folded.
    """
    count = len(await read.places(connection, names.topic(journal.TOPIC)))
    total = Difference(tree_hash(params))
    for partition in range(count) if portfolio is None else [partition_of(portfolio.encode(), count)]:
        async with aclosing(entries(connection, names, partition)) as records:
            total.join(await whatif(partition, records, params, portfolio, since_ns, until_ns))
    return total
