"""A worker: the topology live on Faust, with its clock, watchdog, settings reload, metrics and web pages."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from faust.types import TP

from config.diff import diff
from config.settings import Settings, decision_tree
from config.watch import FileWatch
from engines.parameters import DecisionParams, settings_hash
from engines.pipeline import aggregation
from streams.journal.entries import SourcePlace
from streams.journal.topics import Names
from streams.kafka import admin
from streams.kafka.connection import Connection, listens, unreachable
from streams.kafka.journal_origin import Origin, origin
from streams.kafka.orders import settings_in_force
from streams.kafka.sources import epochs, refuse_recreated, take_part
from streams.monitoring.diagnostics import describe
from streams.monitoring.metrics import Metrics
from streams.monitoring.policy import PolicyMetrics
from streams.processing import crashpoints
from streams.processing.ports import Send
from streams.processing.processor import Processor
from streams.processing.writable import writable_folder
from streams.stages.ingest import ingest
from streams.stages.sizing import SizingFold
from streams.stages.topology import POLICY, TOPOLOGY, Context, IngestStage, Stage
from streams.worker.application import new_app, own
from streams.worker.faust_ports import FaustPorts, make_tables
from streams.worker.hot_reload import Reload, Taker
from streams.worker.liveness import Vitals
from streams.worker.pages import WorkerPages, address
from streams.worker.partition_owners import OwnedPartition, StageOwner
from streams.worker.policy import KEYS as POLICY_KEYS
from streams.worker.policy import WorkerPolicy, ask_on
from streams.worker.run import serve
from streams.worker.stall_detector import Vital
from streams.worker.watchdog_thread import Watchman

logger = logging.getLogger(__name__)

ELAPSE_S = 0.25
EMBEDDED_WAIT_MS = 50
"""The embedded broker scans all batches of a partition within the fetch wait, and gives up when it is over."""
BROKER_LOOK_S = 2.0
BROKER_PATIENCE_S = 20.0
"""A broker that is unreachable for this long stops the worker with exit code 6."""
READ_AT_EACH_USE = frozenset(
    {"hot_reload.enabled", "hot_reload.poll_interval_sec", "monitoring.stuck_after_s", "monitoring.ready_lag_records"}
)
PAGES = ("metrics_enabled", "metrics_host", "metrics_port", "web_host", "web_port")


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
        watch: FileWatch | None = None,
    ) -> None:
        """Build the application; nothing runs yet."""
        self.connection, self.clock = connection, clock
        self.names = Names(settings.topics.prefix)
        self.metrics = Metrics(clock=clock)
        self.began, self.epochs, self.params, self._embedded = began, epochs_known, began.params, embedded
        self._in_force = ""
        """Hash of the decision settings in force, from the partitions folded here; "" before the first recovery."""
        headers = (("himari.version", began.version.encode()),)
        self.reload = Reload(
            settings,
            watch,
            takers=self._takers(),
            send=self.send,
            metrics=self.metrics,
            clock=clock,
            in_force=lambda: self._in_force,
        )
        ahead_ns = int(settings.kafka.max_ahead_s * 1e9)
        self.context = Context(settings.topics.partitions, lambda: self.params, clock, self.metrics, headers, ahead_ns)
        self.app = self._new_app(settings)
        self.owners: list[StageOwner] = []
        self.vitals = Vitals(
            self.app,
            connection,
            self.names,
            [stage.source for stage in TOPOLOGY],
            self.owners,
            patience_s=lambda: self.settings.monitoring.stuck_after_s,
            lag_records=lambda: self.settings.monitoring.ready_lag_records,
        )
        self.watchman = Watchman(self._vitals, lambda: self.settings.monitoring.stuck_after_s, self._crash)
        self.owners += [self._own(stage) for stage in TOPOLOGY if isinstance(stage, Stage)]
        for stage in TOPOLOGY:
            if isinstance(stage, IngestStage):
                self._take_in(stage)
        self.policy = WorkerPolicy(settings, clock=clock, send=self.send, metrics=PolicyMetrics(self.metrics))
        ask_on(self.app, self.names.topic(POLICY.source), self.policy.agent)
        self.pages = WorkerPages(self, settings)

    @property
    def settings(self) -> Settings:
        """The settings that this worker runs with; its file may differ (see `reload.waiting`)."""
        return self.reload.running

    # -- building --------------------------------------------------------------------------------------------------
    def _new_app(self, settings: Settings) -> faust.App:
        return new_app(
            self.names,
            self.connection,
            data_dir=Path(settings.kafka.data_dir),
            batched=[stage.source for stage in TOPOLOGY],
            sparse=[stage.source for stage in TOPOLOGY if not (isinstance(stage, Stage) and stage.contiguous)],
            idempotent=not self._embedded,
            chunk_records=settings.kafka.chunk_records,
            fetch_max_wait_ms=self._fetch_wait_ms(settings),
            session_timeout_s=settings.kafka.session_timeout_s,
            canonical_url=address(settings),
        )

    def _own(self, stage: Stage) -> StageOwner:
        tables = make_tables(self.app, stage.source)

        def make(stage: Stage, partition: int) -> OwnedPartition:
            ports = FaustPorts(
                self.app,
                tables,
                connection=self.connection,
                names=self.names,
                source=stage.source,
                partition=partition,
                waits=self.vitals.waits,
            )
            fold = stage.fold(self.context, partition)
            entries, interval_ns = _checkpoint_policy(self.settings)
            processor = Processor(
                fold,
                ports,
                partition=partition,
                clock=time.monotonic_ns,
                checkpoint_entries=entries,
                checkpoint_interval_ns=interval_ns,
                contiguous=stage.contiguous,
                observer=self.metrics.processor(stage.name, partition),
                owns_partition=self._owns_partitions,
            )
            return OwnedPartition(stage, fold, processor, ports)

        owner = StageOwner(self.app, stage, make, self.metrics.forget)
        own(self.app, self.names.topic(stage.source), owner)
        return owner

    def _owns_partitions(self) -> bool:
        return bool(self.app.consumer.surely_owns())

    def _take_in(self, stage: IngestStage) -> None:
        """Create the ingest agent of a source topic: a whole chunk is journaled before it is acknowledged."""
        topic = self.names.topic(stage.source)
        channel = self.app.topic(topic, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

        async def take_in(stream: faust.StreamT) -> None:
            async for event in stream.noack().events():
                await self.send(self._entries(stage.source, event.message.partition, event.value))
                crashpoints.at("ingested")
                event.ack()

        self.app.agent(channel, name=f"{topic}-ingest")(take_in)

    def _entries(self, source: str, partition: int, records: list[Any]) -> list[Send]:
        epoch, now_ns = self.epochs.get(source, 0), self.clock()
        sends: list[Send] = []
        for record in records:
            place = SourcePlace(source, epoch, partition, record.offset)
            sends += ingest(place, record, now_ns, self.settings.topics.partitions)
        self.metrics.dead_letters(sends)
        return sends

    async def send(self, sends: list[Send]) -> None:
        """Publish in order; return when all are acknowledged."""
        if sends:
            ports = FaustPorts(
                self.app,
                {},
                connection=self.connection,
                names=self.names,
                source="journal",
                partition=0,
                waits=self.vitals.waits,
            )
            await ports.send(sends)

    # -- running ---------------------------------------------------------------------------------------------------
    @property
    def page_url(self) -> str:
        """Address of the page for browsers; "" before it is served."""
        return self.pages.url

    async def run(self, stop: asyncio.Event | None = None) -> int:
        """Run until a signal, `stop` or a crash; return the exit code."""
        await self.watchman.start()
        try:
            await self.watchman.run(self.pages.start())
            return await self._run(stop)
        finally:
            await self.watchman.run(self.pages.stop())
            await self.watchman.stop()

    async def _run(self, stop: asyncio.Event | None) -> int:
        self._tasks = [
            asyncio.create_task(job)
            for job in (
                asyncio.to_thread(aggregation.warm),
                self._elapse(),
                self._follow_folds(),
                self.reload.follow(),
                self._watch_broker(),
                self.vitals.follow_ends(),
                self.watchman.pulse(),
                self.policy.run(),
            )
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        try:
            return await serve(self.app, stop=stop, before_stop=self._last_checkpoints)
        finally:
            self._end_tasks()
            await self.policy.stop()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        self._crashing = asyncio.ensure_future(self.app.crash(error))

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _last_checkpoints(self) -> None:
        self._end_tasks()
        for owner in self.owners:
            await owner.checkpoint()

    async def _elapse(self) -> None:
        while True:
            await asyncio.sleep(ELAPSE_S)
            await asyncio.gather(*(owner.elapse(self.clock()) for owner in self.owners))

    async def _follow_folds(self) -> None:
        """Take the settings that the folds have, and report how far they are; does not wait for a chunk."""
        while True:
            await asyncio.sleep(ELAPSE_S)
            for offset, fold in self.sizing():
                if fold.state.progress is not None:
                    self.params = fold.state.params
                    self._in_force = fold.state.settings_hash
                lag = self.vitals.lag(TP(self.names.topic("journal"), fold.state.partition), offset + 1)
                if lag is not None:
                    self.metrics.lag(fold.state.partition, lag)

    async def _watch_broker(self) -> None:
        """Stop the worker if no broker is reachable for long, so that its supervisor notices.

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

    # -- settings applied while running --------------------------------------------------------------------------------
    def _takers(self) -> tuple[Taker, ...]:
        """Return the parts that apply worker settings; every key belongs to one of them or to `reload.NOT_LIVE`."""
        return (
            Taker(frozenset({"monitoring.log_level"}), _log),
            Taker(frozenset(f"monitoring.{name}" for name in PAGES), self._move_pages),
            Taker(frozenset({"kafka.checkpoint_entries", "kafka.checkpoint_interval_s"}), self._set_checkpoints),
            Taker(frozenset({"kafka.fetch_max_wait_ms", "kafka.chunk_records"}), self._set_fetch),
            Taker(READ_AT_EACH_USE, _read_at_each_use),
            Taker(POLICY_KEYS, self._change_policy),
        )

    async def _move_pages(self, settings: Settings) -> None:
        await self.watchman.run(self.pages.move(settings))

    async def _change_policy(self, settings: Settings) -> None:
        await self.policy.change(settings)

    async def _set_checkpoints(self, settings: Settings) -> None:
        """Apply the checkpoint settings from the next chunk on."""
        for owner in self.owners:
            for processor in owner.processors.values():
                processor.set_checkpoint_policy(*_checkpoint_policy(settings))

    async def _set_fetch(self, settings: Settings) -> None:
        """Apply the fetch settings from the next fetch on."""
        self.app.transport.retune(self._fetch_wait_ms(settings), settings.kafka.chunk_records)

    def _fetch_wait_ms(self, settings: Settings) -> int:
        return max(settings.kafka.fetch_max_wait_ms, EMBEDDED_WAIT_MS if self._embedded else 0)

    # -- health ----------------------------------------------------------------------------------------------------
    def sizing(self) -> list[tuple[int, SizingFold]]:
        """Return the journal partitions folded here: last offset folded, and the fold."""
        kept = [owner.kept[partition] for owner in self.owners for partition in sorted(owner.processors)]
        return [(each.processor.offset, each.fold) for each in kept if isinstance(each.fold, SizingFold)]

    def _vitals(self) -> tuple[Vital, ...]:
        """Return the vitals of all parts, and update the health metrics."""
        stalled_s = max((stall.stalled_s for stall in self.watchman.stalls), default=0.0)
        self.metrics.health(stalled_s, ready=not self.not_ready())
        return self.vitals.all()

    def not_ready(self) -> dict[str, str]:
        """Return, by part, why no decisions are made here, or not in time; empty for a healthy worker."""
        return self.vitals.not_ready() | self.watchman.suspects()

    def state(self) -> dict[str, Any]:
        """Return the diagnostics of all partitions sized here."""
        return {
            "journal_id": self.began.journal_id,
            "restart_required": {key: waiting._asdict() for key, waiting in self.reload.waiting.items()},
            "partitions": [{"offset": offset, **describe(fold.state)} for offset, fold in self.sizing()],
        }


