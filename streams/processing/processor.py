"""Runs a fold on one partition: recover, fold, publish, checkpoint, acknowledge.

Sizing on `journal` and market on `prices` both run on it. It guarantees, wherever a process crashes: the state is the
fold of the source up to one offset, and every output was published at least once, always with the same bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, NamedTuple, NoReturn

from schemas.errors import ProcessorStopped
from streams.processing import crashpoints
from streams.processing.checkpoint import BEGINNING, Batch, Ledger, Progress, Tables, fingerprint, unpack
from streams.processing.life import TRANSITIONS, Event, Phase
from streams.processing.observer import ProcessorObserver
from streams.processing.ports import Fold, FoldRecord, Ports, Record, RecordKey, Send
from streams.processing.published_outputs import PublishedOutputs

TEN_SECONDS_NS = 10_000_000_000
PART_SENDS_MAX = 2_000
PART_NS_MAX = 100_000_000
"""Outputs, or time, after which a chunk is published before it is folded on: pages and other partitions wait for it."""


class CapturedCheckpoint(NamedTuple):
    """A checkpoint as encoded at an offset, before it is written."""

    began_ns: int
    batch: Batch
    progress: Progress


class Processor:
    """One fold on one partition of its source. Recover it, then pass it the records from the offset it returns.

    `checkpoint_entries` and `checkpoint_interval_ns`: a checkpoint is due after so many entries or so much time of
    `clock` (monotonic, ns), whichever comes first. This is checked when records arrive; an idle owner calls
    `checkpoint` itself. `contiguous`: the source's offsets have no gaps (retention and transactions leave some).

    `owns_partition`: whether this owner certainly still holds the partition. While it does not, a due checkpoint waits:
    an owner that was paused for longer than its session would overwrite its successor's checkpoint with an older one.

    `background`: starts the write of a due checkpoint while the next chunks are folded; None: the chunk that makes the
    checkpoint due waits for it. At most one is written at a time, and `wait_idle` returns when it is written.

    A step that fails or is cancelled leaves memory ahead of what is published. After that only `recover` is possible;
    every other step raises the failure.
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
        self._phase = Phase.UNRECOVERED
        self._begin(BEGINNING, Ledger({}, -1), PublishedOutputs(fold, partition, (), -1), 0)

    def _begin(self, progress: Progress, ledger: Ledger, published: PublishedOutputs, outputs_end: int) -> None:
        """Start at `progress`, with nothing in progress."""
        self._progress, self._ledger, self._published, self._outputs_end = progress, ledger, published, outputs_end
        self._offset, self._entries, self._since_ns = progress.offset, 0, self._clock()
        self._last: Record | None = None
        self._waiting: list[Callable[[], None]] = []
        self._leaving = False
        self._failure: Exception | None = None
        """What a step or a write raised. Later steps raise it too: for a background write, they may be the first."""

    @property
    def offset(self) -> int:
        """Offset of the last entry folded; -1: none."""
        return self._offset

    @property
    def checkpointed(self) -> int:
        """Offset of the last acknowledged `progress`; -1: none."""
        return self._progress.offset

    def records(self) -> dict[RecordKey, bytes]:
        """Return the records of the last acknowledged checkpoint."""
        return self._ledger.records()

    @property
    def checkpoint_age_ns(self) -> int:
        """Time since the last checkpoint was captured, on the processor's clock."""
        return self._clock() - self._since_ns

    @property
    def meets_known(self) -> bool:
        """Whether the fold has yet to reproduce outputs that were published above `progress`."""
        return self._published.last_entry >= 0

    def set_checkpoint_policy(self, checkpoint_entries: int, checkpoint_interval_ns: int) -> None:
        """Set when checkpoints are due, from the next chunk on: after so many entries or so much time."""
        self._entries_max, self._interval_ns = checkpoint_entries, checkpoint_interval_ns

    # -- recovery ----------------------------------------------------------------------------------------------------
    async def recover(self) -> int:
        """Restore the state at `progress`; return the offset to read from, which overrides the group's committed one.

        The local store is tried first, then the changelogs. If another writer has corrupted both, the source is folded
        from its beginning and the tables are repaired.

        Raises:
            ProcessorStopped: the source, or what was published of it, does not match `progress`.
        """
        async with self._lock, self._writing:
            self._move(Event.RECOVER)
            started_ns = self._clock()
            self._fold.touched.clear()
            source, progress, ledger = await self._restore()
            crashpoints.at("restored")
            published, outputs_end = await self._read_published(progress)
            crashpoints.at("known")
            following = await self._following(progress)
            self._begin(progress, ledger, published, outputs_end)
            self._move(Event.RECOVERED)
            if self._observer is not None:
                self._observer.recovered(source, progress.offset, self._clock() - started_ns)
            return following

    async def _restore(self) -> tuple[str, Progress, Ledger]:
        """Restore the fold to the state at `progress`; return the source used, `progress`, and the ledger there."""
        for source, read in (("local", self._ports.local), ("changelog", self._ports.changelog)):
            progress = await self._read_progress()
            stored = {key: unpack(frame) for key, frame in (await read()).items()}
            ledger = Ledger.read(stored, progress.offset)
            if ledger.digest == progress.digest:
                self._fold.restore(progress.meta, ledger.records())
                self._fold_record = self._fold.fold
                return source, progress, ledger
        return "genesis", *await self._from_genesis(progress, stored)

    async def _read_progress(self) -> Progress:
        """Return the newest `progress`, after checking that the source still holds its entry."""
        value = await self._ports.progress()
        if value is None:
            return BEGINNING
        progress = Progress.from_bytes(value)
        await self._check_anchor(progress)
        return progress

    async def _check_anchor(self, progress: Progress) -> None:
        """Check the entry of `progress` in the source. Raises: ProcessorStopped if it changed or is missing."""
        found = [record async for record in self._ports.source(progress.offset, progress.offset + 1)]
        if found and fingerprint(found[0]) != progress.entry:
            self._stop(
                f"the entry at {progress.offset} is not the one that was folded: the source lost its last records"
            )
        if not found and progress.offset >= await self._ports.source_first():
            self._stop(f"the entry at {progress.offset}, which was folded, is gone: the source lost its last records")

    async def _from_genesis(self, progress: Progress, stored: Tables) -> tuple[Progress, Ledger]:
        """Fold the source from its beginning up to `progress`, publishing nothing; repair the tables.

        A fold without an audited output may depend on more than its source (the clock): its result is accepted, and
        its digest written to `progress`.
        """
        fold = self._fold
        fold.touched.clear()
        self._fold_record = fold.refold()
        self._begin(BEGINNING, Ledger({}, -1), PublishedOutputs(fold, self._partition, (), -1), 0)
        async for record in self._ports.source(0, progress.offset + 1):
            self._fold_from([record], 0)
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

    async def _read_published(self, progress: Progress) -> tuple[PublishedOutputs, int]:
        """Return the audited outputs published from `progress` on, and the offset after the last of them.

        Raises:
            ProcessorStopped: one belongs to an entry past the source's end.
        """
        topic = self._fold.audited
        outputs = [] if topic is None else await self._ports.outputs(topic, progress.outputs)
        published = PublishedOutputs(self._fold, self._partition, outputs, progress.offset)
        last = published.last_entry
        if last >= 0 and last >= (end := await self._ports.source_end()):
            self._stop(f"{topic} holds an output of entry {last}, past the source's end {end}")
        return published, outputs[-1][0] + 1 if outputs else progress.outputs

    async def _following(self, progress: Progress) -> int:
        """Return the offset after `progress`, or the source's first one if retention moved it and gaps are allowed."""
        first, following = await self._ports.source_first(), progress.offset + 1
        if first > following and self._contiguous:
            self._stop(f"the source begins at {first}, expected {following}")
        return max(first, following)

    # -- the loop ----------------------------------------------------------------------------------------------------
    async def take(self, records: Sequence[Record], acknowledge: Callable[[], None]) -> None:
        """Fold a chunk and publish what it decides; write a checkpoint if one is due.

        `acknowledge` is called once, after the checkpoint that covers the chunk. Records up to `offset` are skipped.

        Raises:
            ProcessorStopped: the source's offsets have a gap, or an output differs from the one published before.
        """
        async with self._step():
            done = await self._take_part(records, 0)
            while done < len(records):
                if self._leaving:
                    return  # the next owner continues after the part
                if self._is_due():
                    await self._checkpoint(self.background)
                done = await self._take_part(records, done)
            self._waiting.append(acknowledge)
            if self._is_due():
                await self._checkpoint(self.background)

    def leave_off(self) -> None:
        """Let `take` return after the part in progress, unacknowledged: a stop does not wait for a long chunk."""
        self._leaving = True

    async def _take_part(self, records: Sequence[Record], first: int) -> int:
        """Fold a part of a chunk from its `first` record on, and publish; return the index where it ends."""
        sends, end = self._fold_from(records, first)
        if end < len(records) and not sends:
            await asyncio.sleep(0)  # publishing lets the loop turn, but there is nothing to publish
        crashpoints.at("folded")
        await self._publish(sends, end - first)
        crashpoints.at("published")
        return end

    async def act(self, effect: Callable[[], list[Send]]) -> None:
        """Run an effect that no record triggers (time has passed), and publish what it returns.

        If no further records arrive, a due checkpoint of the last chunks is written here; unacknowledged, they would
        look stuck. The effect itself is covered by the first checkpoint after the next record; a crash before that may
        repeat it.
        """
        async with self._step():
            await self._publish(effect(), 0)
            if self._waiting and self._is_due():
                await self._checkpoint(self.background)

    def _is_due(self) -> bool:
        """Return whether a checkpoint is due and this owner may write it."""
        due = self._entries >= self._entries_max or self._clock() - self._since_ns >= self._interval_ns
        return due and self._owns_partition()

    def _fold_from(self, records: Sequence[Record], first: int) -> tuple[list[Send], int]:
        """Fold new records from `first` on, as many as make a part; return what to publish, and where it ends."""
        until_ns = self._clock() + PART_NS_MAX
        fold, offset, contiguous = self._fold_record, self._offset, self._contiguous
        published = self._published or None
        sends: list[Send] = []
        end = first
        for record in islice(records, first, None):
            end += 1
            found = record.offset
            if found <= offset:
                continue
            if found != offset + 1 and contiguous:
                self._stop(f"expected offset {offset + 1}, found {found}")
            offset = found
            self._entries += 1
            self._last = record
            decided = fold(record)
            if published is not None:
                decided = published.missing(offset, decided)
            if decided:
                sends += decided
                if len(sends) >= PART_SENDS_MAX:
                    break
            if self._clock() >= until_ns:
                break
        self._offset = offset
        return sends, end

    async def _publish(self, sends: list[Send], records: int) -> None:
        """Publish, and record the offset after the last audited output."""
        if sends:
            offsets = await self._ports.send(sends)
            for send, offset in zip(reversed(sends), reversed(offsets), strict=True):
                if send.topic == self._fold.audited:
                    self._outputs_end = max(self._outputs_end, offset + 1)
                    break
        if self._observer is not None:
            self._observer.taken(records, len(sends))

    async def checkpoint(self) -> None:
        """Write every touched record, then `progress`, then acknowledge the chunks; only acknowledge if none is new."""
        async with self._step():
            await self._checkpoint()

    async def wait_idle(self) -> None:
        """Return once no checkpoint is being written."""
        async with self._writing:
            pass

    async def _checkpoint(self, background: Callable[[Coroutine[Any, Any, None]], object] | None = None) -> None:
        """Capture a checkpoint once the previous one is written, and write it: here, or in the background."""
        await self._writing.acquire()
        writing = self._write(self._capture(), self._waiting)
        self._entries, self._since_ns, self._waiting = 0, self._clock(), []
        if background is None:
            await writing
        else:
            background(writing)

    def _capture(self) -> CapturedCheckpoint | None:
        """Encode every touched record and `progress`; None if no record came. Later touches go to the next one."""
        if self._last is None:
            return None
        began_ns, fold = self._clock(), self._fold
        batch = self._ledger.batch(fold.touched, fold.encode, self._offset)
        due = self._published.first_due
        outputs = self._outputs_end if due is None else due
        progress = Progress(self._offset, batch.digest, fingerprint(self._last), outputs, fold.meta())
        fold.touched.clear()
        self._last = None
        return CapturedCheckpoint(began_ns, batch, progress)

    async def _write(self, captured: CapturedCheckpoint | None, waiting: list[Callable[[], None]]) -> None:
        """Write a checkpoint, then acknowledge the chunks it covers. The caller holds `_writing`; released here."""
        try:
            with self._breaking():
                if captured is not None:
                    await self._write_captured(captured)
                for acknowledge in waiting:
                    acknowledge()
                crashpoints.at("acknowledged")
        finally:
            self._writing.release()

    async def _write_captured(self, captured: CapturedCheckpoint) -> None:
        crashpoints.at("taken")
        if captured.batch.changes:
            await self._ports.write(captured.batch.changes)
        crashpoints.at("written")
        await self._ports.write_progress(captured.progress.to_bytes())
        crashpoints.at("progressed")
        self._ledger.settle(captured.batch)
        self._progress = captured.progress
        if self._observer is not None:
            elapsed_ns = self._clock() - captured.began_ns
            self._observer.checkpointed(captured.progress.offset, len(captured.batch.changes), elapsed_ns)

    # -- phases ------------------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        """Run one step at a time, and none after one that broke."""
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            self._move(Event.BEGIN)
            with self._breaking():
                yield
            self._move(Event.END)

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """Break the processor if the body fails or is cancelled; keep the exception, unless it is a cancellation."""
        try:
            yield
        except BaseException as error:
            self._move(Event.BREAK)
            if isinstance(error, Exception):
                self._failure = error
            raise

    def _move(self, event: Event) -> None:
        after = TRANSITIONS.get((self._phase, event))
        if after is None:
            self._stop("not recovered, or an earlier step failed")
        self._phase = after

    def _stop(self, reason: str) -> NoReturn:
        msg = f"partition {self._partition}: {reason}"
        raise ProcessorStopped(msg)
