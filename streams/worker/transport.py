# mypy: disallow-subclassing-any=False
# ruff: noqa: SLF001 - Faust and aiokafka keep what has to be changed here to themselves
"""A Faust transport that hands each fetched chunk of one partition to its stream as ONE event.

Of the topics in `batched`, `event.value` is the list of the chunk's records and `event.message.offset` the last
offset in it; every other topic, changelogs included, comes record by record. Stock Faust spends four asyncio tasks
on every message; this one spends them on every chunk.

A batched topic may have an `Owner`: on every assignment its `assigned` brings the partition's state back and says
where reading starts, whatever the group's commit says, and nothing of the partition is delivered before.

What is overridden, and why, is in `design/faust.md`; each override names its reason here in a word.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from faust.transport.consumer import ensure_TP
from faust.transport.drivers.aiokafka import Consumer, Producer, Transport
from faust.types import TP

from schemas.errors import ProcessorStopped
from streams.kafka.connection import Connection
from streams.worker.consumer_thread import BatchConsumerThread
from streams.worker.faust_ports import open_stores

logger = logging.getLogger(__name__)

CLOSED_GATE_WAIT_S = 0.02
CHUNK_RECORDS = 5_000
YIELD_EVERY = 100
"""Single records delivered between two turns of the event loop."""


class Owner(Protocol):
    """Who keeps state for the partitions of one topic."""

    async def assigned(self, partition: int) -> int:
        """Bring back the partition's state; return the offset to read from."""

    async def revoked(self, partition: int) -> None:
        """Let go of the partition's state; return when nothing works on it any more."""