async def prepare(
    settings: Settings, connection: Connection, clock: Callable[[], int], watch: FileWatch | None = None
) -> Worker:
    """Check the broker; return a worker that can run on it.

    Raises:
        ConfigurationException: `kafka.data_dir` cannot be written to.
        BrokerUnreachable, TopicsUnfit: the text says what to start or what to run.
        BrokerUntrusted, LoginRefused, NotAllowed: a certificate, the login or permissions are refused.
        ProcessorStopped: a source topic was recreated.
    """
    writable_folder(Path(settings.kafka.data_dir), "settings", "kafka.data_dir")
    names = Names(settings.topics.prefix)
    await admin.require(connection, names, settings.topics.partitions, settings.topics.replication)
    await take_part(connection, names)
    began, in_force, known, embedded = await asyncio.gather(
        origin(connection, names, settings.topics.partitions),
        settings_in_force(connection, names),
        epochs(connection, names),
        admin.embedded(connection),
    )
    if settings_hash(in_force) != settings_hash(decision_tree(settings)):
        keys = ", ".join(key for key, _, _ in diff(in_force, decision_tree(settings)))
        logger.warning(
            "the journal's decision settings stay in force; the settings file differs in: %s (himari config apply)",
            keys,
        )
    await refuse_recreated(connection, names, settings.topics.partitions, known)
    made = Worker(settings, connection, clock=clock, embedded=embedded, began=began, epochs_known=known, watch=watch)
    made.params = DecisionParams.model_validate(in_force)
    return made


async def _log(settings: Settings) -> None:
    logging.getLogger().setLevel(settings.monitoring.log_level)


async def _read_at_each_use(_settings: Settings) -> None:
    """Do nothing: they are read at each use."""


def _checkpoint_policy(settings: Settings) -> tuple[int, int]:
    """Return when a checkpoint is due: entries, and ns."""
    return settings.kafka.checkpoint_entries, int(settings.kafka.checkpoint_interval_s * 1e9)
