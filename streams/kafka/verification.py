"""The audit of a whole cluster, in one process or several."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from config.settings import Settings
from engines.allocation import DECISION_VERSION
from schemas.errors import AnotherVersion, BrokerUnreachable, NotFound, VerificationMismatch
from streams.archives import check
from streams.archives.archive import Archive
from streams.audits import version_spans
from streams.audits.comparison import Verdict
from streams.audits.plan import Ends, Mark, Piece, Range, by_partition, entries_of, planned, shared
from streams.audits.pool import Job, calm, side_by_side
from streams.audits.refold import GENESIS, Checkpoint
from streams.audits.segment import SegmentAudit, SegmentResult
from streams.audits.verdict import ArchivedPartition, concluded
from streams.journal import entries as journal
from streams.journal.genesis import BACKTEST_ID
from streams.journal.topics import PROGRESS, Names
from streams.kafka import read, state_snapshot
from streams.kafka.connection import Connection
from streams.kafka.login import connect
from streams.processing.checkpoint import Progress
from streams.processing.partitioner import partition_of
from streams.processing.ports import Record
from streams.stages.sizing import FoldObserver

STALLED_S = 30.0
"""How long a partition that has more records may deliver none before the audit fails."""

WORTH_IT: Final = 20_000
"""Number of entries from which on several processes are faster."""

ProgressCallback = Callable[[int], None]


class VerificationRequest(NamedTuple):
    """What to verify."""

    range: Range = Range()
    portfolio: str | None = None
    partition: int | None = None


EVERYTHING: Final = VerificationRequest()


class VerificationJob(NamedTuple):
    """A piece for another process, which opens its own connection."""

    settings: Settings
    archive: str | None
    piece: Piece

    def __call__(self, on_progress: ProgressCallback) -> SegmentResult:
        """Verify the piece."""
        return asyncio.run(_verified(connect(self.settings), Names(self.settings.topics.prefix), self, on_progress))


async def _verified(
    connection: Connection, names: Names, job: VerificationJob, on_progress: ProgressCallback
) -> SegmentResult:
    return await verified(connection, names, job.piece, _archive(job.archive), on_progress)


def _archive(folder: str | None) -> ArchivedPartition | None:
    return None if folder is None else Archive(Path(folder))


# -- one piece ---------------------------------------------------------------------------------------------------------
async def verified(
    connection: Connection,
    names: Names,
    piece: Piece,
    kept: ArchivedPartition | None = None,
    on_progress: ProgressCallback = lambda _: None,
    observe: FoldObserver | None = None,
) -> SegmentResult:
    """Verify one segment of one partition.

    Raises:
        VerificationMismatch: its starting checkpoint is damaged, or a file of the archive was changed.
        BrokerUnreachable: the broker delivers nothing for `STALLED_S`.
    """
    partition, log = piece.partition, ClusterLog(connection, names, kept)
    start, others = await _begun(partition, await _start(connection, names, piece, kept), log, piece.end)
    segment = SegmentAudit(
        partition,
        start,
        piece.part,
        probe=piece.probe,
        until_ns=piece.until_ns,
        observe=observe,
        on_progress=on_progress,
    )
    segment.others = others
    entries = log.chunks(journal.TOPIC, partition, start.offset + 1, piece.end)
    published = log.chunks("allocations", partition, start.outputs, piece.outputs_end)
    async with aclosing(entries), aclosing(published):
        return await segment.verify(entries, published, open_end=piece.open_end)


async def _begun(partition: int, start: Checkpoint, log: "ClusterLog", end: int) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return where this decision version starts, and the spans of other versions before it.

    Raises:
        AnotherVersion: it decided nothing here; the text says what to install.
    """
    version = (start.meta or {}).get("decision_version", DECISION_VERSION)
    if version != DECISION_VERSION:
        msg = (
            f"the checkpoint of partition {partition} at {start.offset} is of decision version {version}: install that"
        )
        raise AnotherVersion(msg)
    if start != GENESIS:
        return start, ()
    async with aclosing(log.chunks(journal.TOPIC, partition, 0, end)) as found:
        head = await anext(found, None)
        if head is None or head[0].offset:
            return GENESIS, ()  # the fold reports what is missing
        start, others = await version_spans.begun(partition, _each(head, found))
    return start, tuple(f"journal partition {partition}: {each}" for each in others)


