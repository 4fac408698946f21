"""A worker that falls ill on purpose, run as a process of its own, once it is ready or from the start.

python tests/broker/sick.py SETTINGS.yaml ILLNESS
"""
# ruff: noqa: T201, ASYNC251 - it tells the test its port, and hangs on purpose

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from config.load import load
from streams.kafka.connection import Connection
from streams.processing.clock import Clock
from streams.processing.ports import Send
from streams.processing.processor import Processor
from streams.worker import liveness
from streams.worker.run import leave
from streams.worker.worker import Worker, prepare


async def agent(worker: Worker) -> None:
    """End the stream of the agent that journals signals: the agent returns, and Faust says nothing."""
    (found,) = [each for name, each in worker.app.agents.items() if "signals" in name]
    for actor in found._actors:
        await actor.stream.stop()
    await worker.send([Send("signals", 0, None, b"the last that it takes")])


async def loop(_worker: Worker) -> None:
    """Let the event loop hang."""
    time.sleep(1_000)


async def consumer(worker: Worker) -> None:
    """Let the consumer leave its group, and never come back; nobody is waited for."""
    liveness.REBALANCE_S = 0.0
    client = worker.app.consumer._thread._consumer
    client._coordinator._coordination_task.get_loop().call_soon_threadsafe(
        client._coordinator._coordination_task.cancel
    )


async def publisher(worker: Worker) -> None:
    """Let no acknowledgement come any more."""
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    worker.app.producer._ensure_producer().send_batch = lambda *_args, **_named: _sent(never)


async def _sent(never: asyncio.Future[Any]) -> asyncio.Future[Any]:
    return never


async def fold(worker: Worker) -> None:
    """Let sizing stand still with chunks in its hands."""
    for owner in worker.owners:
        owner.take = lambda _event: asyncio.sleep(1_000)
        for lock in owner._locks.values():
            await lock.acquire()


async def recovery(_worker: Worker) -> None:
    """Let recoveries begin and never end."""
    Processor.recover = lambda _self: asyncio.sleep(1_000)


async def watchdog(worker: Worker) -> None:
    """Let the watchdog itself die."""
    worker.watchman._watching.cancel()


async def well(_worker: Worker) -> None:
    """Do nothing."""


ILLNESSES: dict[str, Callable[[Worker], Awaitable[None]]] = {
    each.__name__: each for each in (agent, loop, consumer, publisher, fold, recovery, watchdog, well)
}
CONGENITAL = ("recovery",)


async def main() -> NoReturn:
    path, illness = sys.argv[1:3]
    settings = load(path, os.environ).settings
    worker = await prepare(settings, Connection(settings.kafka.bootstrap_servers), Clock().now_ns)
    if illness in CONGENITAL:
        await ILLNESSES[illness](worker)
    running = asyncio.create_task(worker.run())
    while "web" not in worker.pages.ports:
        await asyncio.sleep(0.01)
    print(worker.pages.ports["web"], flush=True)
    while illness not in CONGENITAL and worker.not_ready():
        await asyncio.sleep(0.05)
    print("ill", flush=True)
    await asyncio.sleep(0.5)
    if illness not in CONGENITAL:
        await ILLNESSES[illness](worker)
    leave(await running)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(name)s %(levelname)s %(message)s")
    asyncio.run(main())
