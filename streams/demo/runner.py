"""The demo: broker, topics, worker, market and signals in one command, and the proof at the end."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from config.settings import Settings
from engines.handlers.effects import FoldResult, Journaled
from engines.pipeline import cache
from engines.pipeline.caps import Limits
from engines.state.partition import State
from schemas.errors import SizingError
from streams.demo import cascade_day
from streams.demo.correlation_tracker import Heat
from streams.demo.dashboard import Board
from streams.demo.environment import PARTITIONS, DemoEnvironment
from streams.demo.host import RunningWorker, hosted
from streams.demo.screen import Screen
from streams.demo.statistics import CascadeHours, DemoStatistics, PolicyAnswers
from streams.history import candles, strategies
from streams.history.candles import Candles
from streams.history.feed import FeedEvent
from streams.history.feeder import Feeder
from streams.history.simulation import Simulation
from streams.kafka.apache_kafka import apache_kafka
from streams.kafka.broker import BrokerProcess, embedded
from streams.kafka.connection import reach
from streams.kafka.verification import verify_cluster
from streams.processing.clock import SECOND_NS, Clock
from streams.stages.sizing import FoldObserver

FACTOR = 3_600
"""One wall second of the live demo is an hour of its market."""
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
    rl: str | None = None
    """`mock`, or the URL of a policy."""


async def run(options: Options, files: Sequence[Candles] = ()) -> dict[str, Any]:
    """Run the whole of it, on the candles of `files` or else a simulated market; return the summary.

    Raises:
        SizingError: something did not start, or the worker died.
    """
    summary: dict[str, Any]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="himari-demo-")))
        broker = (apache_kafka if options.kafka else embedded)(folder)
        stack.callback(broker.stop)
        broker.start()
        await broker.ready()
        settings = _settings(broker, folder, files, options.rl)
        stage = DemoEnvironment(settings, options.seed)
        stack.push_async_callback(stage.close)
        board = Board(_title(options), _limits(settings))
        show = await (_history(stage, options, board, files) if files else _live(stage, options, board))
        summary = await show(stack, folder)
    return summary


def _title(options: Options) -> str:
    kind = "Apache Kafka" if options.kafka else "embedded broker"
    return f"{len(options.data)} files, {kind}" if options.data else f"simulated market, {kind}"


def _settings(broker: BrokerProcess, folder: Path, files: Sequence[Candles], rl: str | None) -> Settings:
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
            "monitoring": {"metrics_port": 0, "web_port": 0, "log_level": "ERROR", "ready_lag_records": 0},
            "validation_criteria": {"max_price_age_s": 2 * width_s},
            "rl": {} if rl is None else _policy(rl),
        }
    )


def _policy(rl: str) -> dict[str, Any]:
    """Return how the policy is asked; a deadline of five wall seconds is five hours of the demo's market."""
    asked: dict[str, Any] = {"enabled": True, "mode": "live", "deadline_s": 5.0 * FACTOR}
    if rl == "mock":
        return {**asked, "protocol": "mock"}
    return {**asked, "protocol": "predict" if rl.endswith("/predict") else "oip", "endpoint": rl}


def _limits(settings: Settings) -> Limits:
    """Return what a portfolio may hold, as the worker will say."""
    state = State(0)
    state.use(settings.decision())
    return cache.limits(state)


