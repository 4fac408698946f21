"""The demo: broker, topics, worker, market and signals in one command, and the proof at the end."""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from config.settings import Settings
from engines.effects import Folded, Journaled, Look
from schemas.errors import SizingError
from schemas.words import RECOMMENDATIONS
from streams.cli.audit_commands import verify_all
from streams.clock import ENVIRONMENT, SECOND_NS, Clock
from streams.demo.board import Board
from streams.demo.screen import Screen
from streams.genesis import genesis, new_journal_id
from streams.history import candles, strategies
from streams.history.candles import Candles, Found
from streams.history.feed import Event
from streams.history.feeder import Feeder
from streams.history.simulation import Simulation
from streams.kafka import admin
from streams.kafka.append import Line, append
from streams.kafka.broker import BrokerProcess, embedded
from streams.kafka.connection import Connection, reach
from streams.kafka.jars import apache_kafka
from streams.kafka.origin import begin
from streams.live.worker import prepare
from streams.partitioner import partition_of
from streams.ports import Send
from streams.reader import AllocationReader
from streams.topics import JOURNAL_BYTES_MAX, ROOM, Names

FACTOR = 3_600
"""One wall second of the live demo is an hour of its market."""
PARTITIONS = 2
FEED_CHUNK = 2_000
DRAIN_S = 20.0
PROCESS_START_S = 12
"""What a worker process is given to start before the live market opens."""
REFRESH_S = 0.2


class Options(NamedTuple):
    """What the command line asks for."""

    seconds: int
    data: tuple[Path, ...]
    seed: int
    kafka: bool
    as_json: bool


class Hours:
    """Cascade levels for longs, candle by candle, as the audit computes them again."""

    def __init__(self, width_s: int) -> None:
        self.width_s = width_s
        self.seen = 0
        self.above: list[dict[str, Any]] = []

    def observe(self, entry: Journaled, folded: Folded, _elapsed_ns: int) -> None:
        """Take what a step led to."""
        if entry.kind != "step":
            return
        opened_ns = ((entry.body["step"] + 1) * entry.body["step_s"] - self.width_s) * SECOND_NS
        for look in folded.looks:
            if look.side > 0:
                self.seen += 1
                if look.level:
                    self.above.append(_told(look, opened_ns))

    def report(self) -> dict[str, Any]:
        """Return the share of candles above MONITOR, and each of them by the time it opened."""
        ratio = round(len(self.above) / self.seen, 4) if self.seen else None
        return {"hours_above_monitor_ratio": ratio, "levels": self.above}


def _told(look: Look, time_ns: int) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // SECOND_NS))
    return {
        "symbol": look.symbol,
        "time": moment,
        "level": RECOMMENDATIONS[look.level],
        "score": round(look.score, 4),
    }


class Tally:
    """What the demo has seen: the board for the eyes, and the numbers of the summary."""

    def __init__(self, board: Board, clock: Callable[[], int]) -> None:
        self.board = board
        self.clock = clock
        self.reader = AllocationReader()
        self.sent_at: dict[str, float] = {}
        self.latencies_ms: list[float] = []
        self.answered: set[str] = set()
        self.signals = 0
        self.dead_letters = 0
        self.sequence_gaps = 0
        self.symbols: dict[str, None] = {}
        self.portfolios: dict[str, int] = {}
        self.first_at: float | None = None

    def sent(self, event: Event, at: float | None) -> None:
        """Take note of a record that is sent; `at`: when, where latency is measured."""
        if event.topic != "signals":
            return
        fields = orjson.loads(event.value)
        self.signals += 1
        self.board.signals = self.signals
        self.symbols[fields["symbol"]] = None
        if at is not None:
            self.sent_at[fields["signal_id"]] = at

    def took(self, topic: str, value: bytes) -> None:
        """Take a record of an output topic."""
        if topic == "alerts":
            self.board.alert(orjson.loads(value))
        elif topic == "allocations":
            self._allocation(value)
        else:
            self.dead_letters += 1
            self.board.dead_letters = self.dead_letters

    def _allocation(self, value: bytes) -> None:
        now = time.monotonic()
        taken = self.reader.take(value)
        if taken is None:
            return
        self.first_at = self.first_at or now
        fields = taken.fields
        expected = self.portfolios.get(fields["portfolio_id"], 0) + 1
        self.sequence_gaps += fields["sequence"] != expected
        self.portfolios[fields["portfolio_id"]] = fields["sequence"]
        self.board.take(fields)
        if fields["trigger"]["kind"] == "signal":
            self.answered.add(fields["trigger"]["id"])
            sent_at = self.sent_at.pop(fields["trigger"]["id"], None)
            if sent_at is not None:
                self.latencies_ms.append((now - sent_at) * 1e3)


