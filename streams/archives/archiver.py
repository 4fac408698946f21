"""Archives closed journal segments: each is verified, then written, then added to the manifest."""

import fcntl
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import orjson

from schemas.errors import SizingError, VerificationMismatch
from streams.archives.archive import LOCK, Archive
from streams.archives.files import ArchivedRecord, checkpoint_file, content, records_file, write
from streams.archives.manifest import Manifest, Segment, Snapshot, segment_name, snapshot_name
from streams.audits.refold import GENESIS, Checkpoint
from streams.audits.segment import Chunks, SegmentAudit, combine
from streams.journal import entries as journal
from streams.processing.ports import Record
from streams.processing.private_files import private_folder, private_opener
from streams.processing.writable import unwritable

ENTRIES: Final = 20_000
"""Journal entries per segment; writing one takes about 100 MB of memory."""


class RecordSource(Protocol):
    """A source of records; each has a `timestamp` in ms since 1970."""

    def chunks(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[Sequence[Any]]:
        """Yield the records of a topic's partition from `first` to before `end`."""


class Closed(NamedTuple):
    """The part of a partition that can be archived: immutable, and all its decisions published."""

    entries: int
    """End journal entry, exclusive."""
    outputs: int
    """End offset of `allocations`, exclusive."""


class ArchivedSegment(NamedTuple):
    """One segment added to the archive."""

    partition: int
    first: int
    last: int
    allocations: int
    """Number of records of `allocations`."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the archive's write lock. Raises: SizingError if another process holds it."""
    try:
        private_folder(folder)
        with open(folder / LOCK, "w", opener=private_opener) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for half in folder.rglob(".*.tmp"):
                half.unlink()
            yield
    except BlockingIOError as error:
        msg = f"{folder}: another process is writing to this archive"
        raise SizingError(msg) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise unwritable(error.filename, "command line", "FOLDER", error) from error


class Archiver:
    """Adds the closed part of a partition to an archive, segment by segment.

    `entries`: size of a segment; `rest`: also archive a shorter last one. A segment belongs to the archive once it is
    in the manifest; files left by an interrupted run are rewritten by the next.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, entries: int = ENTRIES, rest: bool = False) -> None:
        self.folder, self.manifest, self.entries, self.rest = folder, manifest, entries, rest

    async def partition(
        self, source: RecordSource, partition: int, closed: Closed, on_progress: Callable[[int], None] = lambda _: None
    ) -> list[ArchivedSegment]:
        """Archive the closed part of a partition; return the added segments.

        Raises:
            VerificationMismatch: a segment does not verify; it and all later ones are not archived.
        """
        start = self._start(partition)
        published = _Published(source.chunks("allocations", partition, start.outputs, closed.outputs))
        found = []
        while (size := min(self.entries, closed.entries - start.offset - 1)) == self.entries or (
            self.rest and size > 0
        ):
            end = start.offset + 1 + size
            entries = await _read(source, partition, start.offset + 1, end)
            outputs = await published.until(end)
            checkpoint = await _verified(partition, start, entries, outputs, on_progress)
            self._keep(partition, entries, outputs, checkpoint)
            found.append(ArchivedSegment(partition, start.offset + 1, checkpoint.offset, len(outputs)))
            start = checkpoint
        return found

    def _start(self, partition: int) -> Checkpoint:
        snapshots = self.manifest.snapshots.get(partition)
        return Archive(self.folder).checkpoint(partition, snapshots[-1].offset) if snapshots else GENESIS

    def _keep(
        self, partition: int, entries: list[ArchivedRecord], outputs: list[ArchivedRecord], checkpoint: Checkpoint
    ) -> None:
        """Write the files of one segment, then add them to the manifest."""
        lines: list[Segment | Snapshot] = [
            self._segment(topic, partition, records)
            for topic, records in (("allocations", outputs), (journal.TOPIC, entries))
            if records
        ]
        value = checkpoint_file(checkpoint)
        name = snapshot_name(partition, checkpoint.offset)
        write(self.folder / name, value)
        digest = f"{checkpoint.digest:064x}"
        at = (partition, checkpoint.offset, checkpoint.outputs, checkpoint.now_ns, digest)
        self.manifest.add([*lines, Snapshot(*at, name, _sha256(value))])

    def _segment(self, topic: str, partition: int, records: list[ArchivedRecord]) -> Segment:
        value, name = records_file(records), segment_name(topic, partition, records[0].offset)
        write(self.folder / name, value)
        times = (records[0].timestamp, records[-1].timestamp)
        return Segment(
            topic, partition, records[0].offset, records[-1].offset, name, _sha256(value), content(records), *times
        )


class _Published:
    """Reads `allocations` across segments."""

    def __init__(self, chunks: AsyncIterator[Sequence[Any]]) -> None:
        self._chunks = chunks
        self._left: list[ArchivedRecord] = []

    async def until(self, end: int) -> list[ArchivedRecord]:
        """Return the next records, up to the first one decided at journal entry `end` or later."""
        found: list[ArchivedRecord] = []
        while True:
            for place, record in enumerate(self._left):
                if _entry(record) >= end:
                    found += self._left[:place]
                    self._left = self._left[place:]
                    return found
            found += self._left
            records = await anext(self._chunks, None)
            self._left = [] if records is None else [kept(record) for record in records]
            if records is None:
                return found


def _entry(record: ArchivedRecord) -> int:
    """Return the journal entry of an allocation; -1 for any other record, which stays in its current segment."""
    try:
        return int(orjson.loads(record.value or b"")["journal"]["offset"])
    except (KeyError, TypeError, ValueError):
        return -1


def kept(record: Any) -> ArchivedRecord:
    """Return a consumed record in archived form."""
    headers = tuple((name, bytes(value)) for name, value in record.headers)
    return ArchivedRecord(record.offset, record.timestamp, record.key, record.value, headers)


async def _read(source: RecordSource, partition: int, first: int, end: int) -> list[ArchivedRecord]:
    found: list[ArchivedRecord] = []
    async for records in source.chunks(journal.TOPIC, partition, first, end):
        found += map(kept, records)
    if [record.offset for record in found] != list(range(first, end)):
        missing = next(n for n in range(first, end + 1) if n - first >= len(found) or found[n - first].offset != n)
        msg = f"journal {partition}:{missing} is missing"
        raise VerificationMismatch(msg)
    return found


async def _verified(
    partition: int,
    start: Checkpoint,
    entries: list[ArchivedRecord],
    outputs: list[ArchivedRecord],
    on_progress: Callable[[int], None],
) -> Checkpoint:
    """Return the checkpoint after a segment. Raises: VerificationMismatch if it does not verify."""
    segment = SegmentAudit(partition, start, on_progress=on_progress)
    found = await segment.verify(_one(entries), _one(outputs))
    verdict = combine(partition, [found], entries[-1].offset)
    if not verdict.ok:
        msg = f"journal {partition} not archived from entry {entries[0].offset} on: {verdict.first_mismatch}"
        raise VerificationMismatch(msg)
    summary = found.summary
    if summary.offset != entries[-1].offset:
        reason = "; ".join(verdict.others) or "the fold stopped early"
        msg = f"journal {partition} not archived from entry {entries[0].offset} on: {reason}"
        raise VerificationMismatch(msg)
    place = outputs[-1].offset + 1 if outputs else start.outputs
    return Checkpoint(summary.offset, summary.digest, summary.entry, place, summary.meta, segment.refold.records())


async def _one(records: Sequence[Record]) -> Chunks:
    yield records


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
