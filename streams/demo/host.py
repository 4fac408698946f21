"""The demo's worker: in this process on the embedded broker, a process of its own on Apache Kafka."""

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


class RunningWorker:
    """The demo's worker: in this process on the embedded broker, a process of its own on Apache Kafka."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.task: asyncio.Task[int] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.asked = asyncio.Event()

    def check(self) -> None:
        """Return while it runs.

        Raises:
            KeyboardInterrupt: it was interrupted.
            SizingError: it ended by itself; the reason is on stderr.
        """
        code = None
        if self.task is not None and self.task.done():
            code = self.task.result()
        if self.process is not None:
            code = self.process.returncode
        if code == 0:
            raise KeyboardInterrupt
        if code is not None:
            msg = f"the worker ended with exit code {code}"
            raise SizingError(msg)

    async def stop(self) -> None:
        """Stop it as an operator would, and wait."""
        self.asked.set()
        if self.task is not None:
            await self.task
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()


@asynccontextmanager
async def hosted(stage: DemoEnvironment, clock: Clock, folder: Path, *, apart: bool) -> AsyncIterator[RunningWorker]:
    """Start a worker, `apart` in a process of its own; it is ready when this returns. A live clock begins then."""
    started = RunningWorker(clock)
    try:
        if apart:
            await _start_process(started, stage, folder)
        else:
            await _start_here(started, stage)
        yield started
    finally:
        with suppress(Exception):
            await started.stop()


async def _start_here(started: RunningWorker, stage: DemoEnvironment) -> None:
    """Start a worker in this process; the clock stands still until it is ready."""
    opened = False
    made = await prepare(
        stage.settings, stage.connection, lambda: started.clock.now_ns() if opened else started.clock.start_ns
    )
    started.task = asyncio.create_task(made.run(started.asked))
    while made.not_ready():
        started.check()
        await asyncio.sleep(0.02)
    started.clock = Clock.scaled(started.clock.start_ns, started.clock.factor)
    opened = True


async def _start_process(started: RunningWorker, stage: DemoEnvironment, folder: Path) -> None:
    path = folder / "demo.yaml"
    path.write_text(json.dumps(stage.settings.model_dump(exclude_defaults=True)))
    environment = {**os.environ, ENVIRONMENT: str(started.clock)}
    started.process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streams",
        "worker",
        "--config",
        str(path),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    if started.process.stderr is None:
        return
    async for line in started.process.stderr:
        if b"worker ready" in line:
            break
        sys.stderr.write(line.decode(errors="replace"))
    started.check()
