"""Partitions under Faust: what is begun on one is done."""

import asyncio
from types import SimpleNamespace

from streams.processing.memory_cluster import LocalStore, MemoryCluster, MemoryPorts
from streams.processing.processor import Processor
from streams.stages.sizing import SizingFold
from streams.worker.application import Owned


def test_a_caller_that_is_cancelled_breaks_off_nothing_so_that_the_last_checkpoint_can_be_made():
    async def story():
        cluster, reached, go_on = MemoryCluster(), asyncio.Event(), asyncio.Event()
        for topic in ("journal", "allocations"):
            cluster.create(topic, 1)

        async def pause(step):
            if step == "issued":
                reached.set()
                await go_on.wait()

        def make(partition):
            fold = SizingFold(partition)
            ports = MemoryPorts(
                cluster,
                processor="sizing",
                source="journal",
                partition=0,
                tables=fold.tables,
                store=LocalStore(),
                pause=pause,
            )
            return Processor(fold, ports, partition=partition, clock=lambda: 0)

        owned = Owned(SimpleNamespace(), make)
        await owned.assigned(0)
        telling = asyncio.create_task(owned.act(0, lambda: SizingFold(0).elapse(1)))
        await reached.wait()
        telling.cancel()
        last = asyncio.create_task(owned.checkpoint())
        await asyncio.sleep(0)
        go_on.set()
        await last
        assert cluster.log("journal", 0).end == 1

    asyncio.run(story())
