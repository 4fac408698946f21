"""Runs the demo's worker: in this process on the embedded broker, as a separate process on Apache Kafka."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from schemas.errors import SizingError
from streams.demo.environment import DemoEnvironment
from streams.processing.clock import ENVIRONMENT, Clock
from streams.worker.worker import prepare

PAGE = b"himari: page "
"""How a worker says the address of its page."""


class RunningWorker:
    """A worker in this process or in a separate one, and the clock of the demo's market."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.task: asyncio.Task[int] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.stopping = asyncio.Event()
        self.clock_runs = False
        self.page_url = ""
        """Address of the worker's page."""

    def now_ns(self) -> int:
        """Return the market's time; frozen at the start until `start_clock`."""
        return self.clock.now_ns() if self.clock_runs else self.clock.start_ns

    def start_clock(self) -> Clock:
        """Start the market's clock now, and return it. A separate process got a fixed start time with its launch."""
        if self.process is None:
            self.clock = Clock.scaled(self.clock.start_ns, self.clock.factor)
        self.clock_runs = True
        return self.clock

    def check(self) -> None:
        """Return if the worker is running.

        Raises:
            KeyboardInterrupt: it was interrupted.
            SizingError: it stopped by itself; the reason is on stderr.
        """
        code = None
        if self.task is not None and self.task.done():
            code = self.task.result()
        if self.process is not None:
            code = self.process.returncode
        if code == 0:
            raise KeyboardInterrupt
        if code is not None:
            msg = f"the worker stopped with exit code {code}"
            raise SizingError(msg)

    async def stop(self) -> None:
        """Stop the worker as SIGTERM does, and wait for it."""
        self.stopping.set()
        if self.task is not None:
            await self.task
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()


@asynccontextmanager
async def hosted(
    environment: DemoEnvironment, clock: Clock, folder: Path, *, apart: bool
) -> AsyncIterator[RunningWorker]:
    """Start a worker and wait until it is ready; `apart` runs it as a separate process. Stops it on exit."""
    started = RunningWorker(clock)
    try:
        if apart:
            await _start_process(started, environment, folder)
        else:
            await _start_here(started, environment)
        yield started
    finally:
        with suppress(Exception):
            await started.stop()


async def _start_here(started: RunningWorker, environment: DemoEnvironment) -> None:
    made = await prepare(environment.settings, environment.connection, started.now_ns)
    started.task = asyncio.create_task(made.run(started.stopping))
    while made.not_ready():
        started.check()
        await asyncio.sleep(0.02)
    started.page_url = made.page_url


async def _start_process(started: RunningWorker, environment: DemoEnvironment, folder: Path) -> None:
    path = folder / "demo.yaml"
    path.write_text(json.dumps(environment.settings.model_dump(exclude_defaults=True)))
    variables = {**os.environ, ENVIRONMENT: str(started.clock)}
    started.process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streams",
        "worker",
        "--config",
        str(path),
        env=variables,
        stderr=asyncio.subprocess.PIPE,
    )
    if started.process.stderr is None:
        return
    async for line in started.process.stderr:
        if b"worker ready" in line:
            break
        if line.startswith(PAGE):
            started.page_url = line.removeprefix(PAGE).decode().strip()
            continue
        sys.stderr.write(line.decode(errors="replace"))
    started.check()
