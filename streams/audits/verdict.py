"""The verdict on all pieces of an audit: combined per partition, and compared with stored checkpoints."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from engines.allocation import DECISION_VERSION
from streams.audits.comparison import Verdict
from streams.audits.plan import Mark, Piece, by_partition
from streams.audits.refold import Checkpoint, Summary
from streams.audits.segment import SegmentResult, combine
from streams.processing.checkpoint import Progress
from streams.processing.ports import Record


class ArchivedPartition(Protocol):
    """An archive's records and checkpoints of a partition."""

    def marks(self, partition: int) -> Sequence[Mark]:
        """Return its checkpoints, oldest first."""

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after its last record of a topic; 0: none."""

    def checkpoint(self, partition: int, offset: int) -> Checkpoint:
        """Return a checkpoint. Raises: VerificationMismatch if its file was changed."""

    def chunks(self, topic: str, partition: int, first: int, end: int) -> Iterable[Sequence[Record]]:
        """Yield its records from `first` to before `end`. Raises: VerificationMismatch if a file was changed."""


def concluded(
    pieces: Sequence[Piece],
    found: Sequence[SegmentResult],
    progress: Mapping[int, Progress],
    kept: ArchivedPartition | None,
) -> Verdict:
    """Return the verdict on all pieces, combined per partition and compared with its checkpoints."""
    total = Verdict()
    for partition, places in by_partition(pieces).items():
        own = [(pieces[place], found[place]) for place in places]
        known = progress.get(partition)
        acknowledged = -1 if known is None else known.offset
        total += _tail(partition, own, known)
        total += combine(partition, [each for _, each in own], acknowledged)
        total += _checkpoints(partition, own, known, kept)
    return total


def _tail(partition: int, own: Sequence[tuple[Piece, SegmentResult]], known: Progress | None) -> Verdict:
    """Check that the journal still contains every entry the workers have folded."""
    end = own[-1][0].end
    if known is None or not own[-1][0].open_end or known.offset < end:
        return Verdict()
    text = f"journal {partition} ends at {end}, but entry {known.offset} was folded: its tail is lost"
    return Verdict(checkpoints_broken=1, first_mismatch=text)


def _checkpoints(
    partition: int, own: Sequence[tuple[Piece, SegmentResult]], known: Progress | None, kept: ArchivedPartition | None
) -> Verdict:
    """Compare replayed states with the workers' checkpoint, and with the archive's checkpoints between segments."""
    if any(found.broken for _, found in own) or own[0][0].part.portfolio is not None:
        return Verdict()
    verdict = Verdict()
    if known is not None and known.meta and known.meta["decision_version"] != DECISION_VERSION:
        known = None  # of another decision version; only that version can verify it
    probed = [found.probed for piece, found in own if piece.probe >= 0]
    if known is not None and probed and None not in probed:
        verdict += _agrees(f"progress of journal {partition} at entry {known.offset}", probed, known)
    starts = {piece.start.offset: piece.start for piece, _ in own}
    for offset in sorted(starts)[1:]:
        before = [found.summary for piece, found in own if piece.start.offset < offset == piece.end - 1]
        if kept is not None:
            verdict += _agrees(
                f"checkpoint of journal {partition} at entry {offset}", before, kept.checkpoint(partition, offset)
            )
    return verdict


def _agrees(name: str, shares: Sequence[Summary | None], known: Progress | Checkpoint) -> Verdict:
    """Compare a checkpoint with the combined shares of a fold."""
    summaries = [each for each in shares if each is not None]
    digest = sum(each.digest for each in summaries) % (1 << 256)
    if not summaries or digest != known.digest:
        return Verdict(checkpoints_broken=1, first_mismatch=f"{name}: digest differs from the replayed state")
    if summaries[0].entry != known.entry:
        return Verdict(checkpoints_broken=1, first_mismatch=f"{name}: journal entry differs from the one folded")
    if _plain(summaries[0].meta) != _plain(known.meta):
        return Verdict(checkpoints_broken=1, first_mismatch=f"{name}: metadata differs from the replayed state")
    return Verdict()


def _plain(meta: Any) -> bytes:
    return orjson.dumps(meta, option=orjson.OPT_SORT_KEYS)