class Stage:
    """A broker with topics and a journal, and what is needed to talk to it."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.connection = Connection(settings.kafka.bootstrap_servers)
        self.names = Names(settings.topics.prefix)
        self.seed = seed
        self.producer: Any = None

    async def lay(self, start_ns: int) -> None:
        """Create the topics and begin the journal."""
        await admin.apply(self.connection, self.names, PARTITIONS)
        value = genesis(new_journal_id(self.seed), PARTITIONS, self.settings.decision(), start_ns)
        await begin(self.connection, self.names, PARTITIONS, value)
        self.producer = AIOKafkaProducer(
            **self.connection.options(), enable_idempotence=False, max_request_size=JOURNAL_BYTES_MAX + ROOM
        )
        await reach(self.producer, self.connection.bootstrap)

    async def publish(self, sends: Iterable[Send]) -> None:
        """Publish, partition by partition, and wait for the acknowledgements."""
        by_place: dict[TopicPartition, list[Line]] = {}
        for send in sends:
            partition = partition_of(send.key or b"", PARTITIONS) if send.partition is None else send.partition
            place = TopicPartition(self.names.topic(send.topic), partition)
            by_place.setdefault(place, []).append(Line(send.key, send.value, send.headers))
        for place, lines in by_place.items():
            await append(self.producer, place, lines)

    async def send(self, events: Sequence[Event]) -> None:
        """Publish events to their input topics; prices of one moment go in one message a partition."""
        await self.publish(Send(event.topic, None, event.key, event.value) for event in events)

    async def close(self) -> None:
        """Let go of the broker."""
        if self.producer is not None:
            await self.producer.stop()


async def run(options: Options) -> dict[str, Any]:
    """Run the whole of it; return the summary.

    Raises:
        SizingError: something did not start, or the worker died.
    """
    files = [candles.read(path) for path in options.data]
    summary: dict[str, Any]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="himari-demo-")))
        broker = (apache_kafka if options.kafka else embedded)(folder)
        stack.callback(broker.stop)
        broker.start()
        await broker.ready()
        settings = _settings(broker, folder, files)
        stage = Stage(settings, options.seed)
        stack.push_async_callback(stage.close)
        board = Board(_title(options))
        show = await (_history(stage, options, board, files) if files else _live(stage, options, board))
        summary = await show(stack, folder)
    return summary


def _title(options: Options) -> str:
    kind = "Apache Kafka" if options.kafka else "embedded broker"
    return f"{len(options.data)} files, {kind}" if options.data else f"simulated market, {kind}"


def _settings(broker: BrokerProcess, folder: Path, files: list[Candles]) -> Settings:
    """Return the demo's settings: a market of hours is not stale after two minutes."""
    width_s = max((each.width_s for each in files), default=3600)
    return Settings.model_validate(
        {
            "kafka": {
                "bootstrap_servers": f"127.0.0.1:{broker.port}",
                "data_dir": str(folder / "state"),
                "session_timeout_s": 2 if broker.name != "Apache Kafka" else 6,
            },
            "topics": {"partitions": PARTITIONS},
            "monitoring": {"metrics_port": 0, "web_port": 0, "log_level": "ERROR"},
            "validation_criteria": {"max_price_age_s": 2 * width_s},
        }
    )


