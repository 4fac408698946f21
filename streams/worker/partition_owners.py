"""The partitions that a worker owns of the stages that fold: created on assignment, dropped on revocation."""

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import faust

from streams.processing.processor import Processor
from streams.stages.topology import Stage, Timed
from streams.worker.application import Owned
from streams.worker.faust_ports import FaustPorts

IDLE_S = 1.0
"""A journal partition without an entry for this long (wall time) gets a tick."""


class OwnedPartition(NamedTuple):
    """A partition that this worker folds or recovers."""

    stage: Stage
    fold: Timed
    processor: Processor
    ports: FaustPorts


class StageOwner(Owned):
    """The partitions of one stage, and when each last had a record."""

    def __init__(
        self,
        app: faust.App,
        stage: Stage,
        make: Callable[[Stage, int], OwnedPartition],
        forget: Callable[[str, int], None],
    ) -> None:
        """Own the partitions of `stage`; `make` builds one, `forget` is called with one that was revoked."""
        self.stage = stage
        self.forget = forget
        self.kept: dict[int, OwnedPartition] = {}
        self.busy_at: dict[int, float] = {}

        def processor(partition: int) -> Processor:
            kept = self.kept[partition] = make(stage, partition)
            self.busy_at[partition] = time.monotonic()
            return kept.processor

        super().__init__(app, processor)

    async def assigned(self, partition: int) -> int:
        """Recover a partition; exempt its state from garbage collection, which would scan all of it."""
        first = await super().assigned(partition)
        gc.freeze()
        return first

    async def revoked(self, partition: int) -> None:
        """Release a partition."""
        await super().revoked(partition)
        self.kept.pop(partition, None)
        self.forget(self.stage.name, partition)

    async def take(self, event: Any) -> None:
        """Fold a chunk, and record that the partition is not idle."""
        await super().take(event)
        self.busy_at[event.message.partition] = time.monotonic()

    async def elapse(self, now_ns: int) -> None:
        """Let each fold publish what the passing of time requires."""
        await asyncio.gather(*(self._elapse(partition, now_ns) for partition in sorted(self.processors)))

    async def _elapse(self, partition: int, now_ns: int) -> None:
        if self.stage.idle_tick and time.monotonic() - self.busy_at[partition] < IDLE_S:
            return
        fold = self.kept[partition].fold
        await self.act(partition, partial(fold.elapse, now_ns))
        self.busy_at[partition] = time.monotonic()
