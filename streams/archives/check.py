"""Checks an archive: its hash chain, files, offsets, and every checkpoint by replay."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.errors import VerificationMismatch
from streams.archives.archive import Archive
from streams.archives.files import ArchivedRecord, content
from streams.archives.manifest import Segment
from streams.audits.comparison import Verdict
from streams.audits.plan import Ends, Piece, Range, entries_of, planned
from streams.audits.pool import side_by_side
from streams.audits.refold import GENESIS
from streams.audits.segment import Chunks, SegmentAudit, SegmentResult
from streams.audits.verdict import concluded
from streams.journal import entries as journal

ProgressCallback = Callable[[int], None]
EVERYTHING: Final = Range()


class ArchiveCheck(NamedTuple):
    """The result of a check."""

    head: str
    """Hash of the last line of the manifest."""
    segments: int
    checkpoints: int
    records: int
    verdict: Verdict
    """Result of the replay, if there was one."""
    findings: list[str]

    def report(self) -> dict[str, Any]:
        """Return what `journal check --json` prints."""
        return {**self._asdict(), "verdict": self.verdict.report()}


class ArchiveJob(NamedTuple):
    """A segment of an archive to verify in another process."""

    folder: str
    piece: Piece

    def __call__(self, on_progress: ProgressCallback) -> SegmentResult:
        """Verify the segment."""
        return asyncio.run(_verified(Archive(Path(self.folder)), self.piece, on_progress))


async def _verified(archive: Archive, piece: Piece, on_progress: ProgressCallback) -> SegmentResult:
    number = piece.partition
    start = GENESIS if piece.start.offset < 0 else archive.checkpoint(number, piece.start.offset)
    entries = _chunks(archive, journal.TOPIC, number, start.offset + 1, piece.end)
    published = _chunks(archive, "allocations", number, start.outputs, piece.outputs_end)
    audit = SegmentAudit(number, start, piece.part, until_ns=piece.until_ns, on_progress=on_progress)
    return await audit.verify(entries, published, open_end=piece.open_end)


async def _chunks(archive: Archive, topic: str, partition: int, first: int, end: int) -> Chunks:
    for records in archive.chunks(topic, partition, first, end):
        yield records


def pieces(archive: Archive, wanted: Range = EVERYTHING, portfolio: str | None = None) -> list[Piece]:
    """Return the segments between an archive's checkpoints that cover a range."""
    found = []
    for partition in range(archive.manifest.partitions):
        marks, end = archive.marks(partition), archive.end(journal.TOPIC, partition)
        if marks:
            known = Ends(end, archive.end("allocations", partition), marks=marks)
            found += planned(partition, known, wanted, portfolio)
    return found


def check(
    folder: Path,
    *,
    fold: bool = True,
    head: str | None = None,
    processes: int = 1,
    on_total: ProgressCallback = lambda _: None,
    on_progress: ProgressCallback = lambda _: None,
) -> ArchiveCheck:
    """Check an archive: its files first, then with `fold` every checkpoint by replay.

    `head`: an earlier head hash that the manifest must still contain. `on_total` and `on_progress` get the number of
    entries to fold, and of entries folded since the last call.

    Raises:
        NotFound: the folder is not an archive.
    """
    try:
        archive = Archive(folder)
    except VerificationMismatch as error:
        return ArchiveCheck("", 0, 0, 0, Verdict(), [str(error)])
    manifest = archive.manifest
    findings = [] if head is None or head in manifest.hashes else [f"no line of the manifest has the hash {head}"]
    findings += [
        f"{name} is not in the manifest: its tail is lost, or a run was interrupted" for name in archive.strays()
    ]
    segments = [each for kept in manifest.segments.values() for each in kept]
    for segment in segments:
        findings += _finding(lambda each=segment: _whole(archive, each))  # type: ignore[misc]
    for partition, snapshots in manifest.snapshots.items():
        for each in snapshots:
            findings += _finding(lambda p=partition, o=each.offset: archive.checkpoint(p, o))  # type: ignore[misc]
    verdict = Verdict()
    if fold and not findings:
        parts = pieces(archive)
        on_total(entries_of(parts))
        verdict, findings = _folded(archive, parts, processes, on_progress)
    records = sum(each.last - each.first + 1 for each in segments)
    return ArchiveCheck(
        manifest.head, len(segments), sum(map(len, manifest.snapshots.values())), records, verdict, findings
    )


def _folded(
    archive: Archive, parts: list[Piece], processes: int, on_progress: ProgressCallback
) -> tuple[Verdict, list[str]]:
    """Replay the journal; return the verdict, and the first finding if there is one."""
    jobs = [ArchiveJob(str(archive.folder), piece) for piece in parts]
    try:
        verdict = concluded(parts, side_by_side(jobs, processes, on_progress), {}, archive)
    except VerificationMismatch as error:
        return Verdict(), [str(error)]
    whole = verdict.ok and not verdict.pending
    return verdict, [] if whole else [verdict.first_mismatch or "it does not verify"]


def _whole(archive: Archive, segment: Segment) -> None:
    """Read a segment in full. Raises: VerificationMismatch."""
    records: Sequence[ArchivedRecord] = archive.segment(segment)
    if content(records) != segment.content:
        where = f"{segment.topic} {segment.partition}:{segment.first} to {segment.last}"
        msg = f"{segment.file}, {where}, records differ from those archived"
        raise VerificationMismatch(msg)


def _finding(look: Callable[[], Any]) -> list[str]:
    try:
        look()
    except VerificationMismatch as error:
        return [str(error)]
    return []
