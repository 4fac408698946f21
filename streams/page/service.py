"""The page of one process: feeds that run while somebody looks, and the sections encoded for all streams."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from heapq import nlargest
from typing import Any, Final

from engines.pipeline.caps import Limits
from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.monitoring.connections import described
from streams.monitoring.rare_log import RareLog
from streams.page.board import Board
from streams.page.feed import PageFeeds
from streams.page.model import PageModel
from streams.page.part import BOOKS_MAX, WorkerPart
from streams.page.scene import MILLISECOND_NS, NOT_READ_YET, Scene
from streams.page.sections import SECTIONS

logger = logging.getLogger(__name__)

TICK_S: Final = 0.25
SHARE: Final = 0.02
"""Largest share of the thread's time that encoding may take; beyond it the ticks come less often."""
PART_S: Final = 1.0
"""Time between two questions to the worker."""
IDLE_S: Final = 60.0
"""The feeds stop when nobody has looked for this long."""
FIRST_S: Final = 3.0
"""How long the first answer waits for the feeds."""
SILENT: Final = "the worker's event loop does not answer"

PartSource = Callable[[Sequence[str], Sequence[str]], WorkerPart]
"""Returns the worker's part for portfolios and symbols; called in the worker's event loop."""
Ask = Callable[[Callable[[], Any]], Awaitable[Any]]


class Page:
    """Serves scenes and sections. Made anywhere; used in one event loop, that of the web pages."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        clock: Callable[[], int],
        *,
        role: str,
        limits: Mapping[str, Limits],
        part: PartSource | None = None,
        ask: Ask | None = None,
    ) -> None:
        """`limits`: of the settings of this process, by hash. `part`, `ask`: of a worker."""
        self._connection, self._names, self._clock = connection, names, clock
        self._role, self._limits, self._source, self._ask = role, limits, part, ask
        self._log = RareLog(logger)
        self._running: asyncio.Task[None] | None = None
        self._watchers = 0
        self._begin()

    def _begin(self) -> None:
        self.board = Board()
        self.model = PageModel()
        self.feeds = PageFeeds(self._connection, self._names, self.model)
        self._part: WorkerPart = {}
        self._problem = SILENT if self._source is not None else ""
        self._seen_s = time.monotonic()
        self._stopped = False
        self._changed: asyncio.Future[None] | None = None

    # -- lifecycle -------------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Note that somebody looks; the feeds start if they do not run."""
        self._seen_s = time.monotonic()
        if self._running is None or self._running.done():
            self._begin()
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop the feeds and end all streams."""
        self._stopped = True
        self._wake()
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        tasks = [asyncio.create_task(job) for job in (self.feeds.run(), self._ask_worker(), self._encode())]
        try:
            while not any(task.done() for task in tasks):
                await asyncio.sleep(TICK_S)
                if not self._watchers and time.monotonic() - self._seen_s > IDLE_S:
                    return
            for task in tasks:
                if task.done() and task.exception() is not None:
                    self._log.tell("the page has stopped: %s", described(task.exception()))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._stopped = True
            self._wake()

    # -- the worker's part -------------------------------------------------------------------------------------------
    async def _ask_worker(self) -> None:
        """Ask the worker for its part, about once a second."""
        while True:
            await self._refresh_part()
            await asyncio.sleep(PART_S)

    async def _refresh_part(self) -> None:
        source, ask = self._source, self._ask
        if source is None or ask is None:
            return
        portfolios, symbols = self._largest()
        try:
            self._part = await ask(lambda: source(portfolios, symbols))
            self._problem = ""
        except TimeoutError:
            self._part, self._problem = {}, SILENT

    def _largest(self) -> tuple[list[str], list[str]]:
        """Return the portfolios whose books are shown, and the symbols by size, largest first."""
        newest = {name: known.newest.fields for name, known in self.model.portfolios.items() if known.newest}
        portfolios = nlargest(BOOKS_MAX, newest, key=lambda name: float(newest[name]["totals"]["gross_usd"]))
        sizes: dict[str, float] = {}
        for fields in newest.values():
            for symbol, target in fields["targets"].items():
                sizes[symbol] = sizes.get(symbol, 0.0) + abs(target["notional_usd"] or 0.0)
        return portfolios, sorted(sizes, key=lambda symbol: (-sizes[symbol], symbol))

    # -- scenes ----------------------------------------------------------------------------------------------------
    def scene(self) -> Scene:
        """Return the present moment."""
        part, feeds = self._part, self.feeds
        known = {settings: Limits(**each) for settings, each in part.get("limits", {}).items()}
        return Scene(
            model=self.model,
            now_ms=self._clock() // MILLISECOND_NS,
            wall_ms=time.time_ns() // MILLISECOND_NS,
            role=self._role,
            part=part,
            partitions=feeds.partitions,
            owners=part.get("owners", {}),
            limits={**(self._limits if not known else {}), **known},
            feeds=dict(feeds.problems),
            complete=feeds.complete,
            problem=self._problem,
            not_ready=part.get("not_ready", {}),
        )

    async def ready(self) -> None:
        """Note that somebody looks; wait for the first records, but not for long."""
        self.look()
        until = time.monotonic() + FIRST_S
        while self.feeds.problems.get("allocations", NOT_READ_YET) == NOT_READ_YET and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def problem(self) -> str:
        """Return why `allocations` cannot be read; "" if it can, or nobody looks."""
        running = self._running is not None and not self._running.done()
        found = self.feeds.problems.get("allocations", "") if running else ""
        return "" if found == NOT_READ_YET else found

    async def _encode(self) -> None:
        """Encode the sections anew, at most four times a second; the verdict always, the others if they may differ."""
        seen: object = None
        while True:
            began_s = time.monotonic()
            scene = self.scene()
            mark = (self.model.changes, id(self._part), scene.feeds, scene.problem, scene.complete)
            names = SECTIONS if mark != seen or not self._part else ("verdict",)
            for name in names:
                self.board.put(name, SECTIONS[name](scene))
            seen = mark
            self._wake()
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(TICK_S, took_s / SHARE))

    # -- streams ---------------------------------------------------------------------------------------------------
    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            self._seen_s = time.monotonic()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield the events that are new since the last ones; the first are all sections. Ends when the page stops."""
        self.look()
        version = 0
        with self._watching():
            while not self._stopped:
                version, events = self.board.since(version)
                if events:
                    yield events
                await self._wait()

    async def _wait(self) -> None:
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._changed], timeout=IDLE_S)

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
