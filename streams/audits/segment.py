"""Verifies one segment of a journal partition: folds it from a checkpoint, and compares as it goes."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import process_time
from typing import Final, NamedTuple

import orjson

from schemas.errors import AnotherVersion, VerificationMismatch
from streams.audits.comparison import DIGEST_BYTES, Decided, Foreign, PartitionAudit, Verdict
from streams.audits.refold import GENESIS, Checkpoint, Refold, Summary
from streams.audits.shards import ALL, Part
from streams.processing.ports import Record
from streams.stages.sizing import FoldObserver

Chunks = AsyncIterator[Sequence[Record]]
"""Records of a partition in order, in batches."""

CHUNK: Final = 500
"""Entries folded between two comparisons."""


class SegmentResult(NamedTuple):
    """The result of one segment; `combine` merges those of a partition."""

    verdict: Verdict
    missing: list[tuple[bytes, Decided]]
    """Decided in this segment and not matched in it."""
    foreign: list[Foreign]
    """Published in this segment and decided in another."""
    digests: dict[bytes, tuple[int, bytes]]
    last_offset: int
    """Journal offset of the newest matched decision; -1: none."""
    summary: Summary
    """State at the end of the fold."""
    probed: Summary | None
    """State at the probed entry."""
    broken: bool
    """Whether the fold stopped early at a finding."""
    finding_at: int
    """Journal offset of the first finding."""
    cpu_s: float
    """Processor time without the first `CHUNK` entries, which include loading code."""


class SegmentAudit:
    """Folds the journal and compares it with the published allocations in step.

    `probe`: an entry at which to record the state. `until_ns`: stop before the first entry at or after this journal
    time. `on_progress`: called with the number of entries folded since the last call.
    """

    def __init__(
        self,
        partition: int,
        start: Checkpoint = GENESIS,
        part: Part = ALL,
        *,
        probe: int = -1,
        until_ns: int | None = None,
        observe: FoldObserver | None = None,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.refold = Refold(partition, start, part, observe)
        self.comparison = PartitionAudit(partition, start.offset)
        self.probe, self.until_ns, self.on_progress = probe, until_ns, on_progress
        self.probed: Summary | None = None
        self.entries = 0
        self.others: tuple[str, ...] = ()
        """Segments before and after that belong to other decision versions."""
        self._began_s = 0.0
        self._last: Record | None = None
        self._ended = False
        self._ready: Iterator[Record] = iter(())
        """Records of `allocations` read and not yet compared."""

    async def verify(self, entries: Chunks, published: Chunks, *, open_end: bool = True) -> SegmentResult:
        """Fold `entries`, starting after the checkpoint; compare with `published`, starting at its `outputs`.

        `open_end`: both are read to their ends, so any further published record is a finding. Otherwise the entries
        end at a requested position, and records of later decisions are ignored.
        """
        finding = ""
        try:
            async for records in entries:
                for first in range(0, len(records), CHUNK):
                    self._fold(records[first : first + CHUNK])
                    await self._catch_up(published)
                    self._began_s = self._began_s or process_time()
                if self._ended:
                    break
        except AnotherVersion as error:
            self.others += (str(error),)
            self._ended = True
        except VerificationMismatch as error:
            finding = str(error)
        await self._catch_up(published)
        if open_end and not finding and not self._ended:
            while (record := await self._next(published)) is not None:
                self.comparison.take(record.offset, record.key, record.value or b"")
            self.comparison.finish()
        else:
            self.comparison.finish(self.refold.offset + 1)
        return self._found(finding)

    def _fold(self, records: Sequence[Record]) -> None:
        refold, decide, mine = self.refold, self.comparison.decide, self.refold.mine
        books = refold.state.books
        folded = 0
        try:
            for record in records:
                if self.until_ns is not None and self._is_past(record):
                    self._ended = True
                    break
                for each in refold.fold(record).allocations:
                    name = each.decision.portfolio_id
                    key = name.encode()
                    if mine(key):
                        decide(key, each.sequence, each.value, books[name,].last_hash, record.offset)
                self._last = record
                folded += 1
                if record.offset == self.probe:
                    self.probed = refold.summary(record)
        finally:
            self.entries += folded
            self.on_progress(folded)

    def _is_past(self, record: Record) -> bool:
        """Return whether an entry is at or after the requested end."""
        return self.until_ns is not None and bool(
            orjson.loads(record.value or b"{}")["journaled_at_ns"] >= self.until_ns
        )

    async def _catch_up(self, published: Chunks) -> None:
        """Compare published records until all decisions are matched, or one appears that is not decided yet."""
        comparison = self.comparison
        while comparison.waiting:
            record = await self._next(published)
            if record is None or not comparison.take(record.offset, record.key, record.value or b""):
                return

    async def _next(self, published: Chunks) -> Record | None:
        """Return the next record of `allocations` in this part, None at the end."""
        mine = self.refold.mine
        while True:
            for record in self._ready:
                if mine(record.key):
                    return record
            records = await anext(published, None)
            if records is None:
                return None
            self._ready = iter(records)

    def _found(self, finding: str) -> SegmentResult:
        met = self.comparison
        verdict = Verdict(
            met.checked,
            met.mismatched,
            met.chain_broken,
            met.repeats,
            first_mismatch=met.finding or finding or None,
            journal_broken=int(bool(finding)),
            entries=self.entries if self.refold.part.number == 0 else 0,
            others=self.others,
        )
        return SegmentResult(
            verdict,
            met.missing(),
            met.foreign,
            met.digests(),
            met.last_offset,
            self.refold.summary(self._last),
            self.probed,
            bool(finding),
            self.refold.offset + 1 if finding and not met.finding else met.finding_at,
            process_time() - self._began_s if self._began_s else 0.0,
        )


def combine(partition: int, segments: Sequence[SegmentResult], acknowledged: int = -1) -> Verdict:
    """Return the verdict on a partition from the results of its segments, in order.

    Allocations decided in one segment and published in another are matched here. An unmatched decision is missing, or
    pending if nothing decided later is published. `acknowledged`: entry up to which the workers report to have
    published.
    """
    ordered = sorted(segments, key=lambda found: found.finding_at if found.verdict.first_mismatch else 0)
    verdict = sum((found.verdict for found in ordered), Verdict())
    missing = {(name, each.sequence): each for found in segments for name, each in found.missing}
    last_offset = max((found.last_offset for found in segments), default=-1)
    last_offset = max(last_offset, acknowledged)
    for each in (foreign for found in segments for foreign in found.foreign):
        decided = missing.pop((each.portfolio, each.sequence), None)
        digest = _digest(segments, each.portfolio, each.sequence)
        named = f"allocations {partition}:{each.place}: {each.portfolio.decode()} sequence {each.sequence}"
        if digest is None:
            verdict += Verdict(unchecked=1)
        elif digest != each.digest:
            verdict += Verdict(chain_broken=1, first_mismatch=f"{named} was published with other bytes")
        else:
            verdict += Verdict(checked=1) if decided else Verdict(repeats=1)
    for (name, sequence), lost in sorted(missing.items(), key=lambda item: (item[1].offset, item[0])):
        if lost.offset > last_offset and not segments[-1].broken:
            verdict += Verdict(pending=1)
        else:
            text = f"{name.decode()} sequence {sequence}, journal {partition}:{lost.offset}: is missing"
            verdict += Verdict(checked=1, mismatched=1, first_mismatch=text)
    return verdict


def _digest(segments: Sequence[SegmentResult], portfolio: bytes, sequence: int) -> bytes | None:
    for found in segments:
        first, digests = found.digests.get(portfolio, (0, b""))
        place = DIGEST_BYTES * (sequence - first)
        if first and 0 <= place < len(digests):
            return digests[place : place + DIGEST_BYTES]
    return None
