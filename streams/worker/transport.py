# mypy: disallow-subclassing-any=False
# ruff: noqa: SLF001 - Faust and aiokafka have no public access to what is changed here
"""A Faust transport that delivers each fetched chunk of one partition to its stream as one event.

For topics in `batched`, `event.value` is the list of the chunk's records and `event.message.offset` its last offset;
every other topic, changelogs included, is delivered record by record. Stock Faust spends four asyncio tasks on every
message; this transport spends them on every chunk.

A batched topic may have an `Owner`: on every assignment its `assigned` restores the partition's state and returns where
reading starts, regardless of the group's committed offset; nothing of the partition is delivered before that.

Each override gives its reason.
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

SEEK_WAIT_S = 0.02
CHUNK_RECORDS = 5_000
YIELD_EVERY = 100
"""Single records delivered before control returns to the event loop."""


class Owner(Protocol):
    """Keeps the state of the partitions of one topic."""

    async def assigned(self, partition: int) -> int:
        """Restore the partition's state; return the offset to read from."""

    async def revoked(self, partition: int) -> None:
        """Release the partition's state; return when no task uses it any more."""

    def has_room(self, partition: int) -> bool:
        """Return whether another chunk of the partition may be fetched."""


class BatchConsumer(Consumer):
    """Delivers chunks, and nothing of a partition until its start offset is known."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take Faust's arguments."""
        self._inflight: dict[TP, deque[Any]] = defaultdict(deque)
        """Delivered messages that are not committed yet, in order."""
        self._expected: dict[TP, int] = {}
        """Next offset to deliver; nothing is delivered of partitions that are not in it."""
        self._sought: Any = None
        """Generation of which `perform_seek` is done."""
        self._generation: Any = None
        """Generation whose flow was resumed after its seek: only from then on are queues not cleared any more."""
        self._recoveries: dict[TP, asyncio.Task[None]] = {}
        self._unproven: set[TP] = set()
        """Partitions of which nothing was delivered since their seek: their fetch position is not confirmed."""
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        thread = self.transport.thread = BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)
        return thread

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: delivery waits for a free slot, so no partition is paused."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing, see `on_buffer_full`."""

    # -- assignment ----------------------------------------------------------------------------------------------------
    async def perform_seek(self) -> None:
        """Seek every stream partition at the end of a rebalance.

        Partitions with an owner go to the offset it returns once it has recovered. The others go to their committed
        offset, or to the log's start (aiokafka does not move a partition without a committed offset).
        """
        generation = self.app.consumer_generation_id
        self._shut()
        await super().perform_seek()
        streams = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        owned = {tp for tp in streams if tp.topic in self.transport.owners}
        expected = {tp: self._committed_offset[tp] for tp in streams - owned if self._committed_offset[tp]}
        uncommitted = streams - owned - set(expected)
        if uncommitted:
            start = {ensure_TP(tp): first for tp, first in (await self.earliest_offsets(*uncommitted)).items()}
            await self.seek_wait(start)
            expected.update(start)
        self._expected = expected
        self._unproven = streams
        self._sought = generation
        for tp in sorted(owned):
            self._recoveries[tp] = asyncio.create_task(self._recover(tp, generation))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Open the local stores of assigned partitions in parallel before Faust opens them one after the other.

        aiokafka sends no heartbeat until this returns, however long it takes, so the heartbeat task is started here.
        """
        self._thread.hear()
        self._thread.thread_loop.call_soon_threadsafe(self._thread._consumer._coordinator._start_heartbeat_task)
        await open_stores(self.app.tables.values(), assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    def resume_flow(self) -> None:
        """Allow delivery if this generation's seek is done: Faust has just cleared the queues for the last time."""
        super().resume_flow()
        self._generation = self._sought

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop delivery, then let the owners release the partitions."""
        await super().on_partitions_revoked(revoked)
        self._shut()
        for tp in sorted(revoked):
            if tp.topic in self.transport.owners:
                await self.transport.owners[tp.topic].revoked(tp.partition)

    async def on_stop(self) -> None:
        """Cancel recoveries in progress."""
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
        """Let the owner restore the state, then read from the offset it returns; a failure stops the worker."""
        try:
            first = await self.transport.owners[tp.topic].assigned(tp.partition)
            if generation != self.app.consumer_generation_id:
                return
            await self.seek_wait({tp: first})
            self._expected[tp] = first
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 no failure may leave the worker running without this partition
            await self.app.crash(error)

    def _is_changelog_tp(self, tp: TP) -> bool:
        """Look into the tables' own mapping: Faust's method builds a new set at every call."""
        return tp.topic in self.app.tables._changelogs

    # -- positions -----------------------------------------------------------------------------------------------------
    def is_member(self) -> bool:
        """Return whether this consumer is a member of the group and no rejoin is pending."""
        return bool(self._thread.is_member())

    def surely_owns(self) -> bool:
        """Return whether the group answered within a session timeout: then no other member has the partitions.

        A process that was paused for longer gets False when it resumes, before it has contacted the group.
        """
        return bool(time.monotonic() - self._thread.heard_at <= self.app.conf.broker_session_timeout)

    async def part(self) -> None:
        """Leave the group now, so that the partitions are reassigned at once instead of after a session timeout."""
        leaving = asyncio.run_coroutine_threadsafe(self._thread.part(), self._thread.thread_loop)
        await asyncio.wrap_future(leaving)

    def delivered(self, tp: TP) -> int | None:
        """Return the next offset of a partition to deliver; None: delivery has not started."""
        return self._expected.get(tp)

    def fetched(self, tp: TP) -> int:
        """Return the offset before which aiokafka has returned every record; transaction markers raise it."""
        subscription = self._thread._consumer._subscription.subscription
        state = subscription and subscription.assignment and subscription.assignment.state_value(tp)
        return (state and state._position) or 0

    def acknowledged(self, tp: TP) -> int | None:
        """Return an offset before which every record is acknowledged; None: delivery has not started."""
        expected = self._expected.get(tp)
        if expected is None:
            return None
        first_open = next((message.offset for message in self._inflight[tp] if not message.acked), None)
        return max(expected, self.fetched(tp)) if first_open is None else first_open

    # -- delivery ------------------------------------------------------------------------------------------------------
    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 Faust's
        """Fetch only changelogs until the seek is done: a chunk fetched before it would be lost.

        A partition that has enough to fold is left out: aiokafka would return its records before those of others.
        """
        active = {tp for tp in active_partitions or () if self._is_changelog_tp(tp) or self._is_open(tp)}
        if not active:
            await asyncio.sleep(SEEK_WAIT_S)
            return {}
        return await super()._getmany(active, min(timeout, self._patience(active_partitions or active)))

    def _is_open(self, tp: TP) -> bool:
        return self._generation == self.app.consumer_generation_id and tp in self._expected and self._has_room(tp)

    def _has_room(self, tp: TP) -> bool:
        owner = self.transport.owners.get(tp.topic)
        return owner is None or owner.has_room(tp.partition)

    def _patience(self, active: set[TP]) -> float:
        """Return the longest poll (s): short while a partition recovers or has no room, so that it is not delayed."""
        delayed = any((tp in self._recoveries and tp not in self._expected) or not self._has_room(tp) for tp in active)
        return SEEK_WAIT_S if delayed else 1.0

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset after the longest acknowledged prefix; Faust expects consecutive offsets."""
        inflight, new = self._inflight[tp], None
        while inflight and inflight[0].acked:
            new = inflight.popleft().offset + 1
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return new

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and deliver until the consumer stops; any failure stops the worker."""
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
        """Fetch and deliver once. Records returned after a rebalance began are dropped: its seek fetches them again."""
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
                    await self._seek_back(message.tp, expected, first)
                    continue
                self._follow(message, first)
            await self.callback(message)
            self._read_offset[message.tp] = message.offset
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _seek_back(self, tp: TP, expected: int, found: int) -> None:
        """Seek to the expected offset: after a rebalance aiokafka may fetch from the log's start, or from further on.

        Records missing before the first one after a seek may be deleted or skipped, so they are requested only once.
        """
        logger.warning("%s[%d] is at %d: seeking to %d", tp.topic, tp.partition, found, expected)
        if found > expected:
            self._unproven.discard(tp)
        await self.seek_wait({tp: expected})

    def _follow(self, message: Any, first: int) -> None:
        """Track a message before its delivery.

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
    """Faust's producer, idempotent if the broker supports it; Faust sets that only for `exactly_once`."""

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
        """Topics are given by their names on the broker.

        `batched`: delivered in chunks. `sparse`: offsets may have gaps (inputs, because of producers' transactions and
        retention); elsewhere a gap stops the worker.
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
        """The polling thread, once it exists."""

    def retune(self, fetch_max_wait_ms: int, chunk_records: int) -> None:
        """Change the fetch wait (ms) and the chunk size (records, at most) of a running worker."""
        self.fetch_max_wait_ms, self.chunk_records = fetch_max_wait_ms, chunk_records
        if self.thread is not None:
            self.thread.retune(fetch_max_wait_ms, chunk_records)
