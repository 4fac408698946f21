"""The one mechanism by which a fold lives on a partition: take, publish, checkpoint, acknowledge, recover.

It is written once and serves sizing on `journal` and market on `prices`. What it promises, whatever crashes where:
the state is the fold of the source up to one offset, and every output was published at least once, as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, NoReturn, Protocol

from schemas.errors import ProcessorStopped
from streams.processing import crashpoints
from streams.processing.checkpoint import BEGINNING, Batch, Ledger, Progress, Tables, fingerprint, unpack
from streams.processing.ports import Fold, FoldRecord, Ports, Record, RecordKey, Send
from streams.processing.published_outputs import Known

TEN_SECONDS_NS = 10_000_000_000


class ProcessorObserver(Protocol):
    """Who wants to know what a processor does; called synchronously, so it must be quick."""

    def recovered(self, way: str, offset: int, elapsed_ns: int) -> None:
        """Take that a state stands at an offset again, and by which way: `local`, `changelog`, or `genesis`."""

    def taken(self, records: int, sends: int) -> None:
        """Take that a chunk is folded, and that what it decided and was not published yet now is."""

    def checkpointed(self, offset: int, records: int, elapsed_ns: int) -> None:
        """Take that `progress` stands at an offset, with so many records written for it."""


class CapturedCheckpoint(NamedTuple):
    """A checkpoint as it was taken at an offset, before it is written."""

    began_ns: int
    batch: Batch
    progress: Progress


class Processor:
    """One fold on one partition of its source. Recover it, then hand it the records from the offset it returns.

    `checkpoint_entries` and `checkpoint_interval_ns`: a checkpoint is due after so many entries or so much time of
    `clock` (monotonic, ns), whichever comes first. It is looked at when records come: an idle owner calls
    `checkpoint` itself. `contiguous`: the source's offsets have no gaps (retention and transactions leave some).

    `owns_partition`: whether this owner certainly still holds the partition. While it does not, a due checkpoint waits:
    an owner that was paused for longer than its session would write an older checkpoint over its successor's.

    `background`: starts writing a due checkpoint while the chunks that follow are folded; None: the chunk that makes it
    due waits. There is one at a time, and `wait_idle` returns when it is written.

    A step that fails or is cancelled leaves the memory ahead of what is published: nothing goes on then but `recover`,
    and whoever asks for another step is told what failed.
    """

    background: Callable[[Coroutine[Any, Any, None]], object] | None = None

    def __init__(
        self,
        fold: Fold,
        ports: Ports,
        *,
        partition: int,
        clock: Callable[[], int],
        checkpoint_entries: int = 5_000,
        checkpoint_interval_ns: int = TEN_SECONDS_NS,
        contiguous: bool = True,
        observer: ProcessorObserver | None = None,
        owns_partition: Callable[[], bool] = lambda: True,
    ) -> None:
        self._fold, self._ports, self._partition, self._clock = fold, ports, partition, clock
        self._entries_max, self._interval_ns = checkpoint_entries, checkpoint_interval_ns
        self._contiguous, self._observer, self._owns_partition = contiguous, observer, owns_partition
        self._fold_record: FoldRecord = fold.fold
        """`fold.fold`, or what continues a fold from the source's beginning."""
        self._lock, self._writing = asyncio.Lock(), asyncio.Lock()
        self._whole = False
        self._begin(BEGINNING, Ledger({}, -1), Known(fold, partition, (), -1), 0)

    def _begin(self, progress: Progress, ledger: Ledger, known: Known, outputs_end: int) -> None:
        """Stand at `progress`, with nothing on the way."""
        self._progress, self._ledger, self._known, self._outputs_end = progress, ledger, known, outputs_end
        self._offset, self._entries, self._since_ns = progress.offset, 0, self._clock()
        self._last: Record | None = None
        self._waiting: list[Callable[[], None]] = []
        self._torn = False
        """Whether the writing of a checkpoint was broken off."""
        self._failure: Exception | None = None
        """What broke off a step or a writing: whoever comes next is told the same, and may be the first to tell it."""

    @property
    def offset(self) -> int:
        """The last entry that is folded in; -1: none."""
        return self._offset

    @property
    def checkpointed(self) -> int:
        """The offset of the last acknowledged `progress`; -1: none."""
        return self._progress.offset

    def records(self) -> dict[RecordKey, bytes]:
        """Return what the tables hold of the last acknowledged `progress`."""
        return self._ledger.records()

    @property
    def meets_known(self) -> bool:
        """Whether outputs published above `progress` have still to come out again."""
        return self._known.last_entry >= 0

    def set_checkpoint_policy(self, checkpoint_entries: int, checkpoint_interval_ns: int) -> None:
        """Let checkpoints be due after so many entries or so much time, from the next chunk on."""
        self._entries_max, self._interval_ns = checkpoint_entries, checkpoint_interval_ns

    # -- recovery ----------------------------------------------------------------------------------------------------
    async def recover(self) -> int:
        """Bring back the state at `progress`; return the offset to read from, whatever the group's commit says.

        The local store is tried first, then the changelogs; where another writer has spoiled both, the source is
        folded again from its beginning, and the tables are repaired.

        Raises: ProcessorStopped where the source, or what was published of it, is not what `progress` knew.
        """
        async with self._lock, self._writing:
            self._whole, started_ns = False, self._clock()
            self._fold.touched.clear()
            way, progress, ledger = await self._restore()
            crashpoints.at("restored")
            known, outputs_end = await self._published(progress)
            crashpoints.at("known")
            following = await self._following(progress)
            self._begin(progress, ledger, known, outputs_end)
            self._whole = True
            if self._observer is not None:
                self._observer.recovered(way, progress.offset, self._clock() - started_ns)
            return following

    async def _restore(self) -> tuple[str, Progress, Ledger]:
        """Put the state at `progress` into the fold; return the way by which, `progress`, and the ledger there."""
        for way, read in (("local", self._ports.local), ("changelog", self._ports.changelog)):
            progress = await self._read_progress()
            stored = {key: unpack(frame) for key, frame in (await read()).items()}
            ledger = Ledger.read(stored, progress.offset)
            if ledger.digest == progress.digest:
                self._fold.restore(progress.meta, ledger.records())
                self._fold_record = self._fold.fold
                return way, progress, ledger
        return "genesis", *await self._from_genesis(progress, stored)

    async def _read_progress(self) -> Progress:
        """Return the newest `progress`, having seen that its entry still stands in the source."""
        value = await self._ports.progress()
        if value is None:
            return BEGINNING
        progress = Progress.from_bytes(value)
        await self._check_anchor(progress)
        return progress

    async def _check_anchor(self, progress: Progress) -> None:
        """Read the entry of `progress` again. Raises: ProcessorStopped where it is another, or never was."""
        there = [record async for record in self._ports.source(progress.offset, progress.offset + 1)]
        if there and fingerprint(there[0]) != progress.entry:
            self._stop(f"the entry at {progress.offset} is not the one that was folded: the source lost a tail")
        if not there and progress.offset >= await self._ports.source_first():
            self._stop(f"the entry at {progress.offset}, which was folded, is gone: the source lost a tail")

    async def _from_genesis(self, progress: Progress, stored: Tables) -> tuple[Progress, Ledger]:
        """Fold the source from its beginning up to `progress`, sending nothing; repair the tables.

        What is not audited may know more than its source (the clock): it is taken as it comes out, digest and all.
        """
        fold = self._fold
        fold.touched.clear()
        self._fold_record = fold.refold()
        self._begin(BEGINNING, Ledger({}, -1), Known(fold, self._partition, (), -1), 0)
        async for record in self._ports.source(0, progress.offset + 1):
            self._fold_all([record])
        ledger = Ledger.of(fold.touched, fold.encode, progress.offset)
        if ledger.digest != progress.digest and fold.audited is not None:
            self._stop(
                f"the tables are wrong, and the fold up to {progress.offset} has digest {ledger.digest:064x}, "
                f"expected {progress.digest:064x}"
            )
        fold.touched.clear()
        changes = ledger.repair(stored)
        if changes:
            await self._ports.write(changes)
        ledger.mark_stale({key: versions for key, versions in stored.items() if key not in changes})
        if ledger.digest != progress.digest:
            progress = progress._replace(digest=ledger.digest)
            await self._ports.write_progress(progress.to_bytes())
        return progress, ledger

    async def _published(self, progress: Progress) -> tuple[Known, int]:
        """Return what is known of the audited outputs from `progress` on, and the place after the last of them.

        Raises: ProcessorStopped where one is of an entry past the source's end.
        """
        topic = self._fold.audited
        outputs = [] if topic is None else await self._ports.outputs(topic, progress.outputs)
        known = Known(self._fold, self._partition, outputs, progress.offset)
        if known.last_entry >= 0 and known.last_entry >= (end := await self._ports.source_end()):
            self._stop(f"{topic} holds an output of entry {known.last_entry}, past the source's end {end}")
        return known, outputs[-1][0] + 1 if outputs else progress.outputs

    async def _following(self, progress: Progress) -> int:
        """Return the offset after `progress`, or the source's first where that is above and may be."""
        first, following = await self._ports.source_first(), progress.offset + 1
        if first > following and self._contiguous:
            self._stop(f"the source begins at {first}, expected {following}")
        return max(first, following)

    # -- the loop ----------------------------------------------------------------------------------------------------
    async def take(self, records: Sequence[Record], acknowledge: Callable[[], None]) -> None:
        """Fold a chunk and publish what it decides; make a checkpoint if one is due.

        `acknowledge` is called once, after the checkpoint that holds the chunk. Records at or below `offset` are
        skipped.

        Raises: ProcessorStopped at a jump of the source's offsets, or where what comes out is not what was published.
        """
        async with self._step():
            sends = self._fold_all(records)
            crashpoints.at("folded")
            await self._publish(sends, len(records))
            crashpoints.at("published")
            self._waiting.append(acknowledge)
            if self._is_due():
                await self._checkpoint(self.background)

    async def act(self, effect: Callable[[], list[Send]]) -> None:
        """Let the fold do what no record asks for (time has passed), and publish what it decides.

        Chunks that no record follows are checkpointed here once that is due: left waiting, they look stuck. The next
        checkpoint that follows a record holds the effect; until then a crash may do it again.
        """
        async with self._step():
            await self._publish(effect(), 0)
            if self._waiting and self._is_due():
                await self._checkpoint(self.background)

    def _is_due(self) -> bool:
        """Return whether there must be a checkpoint, and may be one."""
        due = self._entries >= self._entries_max or self._clock() - self._since_ns >= self._interval_ns
        return due and self._owns_partition()

    def _fold_all(self, records: Sequence[Record]) -> list[Send]:
        """Fold each record that is new; return what is to be published, in order."""
        fold, offset, contiguous = self._fold_record, self._offset, self._contiguous
        known = self._known or None
        sends: list[Send] = []
        for record in records:
            found = record.offset
            if found <= offset:
                continue
            if found != offset + 1 and contiguous:
                self._stop(f"expected offset {offset + 1}, found {found}")
            offset = found
            self._entries += 1
            self._last = record
            decided = fold(record)
            if known is not None:
                decided = known.missing(offset, decided)
            if decided:
                sends += decided
        self._offset = offset
        return sends

    async def _publish(self, sends: list[Send], records: int) -> None:
        """Publish, and remember the place after the last audited output."""
        if sends:
            offsets = await self._ports.send(sends)
            for send, offset in zip(reversed(sends), reversed(offsets), strict=True):
                if send.topic == self._fold.audited:
                    self._outputs_end = max(self._outputs_end, offset + 1)
                    break
        if self._observer is not None:
            self._observer.taken(records, len(sends))

    async def checkpoint(self) -> None:
        """Write all that was touched, then `progress`; then acknowledge the chunks. Nothing to write: acknowledge."""
        async with self._step():
            await self._checkpoint()

    async def wait_idle(self) -> None:
        """Return when no checkpoint is being written."""
        async with self._writing:
            pass

    async def _checkpoint(self, beside: Callable[[Coroutine[Any, Any, None]], object] | None = None) -> None:
        """Take a checkpoint once the one before is written, and write it: here, or beside what follows."""
        await self._writing.acquire()
        writing = self._write(self._take(), self._waiting)
        self._entries, self._since_ns, self._waiting = 0, self._clock(), []
        if beside is None:
            await writing
        else:
            beside(writing)

    def _take(self) -> CapturedCheckpoint | None:
        """Take what the tables are to hold, encoded; None: nothing came. What is touched from now on is the next's."""
        if self._last is None:
            return None
        began_ns, fold = self._clock(), self._fold
        batch = self._ledger.batch(fold.touched, fold.encode, self._offset)
        place = self._known.first_due
        outputs = self._outputs_end if place is None else place
        progress = Progress(self._offset, batch.digest, fingerprint(self._last), outputs, fold.meta())
        fold.touched.clear()
        self._last = None
        return CapturedCheckpoint(began_ns, batch, progress)

    async def _write(self, taken: CapturedCheckpoint | None, waiting: list[Callable[[], None]]) -> None:
        """Write a checkpoint, then acknowledge the chunks that it holds. `_writing` is held, and let go of here."""
        whole = False
        try:
            if taken is not None:
                crashpoints.at("taken")
                if taken.batch.changes:
                    await self._ports.write(taken.batch.changes)
                crashpoints.at("written")
                await self._ports.write_progress(taken.progress.to_bytes())
                crashpoints.at("progressed")
                self._ledger.settle(taken.batch)
                self._progress = taken.progress
                if self._observer is not None:
                    elapsed_ns = self._clock() - taken.began_ns
                    self._observer.checkpointed(taken.progress.offset, len(taken.batch.changes), elapsed_ns)
            for acknowledge in waiting:
                acknowledge()
            crashpoints.at("acknowledged")
            whole = True
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._torn = not whole
            self._writing.release()

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        """One step at a time, and none after one that was broken off."""
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self._whole or self._torn:
                self._stop("not recovered, or an earlier step was broken off")
            self._whole = False
            try:
                yield
            except Exception as error:
                self._failure = error
                raise
            self._whole = True

    def _stop(self, reason: str) -> NoReturn:
        msg = f"partition {self._partition}: {reason}"
        raise ProcessorStopped(msg)