# -- the two shows -------------------------------------------------------------------------------------------------
async def _live(stage: DemoEnvironment, options: Options, board: Board) -> Callable[..., Any]:
    """Weeks of history through the feeder, then a live market for so many seconds."""
    simulation = Simulation(options.seed, hours=options.seconds)

    async def show(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
        await stage.lay(simulation.history_start_ns)
        tally = DemoStatistics(board, Heat(stage.settings.decision()))
        loading = asyncio.create_task(asyncio.to_thread(tally.heat.load))
        feeder = _feeder(stage, simulation.history_start_ns)
        past = list(simulation.history())
        await _feed(stage, feeder, past, tally)
        await stage.publish(feeder.close())
        head_start_ns = PROCESS_START_S * SECOND_NS if options.kafka else 0
        clock = Clock(simulation.live_start_ns, FACTOR, time.time_ns() + head_start_ns)
        worker = await stack.enter_async_context(hosted(stage, clock, folder, apart=options.kafka))
        await stack.enter_async_context(_watching(stage, tally, board))
        clock = worker.clock
        with Screen(board) as screen:
            drawing = asyncio.create_task(_draw(screen, tally))
            await _play(stage, worker, clock, simulation.live(), tally)
            await _drain(worker, tally)
            await loading
            drawing.cancel()
            _look(screen, tally)
        await worker.stop()
        return await _summary(stage, tally, [])

    return show


async def _history(
    stage: DemoEnvironment, options: Options, board: Board, files: Sequence[Candles]
) -> Callable[..., Any]:
    """Real candles in event time, as fast as the machine goes."""
    events = list(strategies.feed(files))
    board.total = float(len(events))

    async def show(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
        start_ns = events[0].time_ns
        await stage.lay(start_ns)
        tally = DemoStatistics(board, Heat(stage.settings.decision()))
        loading = asyncio.create_task(asyncio.to_thread(tally.heat.load))
        clock = Clock(start_ns, 1, time.time_ns())
        worker = await stack.enter_async_context(hosted(stage, clock, folder, apart=options.kafka))
        await stack.enter_async_context(_watching(stage, tally, board))
        feeder = _feeder(stage, start_ns)
        with Screen(board) as screen:
            drawing = asyncio.create_task(_draw(screen, tally))
            await _feed(stage, feeder, events, tally, board, worker)
            await stage.publish(feeder.close())
            await _drain(worker, tally)
            await loading
            drawing.cancel()
            _look(screen, tally)
        await worker.stop()
        return await _summary(stage, tally, files)

    return show


def _feeder(stage: DemoEnvironment, start_ns: int) -> Feeder:
    return Feeder(PARTITIONS, PARTITIONS, stage.settings.decision(), start_ns)


async def _feed(
    stage: DemoEnvironment,
    feeder: Feeder,
    events: Sequence[FeedEvent],
    tally: DemoStatistics,
    board: Board | None = None,
    worker: RunningWorker | None = None,
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


async def _play(
    stage: DemoEnvironment, worker: RunningWorker, clock: Clock, events: Iterable[FeedEvent], tally: DemoStatistics
) -> None:
    """Send each event when the clock shows its time."""
    due: list[FeedEvent] = []
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


async def _send_now(stage: DemoEnvironment, due: list[FeedEvent], tally: DemoStatistics) -> None:
    at = time.monotonic()
    for event in due:
        tally.sent(event, at)
    await stage.send(due)


async def _drain(worker: RunningWorker, tally: DemoStatistics) -> None:
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


async def _draw(screen: Screen, tally: DemoStatistics) -> None:
    while True:
        _look(screen, tally)
        await asyncio.sleep(REFRESH_S)


def _look(screen: Screen, tally: DemoStatistics) -> None:
    """Draw what is known at the board's time."""
    tally.board.correlations = tally.heat.at(tally.board.now_ns)
    screen.refresh()


# -- watching ------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def _watching(stage: DemoEnvironment, tally: DemoStatistics, board: Board) -> AsyncIterator[None]:
    """Read allocations, alerts and dead letters as any consumer would."""
    topics = ("allocations", "alerts", "signals.dlq", "outcomes.dlq", "prices.dlq", "cascade-indicators.dlq")
    logical = {stage.names.topic(topic): topic for topic in topics}
    consumer = AIOKafkaConsumer(
        **stage.connection.options(), auto_offset_reset="earliest", enable_auto_commit=False, fetch_max_wait_ms=50
    )
    await reach(consumer, stage.connection)
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


# -- the end --------------------------------------------------------------------------------------------------
async def _summary(stage: DemoEnvironment, tally: DemoStatistics, files: Sequence[Candles]) -> dict[str, Any]:
    """Verify every allocation, and return what there is to report; a candle of a file is named by its opening."""
    hours, answers = CascadeHours(files[0].width_s if files else 0), PolicyAnswers()

    def of_the_market_too(entry: Journaled, folded: FoldResult, elapsed_ns: int) -> None:
        hours.observe(entry, folded, elapsed_ns)
        answers.observe(entry, folded, elapsed_ns)

    def observers(partition: int) -> FoldObserver:
        return answers.observe if partition else of_the_market_too

    verdict = await verify_cluster(stage.connection, stage.names, PARTITIONS, observers=observers)
    return {
        "signals": tally.signals,
        "allocations": verdict.checked,
        "dead_letters": tally.dead_letters,
        "sequence_gaps": tally.sequence_gaps,
        "latency_ms": tally.latency_ms(),
        "audit": verdict.report(),
        "symbols": sorted(tally.symbols),
        "cascade": hours.report(),
        "portfolio": tally.portfolio.report(),
        "policy": answers.report(tally.board),
        "correlation": cascade_day.report(files, hours.worst_day()),
        "data": candles.found(files)._asdict(),
        "skipped_rows": [text for each in files for text in each.skipped],
        "dashboard_url": None,
    }
