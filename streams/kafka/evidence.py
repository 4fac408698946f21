"""Evidence for a decision from a cluster: its journal partition, and what was published."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiokafka import TopicPartition

from engines.parameters import DecisionParams, tree_hash
from schemas.errors import NotFound, VerificationMismatch
from streams.archives.archive import Archive
from streams.audits.refold import GENESIS, Checkpoint
from streams.evidence.bundle import Bundle
from streams.evidence.decision_id import DecisionName
from streams.evidence.explain import Again, Copies, again, copies
from streams.evidence.whatif import WhatIfDifference, whatif
from streams.journal import entries as journal
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.kafka.verification import ClusterLog
from streams.processing.partitioner import partition_of

RecordStream = AsyncGenerator[Any, None]


class EvidenceSource:
    """A cluster, and an archive of what the cluster no longer holds.

    With an archive, decisions are recomputed from its nearest checkpoint.
    """

    def __init__(self, connection: Connection, names: Names, archive: Archive | None = None) -> None:
        self._connection, self._names, self._archive = connection, names, archive
        self._log = ClusterLog(connection, names, archive)

    async def partitions(self) -> list[TopicPartition]:
        """Return the journal's partitions. Raises: TopicsUnfit."""
        return await read.places(self._connection, self._names.topic(journal.TOPIC))

    async def entries(self, partition: int, first: int = 0, end: int | None = None) -> RecordStream:
        """Yield the entries of a journal partition from `first` up to, not including, `end`.

        Raises:
            NotFound: the journal has no such partition.
            TopicsUnfit: there is no journal.
            VerificationMismatch: a file of the archive was changed.
        """
        places = await self.partitions()
        if partition >= len(places):
            msg = f"journal partition {partition} does not exist, the journal has {len(places)}"
            raise NotFound(msg)
        known = (await read.high_watermarks(self._connection, [places[partition]]))[places[partition]]
        stop = known if end is None else min(end, known)
        async with aclosing(self._log.chunks(journal.TOPIC, partition, first, stop)) as chunks:
            async for records in chunks:
                for record in records:
                    yield record

    async def copies(self, name: DecisionName, sequence: int | None) -> Copies:
        """Return the published copies of a decision."""
        place = TopicPartition(self._names.topic("allocations"), name.partition)
        end = (await read.high_watermarks(self._connection, [place]))[place]
        return await copies(name, sequence, self._singly(name.partition, end))

    async def _singly(self, partition: int, end: int) -> RecordStream:
        async with aclosing(self._log.chunks("allocations", partition, 0, end)) as chunks:
            async for records in chunks:
                for record in records:
                    yield record

    def start(self, partition: int, offset: int | None = None, since_ns: int | None = None) -> Checkpoint:
        """Return the latest archived checkpoint before an entry, or at or before a time; else the beginning.

        Raises:
            VerificationMismatch: it differs from the one that was archived.
        """
        archive = self._archive
        marks = [] if archive is None else archive.marks(partition)
        suitable = [
            mark
            for mark in marks
            if (offset is None or mark.offset < offset) and (since_ns is None or mark.now_ns <= since_ns)
        ]
        return GENESIS if archive is None or not suitable else archive.checkpoint(partition, max(suitable).offset)


async def decision(source: EvidenceSource, name: DecisionName) -> tuple[Again, Copies]:
    """Return a decision recomputed from the journal, and its published copies.

    Raises:
        NotFound, TopicsUnfit, VerificationMismatch: as `EvidenceSource.entries`.
    """
    start = source.start(name.partition, name.offset)
    async with aclosing(source.entries(name.partition, start.offset + 1, name.offset + 1)) as records:
        found = await again(name, records, start)
    return found, await source.copies(name, None if found.published is None else found.published.sequence)


async def bundle(source: EvidenceSource, name: DecisionName) -> Bundle:
    """Return a decision as first published, and its journal partition up to it.

    Raises:
        NotFound: it is not published, or beyond the end of the journal.
        VerificationMismatch: an entry of the journal is missing.
        TopicsUnfit: there is no journal.
    """
    found: list[bytes] = []
    start = source.start(name.partition, name.offset)
    async with aclosing(source.entries(name.partition, start.offset + 1, name.offset + 1)) as records:
        async for record in records:
            expected = start.offset + 1 + len(found)
            if record.offset != expected:
                msg = f"journal {name.partition}:{expected} is missing, next is offset {record.offset}"
                raise VerificationMismatch(msg)
            found.append(record.value or b"")
    known = await source.copies(name, None)
    end = start.offset + 1 + len(found)
    if not known.values or end <= name.offset:
        what = "is not published" if not known.values else f"is not in the journal, which ends at offset {end}"
        msg = f"decision {name} {what}"
        raise NotFound(msg)
    return Bundle(name, known.values[0], found, start)


async def differences(
    source: EvidenceSource, params: DecisionParams, portfolio: str | None, since_ns: int, until_ns: int
) -> WhatIfDifference:
    """Return the differences that other decision settings would have made, on every journal partition or a portfolio's.

    With an archive they apply from its latest checkpoint at or before `since_ns`, else from Genesis.

    Raises:
        TopicsUnfit: there is no journal.
        VerificationMismatch: an entry is missing, or cannot be folded.
    """
    count = len(await source.partitions())
    total = WhatIfDifference(tree_hash(params))
    for partition in range(count) if portfolio is None else [partition_of(portfolio.encode(), count)]:
        start = source.start(partition, since_ns=since_ns) if since_ns else GENESIS
        async with aclosing(source.entries(partition, start.offset + 1)) as records:
            total.join(await whatif(partition, records, params, portfolio, since_ns, until_ns, start))
    return total