class BatchConsumer(Consumer):
    """Delivers chunks, and keeps the gate of each partition shut until its reading place is known."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what Faust gives."""
        self._inflight: dict[TP, deque[Any]] = defaultdict(deque)
        """Messages in delivery order that are not committed yet."""
        self._expected: dict[TP, int] = {}
        """Next offset that may be delivered; a partition that is not in here has its gate shut."""
        self._sought: Any = None
        """Generation whose `perform_seek` is done."""
        self._generation: Any = None
        """Generation whose flow was resumed after its seek: only now does no queue clear itself any more."""
        self._recoveries: dict[TP, asyncio.Task[None]] = {}
        self._unproven: set[TP] = set()
        """Partitions of which nothing was delivered since they were sought: where they are read is not proven."""
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        thread = self.transport.thread = BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)
        return thread

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: delivery waits for a free slot, no partition needs a pause."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing, see `on_buffer_full`."""

    # -- assignment ----------------------------------------------------------------------------------------------------
    async def perform_seek(self) -> None:
        """Place every stream partition at the end of a rebalance.

        Those with an owner go where it says, once it has recovered. The others go back to what is committed, or to
        the log's start (aiokafka leaves a partition without a commit where it is).
        """
        generation = self.app.consumer_generation_id
        self._shut()
        await super().perform_seek()
        streams = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        owned = {tp for tp in streams if tp.topic in self.transport.owners}
        expected = {tp: self._committed_offset[tp] for tp in streams - owned if self._committed_offset[tp]}
        fresh = streams - owned - set(expected)
        if fresh:
            start = {ensure_TP(tp): first for tp, first in (await self.earliest_offsets(*fresh)).items()}
            await self.seek_wait(start)
            expected.update(start)
        self._expected = expected
        self._unproven = streams
        self._sought = generation
        for tp in sorted(owned):
            self._recoveries[tp] = asyncio.create_task(self._recover(tp, generation))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Open the local stores of what is assigned before Faust does, which takes one after the other.

        aiokafka sends no heartbeat until this returns, however long it takes: it begins to here.
        """
        self._thread.hear()
        self._thread.thread_loop.call_soon_threadsafe(self._thread._consumer._coordinator._start_heartbeat_task)
        await open_stores(self.app.tables.values(), assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    def resume_flow(self) -> None:
        """Open the gate, if this generation's seek is done: Faust has just cleared the queues for the last time."""
        super().resume_flow()
        self._generation = self._sought

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop delivery, then let the owners go of what they had."""
        await super().on_partitions_revoked(revoked)
        self._shut()
        for tp in sorted(revoked):
            if tp.topic in self.transport.owners:
                await self.transport.owners[tp.topic].revoked(tp.partition)

    async def on_stop(self) -> None:
        """Break off recoveries that still run."""
        self._shut()
        await super().on_stop()

    def _shut(self) -> None:
        for task in self._recoveries.values():
            task.cancel()
        self._recoveries.clear()
        self._inflight.clear()
        self._expected = {}
        self._sought = self._generation = None

    async def _recover(self, tp: TP, generation: Any) -> None:
        """Let the owner bring back the state, then read on from where it says; a failure stops the worker."""
        try:
            first = await self.transport.owners[tp.topic].assigned(tp.partition)
            if generation != self.app.consumer_generation_id:
                return
            await self.seek_wait({tp: first})
            self._expected[tp] = first
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, the worker must not go on without this partition
            await self.app.crash(error)

    def _is_changelog_tp(self, tp: TP) -> bool:
        """Ask the tables' own mapping: Faust makes a new set at every call."""
        return tp.topic in self.app.tables._changelogs

    # -- looking -------------------------------------------------------------------------------------------------------
    def is_member(self) -> bool:
        """Return whether the group knows this consumer and waits for nothing from it."""
        return bool(self._thread.is_member())

    def surely_owns(self) -> bool:
        """Return whether the group was heard of within a session: what it gave is nobody else's yet.

        A process that was paused for longer finds this False when it wakes, before it has asked anybody.
        """
        return bool(time.monotonic() - self._thread.heard_at <= self.app.conf.broker_session_timeout)

    async def part(self) -> None:
        """Leave the group now: what was assigned here is another's at once, not after a session."""
        leaving = asyncio.run_coroutine_threadsafe(self._thread.part(), self._thread.thread_loop)
        await asyncio.wrap_future(leaving)

    def delivered(self, tp: TP) -> int | None:
        """Return the next offset of a partition that may be delivered; None: its gate is shut."""
        return self._expected.get(tp)

    def fetched(self, tp: TP) -> int:
        """Return the offset before which aiokafka has handed out all there is; markers of transactions raise it."""
        subscription = self._thread._consumer._subscription.subscription
        state = subscription and subscription.assignment and subscription.assignment.state_value(tp)
        return (state and state._position) or 0

    def acknowledged(self, tp: TP) -> int | None:
        """Return an offset before which all is acknowledged or is no record; None: the partition's gate is shut."""
        expected = self._expected.get(tp)
        if expected is None:
            return None
        first_open = next((message.offset for message in self._inflight[tp] if not message.acked), None)
        return max(expected, self.fetched(tp)) if first_open is None else first_open

    # -- delivery ------------------------------------------------------------------------------------------------------
    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 Faust's
        """Fetch changelogs only until the gate opens: a chunk fetched before the seek would be lost."""
        active = {tp for tp in active_partitions or () if self._is_changelog_tp(tp) or self._is_open(tp)}
        if not active:
            await asyncio.sleep(CLOSED_GATE_WAIT_S)
            return {}
        return await super()._getmany(active, min(timeout, self._patience(active_partitions or active)))

    def _is_open(self, tp: TP) -> bool:
        return self._generation == self.app.consumer_generation_id and tp in self._expected

    def _patience(self, active: set[TP]) -> float:
        """Return how long one poll may last (s): short while a partition recovers, so that it is not kept waiting."""
        return CLOSED_GATE_WAIT_S if any(tp in self._recoveries and tp not in self._expected for tp in active) else 1.0

    def _new_offset(self, tp: TP) -> int | None:
        """Commit the longest acknowledged prefix of what was delivered; Faust wants consecutive offsets."""
        inflight, new = self._inflight[tp], None
        while inflight and inflight[0].acked:
            new = inflight.popleft().offset + 1
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return new

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and deliver until the consumer stops; whatever fails stops the worker."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                await self._drain_once()
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.app.should_stop:
                raise
        except Exception as error:
            await self.app.crash(error)
            raise

    async def _drain_once(self) -> None:
        """Fetch once. What comes after a rebalance has begun is dropped: the seek at its end brings it again."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        records, _ = await self._wait_next_records(timeout=1.0)
        current = self.flow_active and generation == self.app.consumer_generation_id
        if records and current and not self.should_stop:
            await self.wait_first(self._deliver(self._messages(records)), self.suspend_flow.wait())

    def _messages(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[Any, int]]:
        """Yield each message with its first offset: a chunk of a batched topic, or a single record."""
        for tp, chunk in records.items():
            if tp.topic in self.transport.batched:
                message = self._to_message(tp, chunk[-1])
                message.key, message.value = None, chunk
                yield message, chunk[0].offset
            else:
                for record in chunk:
                    yield self._to_message(tp, record), record.offset

    async def _deliver(self, messages: Iterator[tuple[Any, int]]) -> None:
        for number, (message, first) in enumerate(messages):
            if not self._is_changelog_tp(message.tp):
                expected = self._expected.get(message.tp)
                if expected is None:
                    continue
                if first < expected or (first > expected and message.tp in self._unproven):
                    await self._read_on(message.tp, expected, first)
                    continue
                self._follow(message, first)
            await self.callback(message)
            self._read_offset[message.tp] = message.offset
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _read_on(self, tp: TP, expected: int, found: int) -> None:
        """Go back to where a partition is read: after a rebalance a client has been seen at a log's start, and ahead.

        What is missing before the first record after a seek may be gone for good, or skipped: it is asked for once.
        """
        logger.warning("%s[%d] is at %d: reading on from %d", tp.topic, tp.partition, found, expected)
        if found > expected:
            self._unproven.discard(tp)
        await self.seek_wait({tp: expected})

    def _follow(self, message: Any, first: int) -> None:
        """Take note of a message before its delivery.

        Raises:
            ProcessorStopped: records are missing before it.
        """
        expected = self._expected[message.tp]
        if first != expected and not (first > expected and message.topic in self.transport.sparse):
            msg = f"{message.topic}[{message.partition}]: expected offset {expected}, found {first}"
            raise ProcessorStopped(msg)
        self._expected[message.tp] = message.offset + 1
        self._unproven.discard(message.tp)
        self._inflight[message.tp].append(message)


class IdempotentProducer(Producer):
    """Faust's producer, idempotent where the broker can; Faust sets it only for `exactly_once`."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": self.transport.idempotent}


