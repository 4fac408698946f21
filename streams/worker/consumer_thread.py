# mypy: disallow-subclassing-any=False
# ruff: noqa: SLF001 - Faust and aiokafka keep what has to be changed here to themselves
"""The thread that polls: its consumer, its place in the group, and what is heard of the group."""

import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ensure_aiokafka_TP
from faust.types import TP

from streams.kafka.read import high_watermarks


class BatchConsumerThread(AIOKafkaConsumerThread):
    """The thread that polls: a fetch wait of our own, log ends that are right, and a farewell to the group."""

    heard_at = float("-inf")
    """When the group last took a heartbeat, or gave partitions (monotonic, s)."""

    def hear(self) -> None:
        """Note from now on when the group takes a heartbeat; called at each assignment, which is as good as one."""
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
        """Set the fetch wait, 1,500 ms hard-coded in Faust; it is the latency on the embedded broker."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = transport.fetch_max_wait_ms
        consumer._max_poll_records = transport.chunk_records
        return consumer

    def retune(self, fetch_max_wait_ms: int, chunk_records: int) -> None:
        """Take another wait and other chunks, from the next fetch on."""
        if self._consumer is not None and self._consumer._fetcher is not None:
            self._consumer._fetcher._fetch_max_wait_ms = fetch_max_wait_ms
            self._consumer._max_poll_records = chunk_records

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        """Ask with Fetch: the embedded broker's ListOffsets(latest) is too low."""
        wanted = {ensure_aiokafka_TP(tp): tp for tp in partitions}
        found = await high_watermarks(self.transport.connection, list(wanted))
        return {wanted[tp]: end for tp, end in found.items()}

    async def _fetch_records(
        self, consumer: AIOKafkaConsumer, active_partitions: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Let aiokafka fetch of what is wanted now, and of nothing else; give nothing of another assignment's.

        It asks for whatever is assigned, and asks a node for nothing for .1 s when it holds records that nobody
        takes: a checkpoint, whose changelogs came back to the worker that wrote them, stopped all streams so long.

        A poll that waits when a rebalance begins goes on waiting after it, and may take records past the place that
        the seek at the rebalance's end has set: it puts them back, since whoever asked wants nothing of it any more.
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
        """Return whether the group knows this consumer and waits for nothing from it."""
        client, thread = self._consumer, self._thread
        if client is None or thread is None or not thread.is_alive():
            return False
        coordinator, subscription = client._coordinator, client._subscription.subscription
        if coordinator is None or subscription is None or coordinator._coordination_task.done():
            return False
        return coordinator.generation >= 0 and not coordinator.need_rejoin(subscription)

    async def part(self) -> None:
        """Leave the group, and do not join again; to be run in this thread's loop."""
        coordinator = self._countable()
        if coordinator is not None:
            coordinator._coordination_task.cancel()
            await coordinator._maybe_leave_group()

    async def on_thread_stop(self) -> None:
        """Leave the group in its generation 0 too."""
        self._countable()
        await super().on_thread_stop()

    def _countable(self) -> Any:
        """Return the coordinator in a generation that can be left: the embedded broker's first is 0, which cannot."""
        coordinator = None if self._consumer is None else self._consumer._coordinator
        if coordinator is not None and coordinator.generation == 0:
            coordinator.generation = 1
        return coordinator