async def _each(head: Sequence[Record], found: AsyncGenerator[Sequence[Record], None]) -> AsyncGenerator[Record, None]:
    for record in head:
        yield record
    async for records in found:
        for record in records:
            yield record


async def _start(connection: Connection, names: Names, piece: Piece, kept: ArchivedPartition | None) -> Checkpoint:
    if piece.start.where == "archive" and kept is not None:
        return kept.checkpoint(piece.partition, piece.start.offset)
    if piece.start.where == "live":
        found = await live_checkpoint(connection, names, piece.partition)
        if found is None or found.offset != piece.start.offset:
            msg = f"the checkpoint of partition {piece.partition} at {piece.start.offset} no longer exists: try again"
            raise NotFound(msg)
        return found
    return GENESIS


async def live_checkpoint(connection: Connection, names: Names, partition: int) -> Checkpoint | None:
    """Return the workers' last checkpoint of a partition, None if there is none.

    Raises:
        VerificationMismatch: its records do not have the digest of `progress`.
    """
    for _ in range(state_snapshot.TRIES):
        found = (await state_snapshot.checkpoints(connection, names, [partition])).get(partition)
        if found is None:
            return None
        progress, ledger = found
        if ledger.digest == progress.digest:
            return Checkpoint(
                progress.offset, progress.digest, progress.entry, progress.outputs, progress.meta, ledger.records()
            )
    tables = f"{names.application}-*-changelog[{partition}]"
    found_digest, right = f"{ledger.digest:064x}", f"{progress.digest:064x}"
    msg = f"{tables}: the checkpoint at entry {progress.offset} has digest {found_digest}, not {right}"
    raise VerificationMismatch(msg)


class ClusterLog:
    """The partitions of a cluster; archived records are read from the archive."""

    def __init__(self, connection: Connection, names: Names, kept: ArchivedPartition | None = None) -> None:
        self._connection, self._names, self._kept = connection, names, kept

    async def chunks(self, topic: str, partition: int, first: int, end: int) -> AsyncGenerator[Sequence[Record], None]:
        """Yield records from `first` up to, not including, `end`."""
        if self._kept is not None:
            archived = min(end, self._kept.end(topic, partition))
            for records in self._kept.chunks(topic, partition, first, archived):
                yield records
            first = max(first, archived)
        async with aclosing(chunks(self._connection, self._names.topic(topic), partition, first, end)) as found:
            async for records in found:
                yield records


async def chunks(
    connection: Connection, topic: str, partition: int, first: int, end: int
) -> AsyncGenerator[Sequence[Any], None]:
    """Yield the records of a partition from `first` (or the first available) up to, not including, `end`, as fetched.

    Raises:
        BrokerUnreachable: nothing is delivered for `STALLED_S` before the end.
    """
    if first >= end:
        return
    place = TopicPartition(topic, partition)
    loop = asyncio.get_running_loop()
    async with read.reader(connection, [place]) as consumer:
        consumer.seek(place, first)
        position, since = first, loop.time()
        while position < end:
            for records in (await consumer.getmany(place, timeout_ms=read.POLL_MS)).values():
                yield records if records[-1].offset < end else [each for each in records if each.offset < end]
                since = loop.time()
            now = await consumer.position(place)
            position, since = now, since if now == position else loop.time()
            if loop.time() - since > STALLED_S:
                msg = f"{topic}[{partition}] ends at {end} but delivers nothing from {position} on"
                raise BrokerUnreachable(msg)


# -- the cluster -------------------------------------------------------------------------------------------------------
async def ends(
    connection: Connection,
    names: Names,
    partitions: Sequence[int],
    kept: ArchivedPartition | None = None,
    *,
    live: bool = False,
) -> tuple[dict[int, Ends], dict[int, Progress]]:
    """Return the current ends of partitions, and their workers' `progress`.

    `live`: include the mark of the workers' last checkpoint.
    """
    topic = names.changelog(PROGRESS[journal.TOPIC])
    values = await read.newest_of(connection, [TopicPartition(topic, each) for each in partitions])
    progress = {place.partition: Progress.from_bytes(value) for place, value in values.items() if value is not None}
    published, entries = names.topic("allocations"), names.topic(journal.TOPIC)
    outputs_ends = await read.high_watermarks(connection, [TopicPartition(published, each) for each in partitions])
    journal_ends = await read.high_watermarks(connection, [TopicPartition(entries, each) for each in partitions])
    found = {}
    for number in partitions:
        marks = [] if kept is None else list(kept.marks(number))
        known = progress.get(number)
        if live and known is not None and known.meta:
            now_ns: Any = known.meta["now_ns"]
            marks.append(Mark(known.offset, known.outputs, now_ns, "live"))
        place, at = TopicPartition(entries, number), -1 if known is None else known.offset
        archived = kept is not None and kept.end(journal.TOPIC, number) > 0
        first = 0 if archived else await read.first_offset(connection, place)
        outputs_end = outputs_ends[TopicPartition(published, number)]
        found[number] = Ends(journal_ends[place], outputs_end, at, sorted(marks), first)
    return found, progress


