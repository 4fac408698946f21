"""A worker: the topology live on Faust, its clock, its watch on the settings file, its metrics and its web pages."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faust
import orjson
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from config.diff import diff
from config.settings import Settings, decision_tree, settings_hash
from config.watch import Change, Rejected, Watch
from streams.control import settings_order
from streams.ingest import ingest
from streams.journal import Place
from streams.kafka import admin
from streams.kafka.connection import Connection, listens, unreachable
from streams.kafka.orders import settings_in_force
from streams.kafka.origin import Origin, origin
from streams.kafka.sources import epochs, refuse_recreated
from streams.live.application import Owned, new_app, own
from streams.live.serve import serve
from streams.live.tables import FaustPorts, make_tables
from streams.monitoring.diagnostics import describe
from streams.monitoring.metrics import Metrics
from streams.monitoring.web import Views, Web
from streams.ports import Send
from streams.processor import Processor
from streams.sizing import SizingFold
from streams.topics import Names
from streams.topology import TOPOLOGY, Context, IngestStage, Stage, Timed

logger = logging.getLogger(__name__)

TELL_TIME_S = 0.25
EMBEDDED_WAIT_MS = 50
"""The embedded broker looks through all batches of a partition within a fetch's wait, and gives up when it ends."""
BROKER_LOOK_S = 2.0
BROKER_PATIENCE_S = 20.0
"""A broker that is gone for so long ends the worker: exit 6."""
IDLE_S = 1.0
"""A journal partition without an entry for so long (wall time) gets a tick."""


class Kept(NamedTuple):
    """A partition that this worker folds."""

    stage: Stage
    fold: Timed
    processor: Processor


class StageOwner(Owned):
    """The partitions of one stage, and when each last had a record."""

    def __init__(
        self, app: faust.App, stage: Stage, make: Callable[[Stage, int], Kept], forget: Callable[[str, int], None]
    ) -> None:
        """Own `stage`'s partitions; `make` builds one, `forget` is told of one that is another's now."""
        self.stage = stage
        self.forget = forget
        self.kept: dict[int, Kept] = {}
        self.busy_at: dict[int, float] = {}

        def processor(partition: int) -> Processor:
            kept = self.kept[partition] = make(stage, partition)
            self.busy_at[partition] = time.monotonic()
            return kept.processor

        super().__init__(app, processor)

    async def revoked(self, partition: int) -> None:
        """Let a partition go."""
        await super().revoked(partition)
        self.forget(self.stage.name, partition)

    async def take(self, event: Any) -> None:
        """Take a chunk; note that the partition is not idle."""
        await super().take(event)
        self.busy_at[event.message.partition] = time.monotonic()

    async def tell_time(self, now_ns: int) -> None:
        """Let each fold act on the time that has passed."""
        await asyncio.gather(*(self._tell(partition, now_ns) for partition in sorted(self.processors)))

    async def _tell(self, partition: int, now_ns: int) -> None:
        if self.stage.idle_tick and time.monotonic() - self.busy_at[partition] < IDLE_S:
            return
        fold = self.kept[partition].fold
        await self.act(partition, partial(fold.elapse, now_ns))
        self.busy_at[partition] = time.monotonic()


