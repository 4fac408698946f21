"""Closed stretches of the journal into an archive: verified first, then written, then named in the manifest."""

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
from streams.audits.segment import Chunks, SegmentAudit, together
from streams.journal import entries as journal
from streams.processing.ports import Record
from streams.processing.writable import unwritable

ENTRIES: Final = 20_000
"""Journal entries to a segment: some 100 MB of memory while one is written."""


class RecordSource(Protocol):
    """Where records are read; each has a `timestamp`, in ms."""

    def chunks(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[Sequence[Any]]:
        """Yield the records of a topic's partition from `first` to before `end`."""


class Closed(NamedTuple):
    """How much of a partition may be archived: nothing of it will change, and all that it decides is published."""

    entries: int
    """The journal entry before which it ends."""
    outputs: int
    """End of `allocations`."""


class ArchivedSegment(NamedTuple):
    """What was added for one stretch."""

    partition: int
    first: int
    last: int
    allocations: int
    """Records of `allocations`."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let nobody else write to an archive meanwhile. Raises: SizingError where somebody does, or nobody can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for half in folder.rglob(".*.tmp"):
                half.unlink()
            yield
    except BlockingIOError as error:
        msg = f"{folder}: another process is archiving there"
        raise SizingError(msg) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise unwritable(error.filename, "command line", "FOLDER", error) from error


class Archiver:
    """Adds what is closed of a partition to an archive, a segment at a time.

    `entries` to a segment; `rest`: what does not fill one becomes a shorter one. A segment is in the archive once the
    manifest names it; what a run that was broken off left beside it is written again by the next.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, entries: int = ENTRIES, rest: bool = False) -> None:
        self.folder, self.manifest, self.entries, self.rest = folder, manifest, entries, rest

    async def partition(
        self, source: RecordSource, partition: int, closed: Closed, told: Callable[[int], None] = lambda _: None
    ) -> list[ArchivedSegment]:
        """Archive what is closed of a partition; return what was added.

        Raises:
            VerificationMismatch: something of it does not verify: neither that nor what follows is archived.
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
            checkpoint = await _verified(partition, start, entries, outputs, told)
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
        """Write the files of one stretch, then their lines."""
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
    """`allocations`, read on from stretch to stretch."""

    def __init__(self, chunks: AsyncIterator[Sequence[Any]]) -> None:
        self._chunks = chunks
        self._left: list[ArchivedRecord] = []

    async def until(self, end: int) -> list[ArchivedRecord]:
        """Return the next records, up to the first that was decided at journal entry `end` or later."""
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
    """Return the journal entry of an allocation; a record that is none stays where it stands."""
    try:
        return int(orjson.loads(record.value or b"")["journal"]["offset"])
    except (KeyError, TypeError, ValueError):
        return -1


def kept(record: Any) -> ArchivedRecord:
    """Return a consumed record as it is archived."""
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
    told: Callable[[int], None],
) -> Checkpoint:
    """Return the checkpoint after a stretch. Raises: VerificationMismatch where it does not verify."""
    stretch = SegmentAudit(partition, start, told=told)
    found = await stretch.verify(_one(entries), _one(outputs))
    verdict = together(partition, [found], entries[-1].offset)
    if not verdict.ok:
        msg = f"not archived from journal {partition}:{entries[0].offset} on: {verdict.first_mismatch}"
        raise VerificationMismatch(msg)
    summary = found.summary
    if summary.offset != entries[-1].offset:
        told_of = "; ".join(verdict.others) or "its fold ended early"
        msg = f"not archived from journal {partition}:{entries[0].offset} on: {told_of}"
        raise VerificationMismatch(msg)
    place = outputs[-1].offset + 1 if outputs else start.outputs
    return Checkpoint(summary.offset, summary.digest, summary.entry, place, summary.meta, stretch.refold.records())


async def _one(records: Sequence[Record]) -> Chunks:
    yield records


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
