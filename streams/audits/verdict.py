"""The verdict on many stretches: put together, and met with the checkpoints that are kept of the partition."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from engines.allocation import DECISION_VERSION
from streams.audits.comparison import Verdict
from streams.audits.plan import Mark, Piece, by_partition
from streams.audits.refold import Checkpoint, Summary
from streams.audits.segment import SegmentResult, together
from streams.processing.checkpoint import Progress
from streams.processing.ports import Record


class ArchivedPartition(Protocol):
    """An archive: what it holds of a journal partition and of what was published, and its checkpoints."""

    def marks(self, partition: int) -> Sequence[Mark]:
        """Return its checkpoints, oldest first."""

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after the last record that it holds of a topic, 0: none."""

    def checkpoint(self, partition: int, offset: int) -> Checkpoint:
        """Return a checkpoint. Raises: VerificationMismatch where it is not the one that was archived."""

    def chunks(self, topic: str, partition: int, first: int, end: int) -> Iterable[Sequence[Record]]:
        """Yield its records from `first` to before `end`. Raises: VerificationMismatch where a file was changed."""


def concluded(
    pieces: Sequence[Piece],
    found: Sequence[SegmentResult],
    progress: Mapping[int, Progress],
    kept: ArchivedPartition | None,
) -> Verdict:
    """Return the verdict on all pieces: those of a partition are put together, and met with its checkpoints."""
    total = Verdict()
    for partition, places in by_partition(pieces).items():
        own = [(pieces[place], found[place]) for place in places]
        known = progress.get(partition)
        acknowledged = -1 if known is None else known.offset
        total += _tail(partition, own, known)
        total += together(partition, [each for _, each in own], acknowledged)
        total += _checkpoints(partition, own, known, kept)
    return total


def _tail(partition: int, own: Sequence[tuple[Piece, SegmentResult]], known: Progress | None) -> Verdict:
    """See that the journal still holds all that the workers have folded."""
    end = own[-1][0].end
    if known is None or not own[-1][0].open_end or known.offset < end:
        return Verdict()
    text = f"journal {partition} ends at {end}, and entry {known.offset} was folded: it lost its tail"
    return Verdict(checkpoints_broken=1, first_mismatch=text)


def _checkpoints(
    partition: int, own: Sequence[tuple[Piece, SegmentResult]], known: Progress | None, kept: ArchivedPartition | None
) -> Verdict:
    """Compare where folds stood with what is kept of it: by the workers, and by the archive for the next stretch."""
    if any(found.broken for _, found in own) or own[0][0].part.portfolio is not None:
        return Verdict()
    verdict = Verdict()
    if known is not None and known.meta and known.meta["decision_version"] != DECISION_VERSION:
        known = None  # another version's: it alone can say whether it is right
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
    """Compare a checkpoint with what the shares of a fold came to."""
    summaries = [each for each in shares if each is not None]
    digest = sum(each.digest for each in summaries) % (1 << 256)
    if not summaries or digest != known.digest:
        return Verdict(checkpoints_broken=1, first_mismatch=f"{name}: its digest is not what the journal leads to")
    if summaries[0].entry != known.entry:
        return Verdict(checkpoints_broken=1, first_mismatch=f"{name}: the entry is not the one that was folded")
    if _plain(summaries[0].meta) != _plain(known.meta):
        return Verdict(checkpoints_broken=1, first_mismatch=f"{name}: what it says of the partition is not so")
    return Verdict()


def _plain(meta: Any) -> bytes:
    return orjson.dumps(meta, option=orjson.OPT_SORT_KEYS)