# -- the two shows -------------------------------------------------------------------------------------------------
async def _live(stage: Stage, options: Options, board: Board) -> Callable[..., Any]:
    """Weeks of history through the feeder, then a live market for so many seconds."""
    simulation = Simulation(options.seed, hours=options.seconds)

    async def show(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
        await stage.lay(simulation.history_start_ns)
        tally = Tally(board, lambda: 0)
        feeder = _feeder(stage, simulation.history_start_ns)
        past = list(simulation.history())
        await _feed(stage, feeder, past, tally)
        await stage.publish(feeder.close())
        head_start_ns = PROCESS_START_S * SECOND_NS if options.kafka else 0
        clock = Clock(simulation.live_start_ns, FACTOR, time.time_ns() + head_start_ns)
        worker = await stack.enter_async_context(_worker(stage, options, clock, folder))
        await stack.enter_async_context(_watching(stage, tally, board))
        clock = worker.clock
        with Screen(board) as screen:
            drawing = asyncio.create_task(_draw(screen))
            await _play(stage, worker, clock, simulation.live(), tally)
            await _drain(worker, tally)
            drawing.cancel()
            screen.refresh()
        await worker.stop()
        return await _summary(stage, tally, Found(0, 0, 0), 0)

    return show


async def _history(stage: Stage, options: Options, board: Board, files: list[Candles]) -> Callable[..., Any]:
    """Real candles in event time, as fast as the machine goes."""
    events = list(strategies.feed(files))
    board.total = float(len(events))

    async def show(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
        start_ns = events[0].time_ns
        await stage.lay(start_ns)
        tally = Tally(board, lambda: 0)
        clock = Clock(start_ns, 1, time.time_ns())
        worker = await stack.enter_async_context(_worker(stage, options, clock, folder))
        await stack.enter_async_context(_watching(stage, tally, board))
        feeder = _feeder(stage, start_ns)
        with Screen(board) as screen:
            drawing = asyncio.create_task(_draw(screen))
            await _feed(stage, feeder, events, tally, board, worker)
            await stage.publish(feeder.close())
            await _drain(worker, tally)
            drawing.cancel()
            screen.refresh()
        await worker.stop()
        return await _summary(stage, tally, candles.found(files), files[0].width_s)

    return show


def _feeder(stage: Stage, start_ns: int) -> Feeder:
    return Feeder(PARTITIONS, PARTITIONS, stage.settings.market.step_s, start_ns)


async def _feed(
    stage: Stage,
    feeder: Feeder,
    events: Sequence[Event],
    tally: Tally,
    board: Board | None = None,
    worker: "RunningWorker | None" = None,
) -> None:
    """Send history to the journal, chunk by chunk."""
    for first in range(0, len(events), FEED_CHUNK):
        chunk = events[first : first + FEED_CHUNK]
        await stage.publish(send for sends in feeder.feed(chunk) for send in sends)
        for event in chunk:
            tally.sent(event, None)
        if board is not None:
            board.done = float(first + len(chunk))
            board.lag = tally.signals - len(tally.answered)
        if worker is not None:
            worker.check()
            while board is not None and tally.signals - len(tally.answered) > 10 * FEED_CHUNK:
                worker.check()
                await asyncio.sleep(0.01)


async def _play(stage: Stage, worker: "RunningWorker", clock: Clock, events: Iterable[Event], tally: Tally) -> None:
    """Send each event when the clock shows its time."""
    due: list[Event] = []
    for event in events:
        if event.time_ns > clock.now_ns() and due:
            await _send_now(stage, due, tally)
            due = []
        wait_s = clock.wall_s_until(event.time_ns)
        if wait_s > 0:
            worker.check()
            await asyncio.sleep(wait_s)
        due.append(event)
    await _send_now(stage, due, tally)


async def _send_now(stage: Stage, due: list[Event], tally: Tally) -> None:
    at = time.monotonic()
    for event in due:
        tally.sent(event, at)
    await stage.send(due)


async def _drain(worker: "RunningWorker", tally: Tally) -> None:
    """Wait until every signal is answered.

    Raises:
        SizingError: some are not after `DRAIN_S` without progress.
    """
    last, since = -1, time.monotonic()
    while len(tally.answered) < tally.signals:
        worker.check()
        if len(tally.answered) != last:
            last, since = len(tally.answered), time.monotonic()
        if time.monotonic() - since > DRAIN_S:
            msg = f"{tally.signals - len(tally.answered)} of {tally.signals} signals were not answered"
            raise SizingError(msg)
        await asyncio.sleep(0.05)


async def _draw(screen: Screen) -> None:
    while True:
        screen.refresh()
        await asyncio.sleep(REFRESH_S)


# -- watching ------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def _watching(stage: Stage, tally: Tally, board: Board) -> AsyncIterator[None]:
    """Read allocations, alerts and dead letters as any consumer would."""
    topics = ("allocations", "alerts", "signals.dlq", "outcomes.dlq", "prices.dlq", "cascade-indicators.dlq")
    logical = {stage.names.topic(topic): topic for topic in topics}
    consumer = AIOKafkaConsumer(
        **stage.connection.options(), auto_offset_reset="earliest", enable_auto_commit=False, fetch_max_wait_ms=50
    )
    await reach(consumer, stage.connection.bootstrap)
    consumer.assign([TopicPartition(topic, partition) for topic in logical for partition in range(PARTITIONS)])

    async def watch() -> None:
        while True:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    tally.took(logical[place.topic], record.value or b"")
            board.lag = max(0, tally.signals - len(tally.answered))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await consumer.stop()


# -- the worker ----------------------------------------------------------------------------------------------------
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
async def _worker(stage: Stage, options: Options, clock: Clock, folder: Path) -> AsyncIterator[RunningWorker]:
    """Start a worker; it is ready when this returns. A live clock begins then."""
    started = RunningWorker(clock)
    try:
        if options.kafka:
            await _start_process(started, stage, folder)
        else:
            await _start_here(started, stage)
        yield started
    finally:
        with suppress(Exception):
            await started.stop()


async def _start_here(started: RunningWorker, stage: Stage) -> None:
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


async def _start_process(started: RunningWorker, stage: Stage, folder: Path) -> None:
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


# -- the end -------------------------------------------------------------------------------------------------------
async def _summary(stage: Stage, tally: Tally, found: Found, width_s: int) -> dict[str, Any]:
    """Verify every allocation, and return what there is to report; a candle of `width_s` is named by its opening."""
    hours = Hours(width_s)
    verdict = await verify_all(stage.settings, observe=hours.observe)
    latencies = sorted(tally.latencies_ms)
    return {
        "signals": tally.signals,
        "allocations": verdict.checked,
        "dead_letters": tally.dead_letters,
        "sequence_gaps": tally.sequence_gaps,
        "latency_ms": {"p50": _quantile(latencies, 0.5), "p99": _quantile(latencies, 0.99)},
        "audit": verdict.report(),
        "symbols": sorted(tally.symbols),
        "cascade": hours.report(),
        "data": found._asdict(),
        "dashboard_url": None,
    }


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


__all__ = ["Options", "run"]
