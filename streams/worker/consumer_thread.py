# mypy: disallow-subclassing-any=False
# ruff: noqa: SLF001 - Faust and aiokafka have no public access to what is changed here
"""The polling thread: its consumer, its group membership, and the group's heartbeats."""

import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ensure_aiokafka_TP
from faust.types import TP

from streams.kafka.connection import READ_COMMITTED
from streams.kafka.read import high_watermarks


class BatchConsumerThread(AIOKafkaConsumerThread):
    """The polling thread, with a configurable fetch wait, exact log ends, and an orderly departure from the group."""

    heard_at = float("-inf")
    """When the group last accepted a heartbeat, or assigned partitions (monotonic, s)."""

    def hear(self) -> None:
        """Record from now on when the group accepts a heartbeat; called at each assignment, which counts as one."""
        self.heard_at = time.monotonic()
        coordinator = self._consumer._coordinator
        beat = coordinator.__class__._do_heartbeat

        async def noted() -> bool:
            asked_at = time.monotonic()
            taken = bool(await beat(coordinator))
            if taken:
                self.heard_at = asked_at
            return taken

        coordinator._do_heartbeat = noted

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        """Set the fetch wait, hard-coded to 1,500 ms in Faust; on the embedded broker it is the latency.

        Faust reads what is not committed unless it writes transactions itself: aborted signals would be traded.
        """
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = READ_COMMITTED
        consumer._fetch_max_wait_ms = transport.fetch_max_wait_ms
        consumer._max_poll_records = transport.chunk_records
        return consumer

    def retune(self, fetch_max_wait_ms: int, chunk_records: int) -> None:
        """Change the fetch wait and the chunk size from the next fetch on."""
        if self._consumer is not None and self._consumer._fetcher is not None:
            self._consumer._fetcher._fetch_max_wait_ms = fetch_max_wait_ms
            self._consumer._max_poll_records = chunk_records

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        """Return log ends found with Fetch: the embedded broker's ListOffsets(latest) is too low."""
        wanted = {ensure_aiokafka_TP(tp): tp for tp in partitions}
        found = await high_watermarks(self.transport.connection, list(wanted))
        return {wanted[tp]: end for tp, end in found.items()}

    async def _fetch_records(
        self, consumer: AIOKafkaConsumer, active_partitions: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Fetch only the active partitions; return no records of an earlier assignment.

        aiokafka fetches every assigned partition, and sends a node no request for .1 s while it holds records that are
        not consumed: a checkpoint, whose changelog records come back to the worker, would stop all streams that long.

        A poll that is waiting when a rebalance begins continues after it, and may consume records past the offset that
        the rebalance's seek has set. The consumer is moved back to them, since their reader has gone.
        """
        paused = consumer.paused()
        consumer.pause(*(consumer.assignment() - active_partitions - paused))
        consumer.resume(*(tp for tp in paused if tp in active_partitions))
        asked_in = consumer._subscription.subscription.assignment
        records = await super()._fetch_records(consumer, active_partitions, *args, **kwargs)
        if consumer._subscription.subscription.assignment is asked_in:
            return records
        for tp in records.keys() & consumer.assignment():
            consumer.seek(tp, records[tp][0].offset)
        return {}

    def is_member(self) -> bool:
        """Return whether this consumer is a member of the group and no rejoin is pending."""
        client, thread = self._consumer, self._thread
        if client is None or thread is None or not thread.is_alive():
            return False
        coordinator, subscription = client._coordinator, client._subscription.subscription
        if coordinator is None or subscription is None or coordinator._coordination_task.done():
            return False
        return coordinator.generation >= 0 and not coordinator.need_rejoin(subscription)

    async def part(self) -> None:
        """Leave the group for good; to be run in this thread's loop."""
        coordinator = self._countable()
        if coordinator is not None:
            coordinator._coordination_task.cancel()
            await coordinator._maybe_leave_group()

    async def on_thread_stop(self) -> None:
        """Stop, and leave the group even in generation 0."""
        self._countable()
        await super().on_thread_stop()

    def _countable(self) -> Any:
        """Return the coordinator with a generation above 0: aiokafka does not leave 0, the embedded broker's first."""
        coordinator = None if self._consumer is None else self._consumer._coordinator
        if coordinator is not None and coordinator.generation == 0:
            coordinator.generation = 1
        return coordinator
