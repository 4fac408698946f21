"""Archives a cluster's journal, and compares an archive with the cluster."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from engines.allocation import DECISION_VERSION
from schemas.errors import VerificationMismatch
from streams.archives.archive import Archive
from streams.archives.archiver import ArchivedSegment, Archiver, Closed, alone, kept
from streams.archives.files import ArchivedRecord
from streams.archives.manifest import Manifest
from streams.journal import entries as journal
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.kafka.journal_origin import origin
from streams.kafka.verification import ClusterLog, chunks, ends, live_checkpoint

ProgressCallback = Callable[[int], None]


async def archive(
    connection: Connection,
    names: Names,
    partitions: int,
    folder: Path,
    *,
    entries: int,
    rest: bool,
    on_total: ProgressCallback = lambda _: None,
    on_progress: ProgressCallback = lambda _: None,
) -> tuple[str, list[ArchivedSegment]]:
    """Archive all entries up to the workers' last checkpoint, whose outputs are all published.

    Returns: the archive's head, and the added segments.

    Raises:
        VerificationMismatch: an entry does not verify, or the archive is damaged or of another journal.
        TopicsUnfit: there is no journal, or it has another number of partitions.
        SizingError: another process is archiving into the folder.
    """
    with alone(folder):
        known = await _beginning(connection, names, partitions, folder)
        manifest = Manifest.begun(folder, known, partitions, DECISION_VERSION)
        found, _ = await ends(connection, names, list(range(partitions)), Archive(folder))
        on_total(sum(max(0, found[n].progress + 1 - manifest.end(journal.TOPIC, n)) for n in found))
        archiver, log = Archiver(folder, manifest, entries=entries, rest=rest), ClusterLog(connection, names)
        added: list[ArchivedSegment] = []
        for number, each in found.items():
            closed = Closed(min(each.progress + 1, each.journal), each.outputs)
            added += await archiver.partition(log, number, closed, on_progress)
        return manifest.head, added


async def _beginning(connection: Connection, names: Names, partitions: int, folder: Path) -> str:
    """Return the journal's id from Genesis, or from the archive if the cluster no longer holds Genesis."""
    first = await read.first_offset(connection, TopicPartition(names.topic(journal.TOPIC), 0))
    return Manifest(folder).journal_id if first else (await origin(connection, names, partitions)).journal_id


async def against(
    connection: Connection, names: Names, folder: Path, on_progress: ProgressCallback = lambda _: None
) -> list[str]:
    """Return where an archive and the cluster differ: in records that both hold, or by a gap between them.

    The workers' last checkpoints are checked as well.
    """
    archived, findings = Archive(folder), list[str]()
    for partition in range(archived.manifest.partitions):
        for topic in (journal.TOPIC, "allocations"):
            findings += await _differs(connection, names, archived, topic, partition, on_progress)
        try:
            await live_checkpoint(connection, names, partition)
        except VerificationMismatch as error:
            findings.append(str(error))
    return findings


async def _differs(
    connection: Connection, names: Names, archive: Archive, topic: str, partition: int, on_progress: ProgressCallback
) -> list[str]:
    place = TopicPartition(names.topic(topic), partition)
    first, end = await read.first_offset(connection, place), archive.end(topic, partition)
    cluster_end = (await read.high_watermarks(connection, [place]))[place]
    if cluster_end < end:
        return [f"{place.topic}[{partition}] ends at {cluster_end}, the archive at {end}: its last records are missing"]
    if first > end:
        return [
            f"{place.topic}[{partition}] begins at {first}, the archive ends at {end}: the records between are missing"
        ]
    async with aclosing(chunks(connection, place.topic, partition, first, end)) as found:
        async for ours, theirs in _paired(archive, topic, partition, first, end, found):
            on_progress(1)
            if ours != theirs:
                return [f"{place.topic}[{partition}]@{ours.offset} is not the record that was archived"]
    return []


async def _paired(
    archive: Archive, topic: str, partition: int, first: int, end: int, found: AsyncGenerator[Sequence[Any], None]
) -> AsyncGenerator[tuple[ArchivedRecord, ArchivedRecord | None], None]:
    """Yield each archived record with the cluster's record, None if it has none."""
    theirs: list[ArchivedRecord] = []
    for records in archive.chunks(topic, partition, first, end):
        for record in records:
            while not theirs:
                more = await anext(found, None)
                if more is None:
                    yield record, None
                    return
                theirs = [kept(each) for each in reversed(more)]
            yield record, theirs.pop()
