"""The web pages of a worker, and what the page for browsers shows of it."""

import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import faust
from faust.types import TP

from config.settings import Settings
from engines.pipeline import cache
from engines.state.partition import State
from streams.journal.topics import Names
from streams.monitoring.samples import Histogram
from streams.monitoring.web import ListenAddress, Views, Web
from streams.page import routes
from streams.page.operation_panels import LATE_RECORDS
from streams.page.part import WorkerPart, observe
from streams.page.service import Page
from streams.stages.sizing import SizingFold
from streams.worker.partition_owners import StageOwner

if TYPE_CHECKING:
    from streams.worker.worker import Worker

SECOND_NS: Final = 1_000_000_000
OWNED_TABLE: Final = "books"
"""A table of the journal's stage: who owns its changelog's partition owns the journal's."""


def address(settings: Settings) -> str:
    """Return the address by which other workers name this one: its host and the port of its pages.

    A port that the operating system chooses is not known yet; then the process is named instead.
    """
    port = settings.monitoring.web_port
    return f"http://{socket.gethostname()}:{port}" if port else f"http://{socket.gethostname()}/process-{os.getpid()}"


class WorkerPages:
    """Builds the pages of a worker, and answers for it."""

    def __init__(self, worker: "Worker", settings: Settings) -> None:
        self._worker = worker
        self._moved: tuple[int, float] = (0, time.monotonic())
        """Journal time when it last moved, and the monotonic time then."""
        state = State(0)
        state.use(settings.decision())
        self._page = Page(
            worker.connection,
            worker.names,
            worker.clock,
            role="worker",
            limits={state.settings_hash: cache.limits(state)},
            part=self.part,
            ask=worker.watchman.ask,
        )

        self._web = self._listeners(settings)

    async def start(self) -> None:
        """Listen, as `Web.start`."""
        await self._web.start()

    async def move(self, settings: Settings) -> None:
        """Move to the addresses of these settings, as `Web.move`."""
        await self._web.move(self._listeners(settings))

    async def stop(self) -> None:
        """Stop listening."""
        await self._web.stop()

    @property
    def ports(self) -> dict[str, int]:
        """The ports in use, as `Web.ports`."""
        return self._web.ports

    @property
    def places(self) -> dict[str, ListenAddress]:
        """The addresses of the listeners, as `Web.places`."""
        return self._web.places

    @property
    def url(self) -> str:
        """Address of the page for browsers, as `Web.url`."""
        return self._web.url

    def _listeners(self, settings: Settings) -> Web:
        monitoring, worker = settings.monitoring, self._worker
        views = Views(
            worker.metrics.registry,
            worker.state,
            worker.not_ready,
            worker.watchman.not_alive,
            worker.watchman.ask,
            lambda app, connections: routes.add(app, self._page, connections),
            routes.is_shell,
        )
        return Web(
            views,
            host=monitoring.web_host,
            port=monitoring.web_port,
            metrics_port=monitoring.metrics_port if monitoring.metrics_enabled else None,
            metrics_host=monitoring.metrics_host,
        )

    def part(self, portfolios: Sequence[str], symbols: Sequence[str]) -> WorkerPart:
        """Return what this worker knows, for its page; called in its event loop."""
        worker = self._worker
        folded = worker.sizing()
        states = [fold.state for _, fold in folded]
        found = observe(states, portfolios, symbols)
        journal = worker.names.topic("journal")
        ends = {fold.state.partition: TP(journal, fold.state.partition) for _, fold in folded}
        found["lag"] = {
            fold.state.partition: worker.vitals.lag(ends[fold.state.partition], offset + 1) for offset, fold in folded
        }
        found["checkpoint_age_s"] = checkpoint_ages_s(worker.owners)
        found["still_s"] = self._still_s(max((state.now_ns for state in states), default=0))
        found["owners"] = owners(worker.app, worker.names)
        found["not_ready"] = worker.vitals.not_ready(LATE_RECORDS) | worker.watchman.suspects()
        found["latency"] = latency(worker.metrics.histograms["signal_to_allocation_seconds"][()])
        desk = worker.policy.agent.desk.status()
        found["breaker"] = {"state": desk.status, "timeout_s": desk.timeout_s}
        return found

    def _still_s(self, journal_ns: int) -> float:
        """Return for how long (wall time) the journal time has not moved."""
        if journal_ns != self._moved[0]:
            self._moved = (journal_ns, time.monotonic())
        return time.monotonic() - self._moved[1]


def checkpoint_ages_s(kept: Sequence[StageOwner]) -> dict[int, int]:
    """Return, by journal partition, whole seconds since the last checkpoint was taken."""
    folded = [(each.fold, each.processor) for owner in kept for each in owner.kept.values()]
    return {
        fold.state.partition: processor.checkpoint_age_ns // SECOND_NS
        for fold, processor in folded
        if isinstance(fold, SizingFold)
    }


def owners(app: faust.App, names: Names) -> dict[int, str]:
    """Return the address of each journal partition's owner, as the group's leader has told all of its members."""
    topic = names.changelog(OWNED_TABLE)
    assigned: Any = app.assignor.changelog_distribution
    return {number: str(url) for url, topics in assigned.items() for number in topics.get(topic, ())}


def latency(waited: Histogram) -> dict[str, Any]:
    """Return the bounds, in ms, below which half and 99 % of the signals of this worker became allocations.

    They are bounds of buckets, so never too small; None beyond the last bound, and before the first signal.
    """
    return {"p50_ms": _bound_ms(waited, 0.5), "p99_ms": _bound_ms(waited, 0.99), "count": sum(waited.counts)}


def _bound_ms(waited: Histogram, share: float) -> float | None:
    wanted, running = share * sum(waited.counts), 0
    for bound, count in zip(waited.bounds, waited.counts, strict=False):
        running += count
        if running and running >= wanted:
            return 1_000.0 * bound
    return None