async def plan(
    connection: Connection,
    names: Names,
    partitions: int,
    asked: VerificationRequest,
    kept: ArchivedPartition | None = None,
) -> tuple[list[Piece], dict[int, Progress]]:
    """Return the pieces to verify, and the workers' `progress`."""
    numbers = range(partitions)
    if asked.partition is not None:
        numbers = range(asked.partition, asked.partition + 1)
    elif asked.portfolio is not None:
        number = partition_of(asked.portfolio.encode(), partitions)
        numbers = range(number, number + 1)
    live = bool(asked.range.since or asked.range.since_ns)
    found, progress = await ends(connection, names, list(numbers), kept, live=live)
    return [each for n in numbers for each in planned(n, found[n], asked.range, asked.portfolio)], progress


async def verify_cluster(
    connection: Connection,
    names: Names,
    partitions: int,
    portfolio: str | None = None,
    observers: Callable[[int], FoldObserver] | None = None,
) -> Verdict:
    """Verify every journal partition in this process; `observers` returns the observer of a partition's entries."""
    pieces, progress = await plan(connection, names, partitions, VerificationRequest(portfolio=portfolio))
    found = [
        await verified(connection, names, piece, observe=None if observers is None else observers(piece.partition))
        for piece in pieces
    ]
    return concluded(pieces, found, progress, None)


def _job(settings: Settings, archive: str | None, piece: Piece, *, backtested: bool) -> Job[SegmentResult]:
    """Return the job of a piece; that of a backtest needs no broker."""
    if backtested and archive is not None:
        return check.ArchiveJob(archive, piece)
    return VerificationJob(settings, archive, piece)


class Audited(NamedTuple):
    """A verdict, and where the audit started."""

    verdict: Verdict
    starts: dict[int, Mark]
    """By partition."""
    processes: int
    cpu_s: list[float]
    """CPU time of each piece."""


def verify(
    settings: Settings,
    asked: VerificationRequest = EVERYTHING,
    *,
    archive: str | None = None,
    processes: int | None = None,
    on_total: ProgressCallback = lambda _: None,
    on_progress: ProgressCallback = lambda _: None,
) -> Audited:
    """Verify what is asked for; `processes` None: one per core, or one if there are few entries.

    The archive of a backtest is verified by itself: no cluster holds its journal.

    `on_total` gets the number of entries, `on_progress` the number folded since the last call.

    Raises:
        BrokerUnreachable, TopicsUnfit: the journal cannot be read.
        VerificationMismatch: a checkpoint, or a file of the archive, was changed.
    """
    kept = None if archive is None else Archive(Path(archive))
    backtested = kept is not None and kept.manifest.journal_id == BACKTEST_ID
    progress: dict[int, Progress] = {}
    if kept is not None and backtested:
        pieces = check.pieces(kept, asked.range, asked.portfolio)
    else:
        connection, names = connect(settings), Names(settings.topics.prefix)
        pieces, progress = asyncio.run(plan(connection, names, settings.topics.partitions, asked, kept))
    if processes is None:
        processes = (os.cpu_count() or 1) if entries_of(pieces) >= WORTH_IT else 1
    if processes > 1:
        pieces = shared(pieces, processes)
    if processes == 1 and entries_of(pieces) >= WORTH_IT:
        calm()
    on_total(entries_of(pieces))
    jobs = [_job(settings, archive, piece, backtested=backtested) for piece in pieces]
    found = side_by_side(jobs, processes, on_progress)
    places = by_partition(pieces)
    starts = {partition: pieces[own[0]].start for partition, own in places.items()}
    return Audited(concluded(pieces, found, progress, kept), starts, processes, [each.cpu_s for each in found])
