"""Applies changes of the settings file to a running worker.

Decision settings become one `control` record. Worker settings are applied at once by the worker's `Taker`s; those that
need a restart are reported in the log, on `/state`, and as `himari_l3_config_restart_required`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from config.diff import diff, leaves
from config.security import SecuritySettings
from config.settings import Settings, decision_tree, worker_tree
from config.watch import FileChange, FileWatch, Rejected
from engines.parameters import settings_hash
from schemas.errors import SizingError
from streams.monitoring.metrics import Metrics
from streams.processing.ports import Send
from streams.stages.control import settings_order

logger = logging.getLogger(__name__)

RESTART: Final = "restart the worker"
NOT_LIVE: Final[Mapping[str, str]] = {
    "kafka.bootstrap_servers": RESTART,
    "kafka.session_timeout_s": RESTART,
    "kafka.data_dir": RESTART,
    "kafka.max_ahead_s": RESTART,
    **{f"kafka.security.{name}": RESTART for name in SecuritySettings.model_fields},
    "topics.prefix": RESTART,
    "topics.partitions": "fixed for life by the journal: put it back",
    "topics.replication": "himari topics apply (topics that it creates)",
}
"""Settings that cannot change in a running process: connection, group membership, tables, journal. Key → remedy."""
VANISHED: Final = "gone from the file: put it back, or restart the worker"


class Taker(NamedTuple):
    """A part of the worker that applies some settings while it runs."""

    keys: frozenset[str]
    take: Callable[[Settings], Awaitable[None]]
    """Applies the settings. Raises: SizingError if it cannot; all of its keys stay as before."""


class Waiting(NamedTuple):
    """A setting of the file that is not in effect here."""

    running: Any
    file: Any
    do: str
    """What puts it into effect, or why it was refused."""


class Reload:
    """The settings that a worker runs with, and the watch on its settings file.

    `in_force`: returns the hash of the decision settings in force, "" if it is not known yet.
    """

    def __init__(
        self,
        settings: Settings,
        watch: FileWatch | None,
        *,
        takers: tuple[Taker, ...],
        send: Callable[[list[Send]], Awaitable[None]],
        metrics: Metrics,
        clock: Callable[[], int],
        in_force: Callable[[], str],
    ) -> None:
        self.running = settings
        self.waiting: dict[str, Waiting] = {}
        self._watch, self._takers, self._send = watch, takers, send
        self._metrics, self._clock, self._in_force = metrics, clock, in_force
        self._held: frozenset[str] = frozenset()
        """Worker settings that were removed from the file together: they keep their running values."""
        self._in_step = ""
        """Hash of the file's decision settings once they have been in force."""
        self._when_refused = ""
        """Hash in force when the file was refused because settings were removed from it."""

    async def follow(self) -> None:
        """Poll the file until a change turns polling off.

        A change counts once two polls find the same content, so there are two polls per interval.
        """
        while self._watch is not None and self.running.hot_reload.enabled:
            await asyncio.sleep(self.running.hot_reload.poll_interval_sec / 2)
            found = self._look(self._watch)
            if found is not None:
                await self.changed(found)
        if self._watch is not None:
            logger.warning("hot_reload.enabled is false: the settings file is not read until the next start")

    def _look(self, watch: FileWatch) -> FileChange | Rejected | None:
        """Poll once. A file refused because settings were removed is accepted once an operator has applied it."""
        found = watch.poll()
        if isinstance(found, Rejected):
            self._when_refused = self._in_force()
        return self._confirmed(watch) or found

    def _confirmed(self, watch: FileWatch) -> FileChange | None:
        """Accept a refused file if its decision settings were put in force (`config apply --allow-removals`).

        That is certain only if the file's settings were in force before, or if those in force have changed since the
        refusal: otherwise an emptied file might equal the settings in force by coincidence.
        """
        in_force, of_file = self._in_force(), settings_hash(decision_tree(watch.loaded.settings))
        if in_force == of_file:
            self._in_step = of_file
        if watch.refused is None:
            return None
        wanted = settings_hash(decision_tree(watch.refused.loaded.settings))
        if in_force != wanted or (self._in_step != of_file and self._when_refused in {"", wanted}):
            return None
        return watch.accept()

    async def changed(self, found: FileChange | Rejected) -> None:
        """Apply a change of the file; a file that is not valid changes nothing."""
        if isinstance(found, Rejected):
            logger.error("settings file rejected, nothing changes: %s", found.error)
            await self._send([rejection(str(found.error), self._clock())])
            status = "rejected"
        else:
            before = self.running
            self._held = (self._held | found.held) - found.loaded.in_file - NOT_LIVE.keys()
            wanted = with_keys(found.loaded.settings, before, self._held)
            refused = await self._take(wanted)
            self._report_waiting(found.loaded.settings, dict.fromkeys(self._held, VANISHED) | refused)
            await self._order(found)
            acted = found.decision is not None or before != self.running
            status = "rejected" if refused else "applied" if acted else "unchanged"
        self._metrics.config_callbacks(len(self._takers))
        self._metrics.config_reload(status)

    async def _take(self, wanted: Settings) -> dict[str, str]:
        """Apply changed settings to each part; return refused keys with the reason."""
        refused: dict[str, str] = {}
        for taker in self._takers:
            keys = {key for key, _, _ in differing(self.running, wanted)} & taker.keys
            if not keys:
                continue
            try:
                await taker.take(wanted)
            except SizingError as error:
                refused |= dict.fromkeys(keys, str(error))
            else:
                self.running = with_keys(self.running, wanted, taker.keys)
        return refused

    def _report_waiting(self, wanted: Settings, refused: Mapping[str, str]) -> None:
        """Record which settings of the file are not in effect; log them when the list changes."""
        before = self.waiting
        self.waiting = {
            key: Waiting(running, file, refused.get(key) or NOT_LIVE[key])
            for key, running, file in differing(self.running, wanted)
        }
        self._metrics.restart_required(len(self.waiting))
        if self.waiting and self.waiting != before:
            listed = "; ".join(
                f"{key} stays {orjson.dumps(each.running).decode()}, not {orjson.dumps(each.file).decode()} ({each.do})"
                for key, each in self.waiting.items()
            )
            logger.warning("settings file: not applied while running: %s", listed)

    async def _order(self, found: FileChange) -> None:
        """Publish a change of decision settings, based on the previous content of the file.

        If other settings are in force by now, every partition answers with a conflict, and nothing changes.
        """
        if found.decision is not None:
            order = settings_order(found.decision, "the settings file changed", "hot reload", self._clock())
            await self._send([Send("control", None, b"settings", orjson.dumps(order))])


def differing(running: Settings, wanted: Settings) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, running, wanted) of the worker settings that differ, sorted by key."""
    return diff(worker_tree(running), worker_tree(wanted))


def with_keys(running: Settings, wanted: Settings, keys: frozenset[str]) -> Settings:
    """Return the running settings with some dotted keys from `wanted`."""
    tree, values = running.model_dump(), leaves(worker_tree(wanted))
    for key in keys:
        *sections, name = key.split(".")
        section = tree
        for each in sections:
            section = section[each]
        section[name] = values[key]
    return Settings.model_validate(tree)


def rejection(text: str, now_ns: int) -> Send:
    """Return the alert for a settings file that is not valid."""
    body = {
        "alert_id": f"config-rejected-{now_ns}",
        "journal": None,
        "kind": "config_rejected",
        "result": text,
        "severity": "warning",
        "subject": "config",
        "threshold": None,
        "timestamp_ns": now_ns,
        "value": None,
    }
    return Send("alerts", None, b"config", orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
