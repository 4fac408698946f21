"""Reads an archive: records and checkpoints, with the hash of every file checked."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from schemas.errors import VerificationMismatch
from streams.archives.files import ArchivedRecord, read_checkpoint, read_records, sha256
from streams.archives.manifest import NAME, Manifest, Segment
from streams.audits.plan import Mark
from streams.audits.refold import Checkpoint
from streams.processing.checkpoint import digest

LOCK: Final = ".lock"


class Archive:
    """A folder written by `himari journal archive`.

    Raises:
        NotFound: the folder is not an archive.
        VerificationMismatch: its manifest was changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, Manifest(folder)

    def marks(self, partition: int) -> list[Mark]:
        """Return the checkpoints of a partition, oldest first."""
        found = self.manifest.snapshots.get(partition, ())
        return [Mark(each.offset, each.outputs, each.now_ns, "archive") for each in found]

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after the last record of a topic's partition; 0: none."""
        return self.manifest.end(topic, partition)

    def checkpoint(self, partition: int, offset: int) -> Checkpoint:
        """Return the checkpoint at an entry.

        Raises:
            VerificationMismatch: it is missing, or its file was changed.
        """
        found = next((each for each in self.manifest.snapshots.get(partition, ()) if each.offset == offset), None)
        if found is None:
            msg = f"the archive has no checkpoint of journal {partition} at entry {offset}"
            raise VerificationMismatch(msg)
        name = f"{found.file}, the checkpoint of journal {partition} at entry {offset},"
        self._same(found.file, found.sha256, name)
        checkpoint = read_checkpoint(self.folder / found.file, name)
        stated = (checkpoint.offset, checkpoint.outputs, f"{checkpoint.digest:064x}", checkpoint.now_ns)
        if (
            stated != (offset, found.outputs, found.digest, found.now_ns)
            or digest(checkpoint.records) != checkpoint.digest
        ):
            msg = f"{name} does not match its manifest entry"
            raise VerificationMismatch(msg)
        return checkpoint

    def chunks(self, topic: str, partition: int, first: int, end: int) -> Iterator[Sequence[ArchivedRecord]]:
        """Yield the archived records from `first` to before `end`.

        Raises:
            VerificationMismatch: a file was changed.
        """
        for segment in self.manifest.segments.get((topic, partition), ()):
            if segment.last >= first and segment.first < end:
                records = self.segment(segment)
                yield records[max(0, first - segment.first) : end - segment.first]

    def segment(self, segment: Segment) -> list[ArchivedRecord]:
        """Return the records of a segment. Raises: VerificationMismatch."""
        name = f"{segment.file}, {segment.topic} {segment.partition}:{segment.first} to {segment.last},"
        self._same(segment.file, segment.sha256, name)
        records = read_records(self.folder / segment.file, name, segment.last - segment.first + 1)
        if [each.offset for each in records] != list(range(segment.first, segment.last + 1)):
            msg = f"{name} does not contain each offset exactly once"
            raise VerificationMismatch(msg)
        return records

    def _same(self, file: str, wanted: str, name: str) -> None:
        found = sha256(self.folder / file, name)
        if found != wanted:
            msg = f"{name} was changed: its sha256 must be {wanted}, was {found}"
            raise VerificationMismatch(msg)

    def strays(self) -> list[str]:
        """Return the files in the folder that are not in the manifest."""
        known = {NAME, LOCK, *self.manifest.files}
        there = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in there if name not in known)