class BatchTransport(Transport):
    """Set it with `app.transport = BatchTransport(...)` before the app starts."""

    Consumer = BatchConsumer
    Producer = IdempotentProducer

    def __init__(
        self,
        url: Any,
        app: Any,
        *,
        connection: Connection,
        batched: frozenset[str] = frozenset(),
        sparse: frozenset[str] = frozenset(),
        idempotent: bool = True,
        fetch_max_wait_ms: int = 50,
        chunk_records: int = CHUNK_RECORDS,
        **kwargs: Any,
    ) -> None:
        """Take topics by their names on the broker.

        `batched`: delivered in chunks. `sparse`: offsets may have gaps (inputs, which other people's transactions
        and retention may thin); elsewhere a gap stops the worker.
        """
        super().__init__(url, app, **kwargs)
        self.connection = connection
        self.batched = batched
        self.sparse = sparse
        self.idempotent = idempotent
        self.fetch_max_wait_ms = fetch_max_wait_ms
        self.chunk_records = chunk_records
        self.owners: dict[str, Owner] = {}
        self.thread: BatchConsumerThread | None = None
        """The thread that polls, once there is one."""

    def retune(self, fetch_max_wait_ms: int, chunk_records: int) -> None:
        """Take another fetch wait (ms) and other chunks (records, at most) in a running worker."""
        self.fetch_max_wait_ms, self.chunk_records = fetch_max_wait_ms, chunk_records
        if self.thread is not None:
            self.thread.retune(fetch_max_wait_ms, chunk_records)