class Worker:
    """One process of the group. `run` returns its exit code."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        clock: Callable[[], int],
        embedded: bool,
        began: Origin,
        epochs_known: dict[str, int],
        watch: Watch | None = None,
    ) -> None:
        """Build the application; nothing runs yet."""
        self.settings, self.connection, self.clock, self.watch = settings, connection, clock, watch
        self.names = Names(settings.topics.prefix)
        self.metrics = Metrics(clock=clock)
        self.began, self.epochs = began, epochs_known
        self.step_s = began.params.market.step_s
        self._in_force = ""
        """Hash of the decision settings in force, as the partitions here know it; "" before the first one does."""
        headers = (("himari.version", began.version.encode()),)
        self.context = Context(settings.topics.partitions, lambda: self.step_s, clock, self.metrics, headers)
        self.app = new_app(
            self.names,
            connection,
            data_dir=Path(settings.kafka.data_dir),
            batched=[stage.source for stage in TOPOLOGY],
            sparse=[stage.source for stage in TOPOLOGY if not (isinstance(stage, Stage) and stage.contiguous)],
            idempotent=not embedded,
            chunk_records=settings.kafka.chunk_records,
            fetch_max_wait_ms=max(settings.kafka.fetch_max_wait_ms, EMBEDDED_WAIT_MS if embedded else 0),
            session_timeout_s=settings.kafka.session_timeout_s,
        )
        self.owners = [self._own(stage) for stage in TOPOLOGY if isinstance(stage, Stage)]
        for stage in TOPOLOGY:
            if isinstance(stage, IngestStage):
                self._take_in(stage)

    # -- building --------------------------------------------------------------------------------------------------
    def _own(self, stage: Stage) -> StageOwner:
        tables = make_tables(self.app, stage.source)

        def make(stage: Stage, partition: int) -> Kept:
            ports = FaustPorts(
                self.app,
                tables,
                connection=self.connection,
                names=self.names,
                source=stage.source,
                partition=partition,
            )
            fold = stage.fold(self.context, partition)
            processor = Processor(
                fold,
                ports,
                partition=partition,
                clock=time.monotonic_ns,
                checkpoint_entries=self.settings.kafka.checkpoint_entries,
                checkpoint_interval_ns=int(self.settings.kafka.checkpoint_interval_s * 1e9),
                contiguous=stage.contiguous,
                observer=self.metrics.processor(stage.name, partition),
            )
            return Kept(stage, fold, processor)

        owner = StageOwner(self.app, stage, make, self.metrics.forget)
        own(self.app, self.names.topic(stage.source), owner)
        return owner

    def _take_in(self, stage: IngestStage) -> None:
        """Give a source topic its ingest agent: a chunk is journaled whole before it is acknowledged."""
        topic = self.names.topic(stage.source)
        channel = self.app.topic(topic, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

        async def take_in(stream: faust.StreamT) -> None:
            async for event in stream.noack().events():
                await self.send(self._entries(stage.source, event.message.partition, event.value))
                event.ack()

        self.app.agent(channel, name=f"{topic}-ingest")(take_in)

    def _entries(self, source: str, partition: int, records: list[Any]) -> list[Send]:
        epoch, now_ns = self.epochs.get(source, 0), self.clock()
        sends: list[Send] = []
        for record in records:
            place = Place(source, epoch, partition, record.offset)
            sends += ingest(place, record, now_ns, self.settings.topics.partitions)
        self.metrics.dead_letters(sends)
        return sends

    async def send(self, sends: list[Send]) -> None:
        """Publish in order, and wait for the acknowledgement."""
        if sends:
            ports = FaustPorts(
                self.app, {}, connection=self.connection, names=self.names, source="journal", partition=0
            )
            await ports.send(sends)

    # -- running ---------------------------------------------------------------------------------------------------
    async def run(self, stop: asyncio.Event | None = None) -> int:
        """Run until a signal, `stop` or a crash; return the exit code."""
        web = self._web()
        await web.start()
        self._chores = [
            asyncio.create_task(chore) for chore in (self._tell_time(), self._follow_settings(), self._watch_broker())
        ]
        for chore in self._chores:
            chore.add_done_callback(self._chore_ended)
        try:
            return await serve(self.app, stop=stop, before_stop=self._last_checkpoints)
        finally:
            self._end_chores()
            await web.stop()

    def _web(self) -> Web:
        monitoring = self.settings.monitoring
        views = Views(self.metrics.registry, self.state, self.not_ready)
        metrics_port = monitoring.metrics_port if monitoring.metrics_enabled else None
        return Web(
            views,
            host=monitoring.web_host,
            port=monitoring.web_port,
            metrics_port=metrics_port,
            metrics_host=monitoring.metrics_host,
        )

    def _chore_ended(self, chore: asyncio.Task[None]) -> None:
        error = None if chore.cancelled() else chore.exception()
        if error is not None:
            self._crashing = asyncio.ensure_future(self.app.crash(error))

    def _end_chores(self) -> None:
        for chore in self._chores:
            chore.cancel()

    async def _last_checkpoints(self) -> None:
        self._end_chores()
        for owner in self.owners:
            await owner.checkpoint()

    async def _tell_time(self) -> None:
        while True:
            await asyncio.sleep(TELL_TIME_S)
            await asyncio.gather(*(owner.tell_time(self.clock()) for owner in self.owners))
            for offset, fold in self._sizing():
                if fold.state.progress is not None:
                    self.step_s = fold.state.params.market.step_s
                    self._in_force = fold.state.settings_hash
                self._tell_lag(fold.state.partition, offset)

    def _tell_lag(self, partition: int, offset: int) -> None:
        end = self.app.consumer.highwater(TP(self.names.topic("journal"), partition))
        if end is not None:
            self.metrics.lag(partition, max(0, end - 1 - offset))

    async def _watch_broker(self) -> None:
        """Stop the worker when no broker is there for long: it could only wait, and its owner should know.

        Raises:
            BrokerUnreachable: after `BROKER_PATIENCE_S`.
        """
        gone_since: float | None = None
        while True:
            await asyncio.sleep(BROKER_LOOK_S)
            if await listens(self.connection):
                gone_since = None
                continue
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since >= BROKER_PATIENCE_S:
                raise unreachable(self.connection.bootstrap, BROKER_PATIENCE_S)

    async def _follow_settings(self) -> None:
        """Turn each change of the settings file into one control record; a bad file changes nothing.

        A file is believed when two looks find the same, so there are two looks an interval.
        """
        if self.watch is None or not self.settings.hot_reload.enabled:
            return
        while True:
            await asyncio.sleep(self.settings.hot_reload.poll_interval_sec / 2)
            found = self.watch.poll()
            if found is not None:
                await self._settings_changed(found)

    async def _settings_changed(self, found: Change | Rejected) -> None:
        if isinstance(found, Rejected):
            logger.error("settings file rejected, nothing changes: %s", found.error)
            await self.send([_rejection(str(found.error), self.clock())])
        else:
            logging.getLogger().setLevel(found.loaded.settings.monitoring.log_level)
            if found.decision is not None:
                based = found.decision | {"base_hash": self._in_force or found.decision["base_hash"]}
                order = settings_order(based, "the settings file changed", "hot reload", self.clock())
                await self.send([Send("control", None, b"settings", orjson.dumps(order))])
        self.metrics.config_callbacks(len(self.owners))
        self.metrics.config_reload("rejected" if isinstance(found, Rejected) else "applied")

    # -- looking ---------------------------------------------------------------------------------------------------
    def _sizing(self) -> list[tuple[int, SizingFold]]:
        """Return the journal partitions that are folded here: offset folded up to, and the fold."""
        kept = [owner.kept[partition] for owner in self.owners for partition in sorted(owner.processors)]
        return [(each.processor.offset, each.fold) for each in kept if isinstance(each.fold, SizingFold)]

    def not_ready(self) -> str:
        """Return why no decisions are made here yet, "" once every partition that was assigned is recovered."""
        waiting = []
        try:
            all_assigned = self.app.consumer.assignment()
        except ConsumerNotStarted:
            return "the consumer has not started"
        for owner in self.owners:
            topic = self.names.topic(owner.stage.source)
            assigned = sorted(tp.partition for tp in all_assigned if tp.topic == topic)
            if not assigned:
                waiting.append(f"{topic}: no partition assigned")
            waiting += [f"{topic}[{p}]: recovering" for p in assigned if p not in owner.processors]
        return "; ".join(waiting)

    def state(self) -> dict[str, Any]:
        """Return the diagnostics of all partitions that are sized here."""
        return {
            "journal_id": self.began.journal_id,
            "partitions": [{"offset": offset, **describe(fold.state)} for offset, fold in self._sizing()],
        }


async def prepare(
    settings: Settings, connection: Connection, clock: Callable[[], int], watch: Watch | None = None
) -> Worker:
    """Look at the broker, and return a worker that can run there.

    Raises:
        BrokerUnreachable, TopicsUnfit: what to start, or what to run.
        ProcessorStopped: a source topic was created anew.
    """
    names = Names(settings.topics.prefix)
    await admin.require(connection, names, settings.topics.partitions, settings.topics.replication)
    began = await origin(connection, names, settings.topics.partitions)
    in_force = await settings_in_force(connection, names)
    if settings_hash(in_force) != settings_hash(decision_tree(settings)):
        keys = ", ".join(key for key, _, _ in diff(in_force, decision_tree(settings)))
        logger.warning(
            "the journal's decision settings stay in force; these here differ: %s (himari config apply)", keys
        )
    known = await epochs(connection, names)
    await refuse_recreated(connection, names, settings.topics.partitions, known)
    embedded = await admin.embedded(connection)
    return Worker(settings, connection, clock=clock, embedded=embedded, began=began, epochs_known=known, watch=watch)


def _rejection(text: str, now_ns: int) -> Send:
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
