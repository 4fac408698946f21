"""The demo: broker, topics, worker, market and signals in one command, and an audit at the end."""

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
from streams.demo.correlation_tracker import CorrelationTracker
from streams.demo.dashboard import Dashboard
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
"""Wall seconds a separate worker process gets to start before the live market opens."""
REFRESH_S = 0.2


class Options(NamedTuple):
    """The demo's command-line options."""

    seconds: int
    data: tuple[Path, ...]
    seed: int
    kafka: bool
    as_json: bool
    rl: str | None = None
    """`mock`, or the URL of a policy; None asks no policy."""
    page: Callable[[str], None] | None = None
    """Called with the address of the page once it is served."""


async def run(options: Options, files: Sequence[Candles] = ()) -> dict[str, Any]:
    """Run the demo on the candles of `files`, or else on a simulated market; return its summary.

    Raises:
        SizingError: broker or worker did not start, or the worker stopped.
    """
    summary: dict[str, Any]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="himari-demo-")))
        broker = (apache_kafka if options.kafka else embedded)(folder)
        stack.callback(broker.stop)
        broker.start()
        await broker.ready()
        settings = _settings(broker, folder, files, options.rl)
        environment = DemoEnvironment(settings, options.seed)
        stack.push_async_callback(environment.close)
        dashboard = Dashboard(_title(options), _limits(settings))
        show = await (
            _history(environment, options, dashboard, files) if files else _live(environment, options, dashboard)
        )
        summary = await show(stack, folder)
    return summary


def _title(options: Options) -> str:
    kind = "Apache Kafka" if options.kafka else "embedded broker"
    return f"{len(options.data)} files, {kind}" if options.data else f"simulated market, {kind}"


def _settings(broker: BrokerProcess, folder: Path, files: Sequence[Candles], rl: str | None) -> Settings:
    """Return the demo's settings; prices may be as old as two candles, since they come hourly."""
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
    """Return the policy settings; the deadline of five wall seconds is five hours of the demo's market."""
    asked: dict[str, Any] = {"enabled": True, "mode": "live", "deadline_s": 5.0 * FACTOR}
    if rl == "mock":
        return {**asked, "protocol": "mock"}
    return {**asked, "protocol": "predict" if rl.endswith("/predict") else "oip", "endpoint": rl}


def _limits(settings: Settings) -> Limits:
    """Return the portfolio limits that the settings give."""
    state = State(0)
    state.use(settings.decision())
    return cache.limits(state)


# -- the two modes -------------------------------------------------------------------------------------------------
async def _live(environment: DemoEnvironment, options: Options, dashboard: Dashboard) -> Callable[..., Any]:
    """Replay weeks of simulated history through the feeder, then run a live market for `options.seconds`.

    The live clock starts when worker, reader and correlation panel have processed the history: a signal sent while
    they still work through it would wait for them, and its latency would measure the start-up.
    """
    simulation = Simulation(options.seed, hours=options.seconds)

    async def show(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
        await environment.create(simulation.history_start_ns)
        stats = DemoStatistics(dashboard, CorrelationTracker(environment.settings.decision()))
        loading = asyncio.create_task(asyncio.to_thread(stats.correlations.load))
        feeder = _feeder(environment, simulation.history_start_ns)
        past = list(simulation.history())
        await _feed(environment, feeder, past, stats)
        await environment.publish(feeder.close())
        head_start_ns = PROCESS_START_S * SECOND_NS if options.kafka else 0
        clock = Clock(simulation.live_start_ns, FACTOR, time.time_ns() + head_start_ns)
        worker = await stack.enter_async_context(hosted(environment, clock, folder, apart=options.kafka))
        _say_page(options, worker)
        await stack.enter_async_context(_watching(environment, stats, dashboard))
        await loading
        await _drain(worker, stats)
        with Screen(dashboard) as screen:
            _look(screen, stats)
            drawing = asyncio.create_task(_draw(screen, stats))
            await _play(environment, worker, worker.start_clock(), simulation.live(), stats)
            await _drain(worker, stats)
            drawing.cancel()
            _look(screen, stats)
        await worker.stop()
        return await _summary(environment, stats, [], worker.page_url)

    return show


async def _history(
    environment: DemoEnvironment, options: Options, dashboard: Dashboard, files: Sequence[Candles]
) -> Callable[..., Any]:
    """Replay candle files in event time, as fast as the machine allows."""
    events = list(strategies.feed(files))
    dashboard.total = float(len(events))

    async def show(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
        start_ns = events[0].time_ns
        await environment.create(start_ns)
        stats = DemoStatistics(dashboard, CorrelationTracker(environment.settings.decision()))
        loading = asyncio.create_task(asyncio.to_thread(stats.correlations.load))
        clock = Clock(start_ns, 1, time.time_ns())
        worker = await stack.enter_async_context(hosted(environment, clock, folder, apart=options.kafka))
        _say_page(options, worker)
        await stack.enter_async_context(_watching(environment, stats, dashboard))
        feeder = _feeder(environment, start_ns)
        with Screen(dashboard) as screen:
            drawing = asyncio.create_task(_draw(screen, stats))
            await _feed(environment, feeder, events, stats, dashboard, worker)
            await environment.publish(feeder.close())
            await _drain(worker, stats)
            await loading
            drawing.cancel()
            _look(screen, stats)
        await worker.stop()
        return await _summary(environment, stats, files, worker.page_url)

    return show


def _say_page(options: Options, worker: RunningWorker) -> None:
    if options.page is not None and worker.page_url:
        options.page(worker.page_url)


def _feeder(environment: DemoEnvironment, start_ns: int) -> Feeder:
    return Feeder(PARTITIONS, PARTITIONS, environment.settings.decision(), start_ns)


async def _feed(
    environment: DemoEnvironment,
    feeder: Feeder,
    events: Sequence[FeedEvent],
    stats: DemoStatistics,
    dashboard: Dashboard | None = None,
    worker: RunningWorker | None = None,
) -> None:
    """Write history to the journal in chunks."""
    for first in range(0, len(events), FEED_CHUNK):
        chunk = events[first : first + FEED_CHUNK]
        await environment.publish(send for sends in feeder.feed(chunk) for send in sends)
        for event in chunk:
            stats.sent(event, None)
        if dashboard is not None:
            dashboard.done = float(first + len(chunk))
            dashboard.lag = stats.signals - len(stats.answered)
        if worker is not None:
            worker.check()
            while dashboard is not None and stats.signals - len(stats.answered) > 10 * FEED_CHUNK:
                worker.check()
                await asyncio.sleep(0.01)


async def _play(
    environment: DemoEnvironment,
    worker: RunningWorker,
    clock: Clock,
    events: Iterable[FeedEvent],
    stats: DemoStatistics,
) -> None:
    """Send each event when the clock shows its time."""
    due: list[FeedEvent] = []
    for event in events:
        if event.time_ns > clock.now_ns() and due:
            await _send_now(environment, due, stats)
            due = []
        wait_s = clock.wall_s_until(event.time_ns)
        if wait_s > 0:
            worker.check()
            await asyncio.sleep(wait_s)
        due.append(event)
    await _send_now(environment, due, stats)


async def _send_now(environment: DemoEnvironment, due: list[FeedEvent], stats: DemoStatistics) -> None:
    at = time.monotonic()
    for event in due:
        stats.sent(event, at)
    await environment.send(due)


async def _drain(worker: RunningWorker, stats: DemoStatistics) -> None:
    """Wait until every signal has an allocation.

    Raises:
        SizingError: no progress for `DRAIN_S` seconds.
    """
    last, since = -1, time.monotonic()
    while len(stats.answered) < stats.signals:
        worker.check()
        if len(stats.answered) != last:
            last, since = len(stats.answered), time.monotonic()
        if time.monotonic() - since > DRAIN_S:
            msg = f"{stats.signals - len(stats.answered)} of {stats.signals} signals were not answered"
            raise SizingError(msg)
        await asyncio.sleep(0.05)


async def _draw(screen: Screen, stats: DemoStatistics) -> None:
    while True:
        _look(screen, stats)
        await asyncio.sleep(REFRESH_S)


def _look(screen: Screen, stats: DemoStatistics) -> None:
    """Draw the dashboard at its current time."""
    stats.dashboard.correlations = stats.correlations.at(stats.dashboard.now_ns)
    screen.refresh()


# -- watching ------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def _watching(environment: DemoEnvironment, stats: DemoStatistics, dashboard: Dashboard) -> AsyncIterator[None]:
    """Read allocations, alerts and dead letters with a consumer while the context is open."""
    topics = ("allocations", "alerts", "signals.dlq", "outcomes.dlq", "prices.dlq", "cascade-indicators.dlq")
    logical = {environment.names.topic(topic): topic for topic in topics}
    consumer = AIOKafkaConsumer(**environment.connection.reading(), auto_offset_reset="earliest", fetch_max_wait_ms=50)
    await reach(consumer, environment.connection)
    consumer.assign([TopicPartition(topic, partition) for topic in logical for partition in range(PARTITIONS)])

    async def watch() -> None:
        while True:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    stats.took(logical[place.topic], record.value or b"")
            dashboard.lag = max(0, stats.signals - len(stats.answered))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await consumer.stop()


# -- the end --------------------------------------------------------------------------------------------------
async def _summary(
    environment: DemoEnvironment, stats: DemoStatistics, files: Sequence[Candles], page_url: str
) -> dict[str, Any]:
    """Verify every allocation and return the summary. Candles are identified by their opening time."""
    hours, answers = CascadeHours(files[0].width_s if files else 0), PolicyAnswers()

    def of_the_market_too(entry: Journaled, folded: FoldResult, elapsed_ns: int) -> None:
        hours.observe(entry, folded, elapsed_ns)
        answers.observe(entry, folded, elapsed_ns)

    def observers(partition: int) -> FoldObserver:
        return answers.observe if partition else of_the_market_too

    verdict = await verify_cluster(environment.connection, environment.names, PARTITIONS, observers=observers)
    return {
        "signals": stats.signals,
        "allocations": verdict.checked,
        "dead_letters": stats.dead_letters,
        "sequence_gaps": stats.sequence_gaps,
        "latency_ms": stats.latency_ms(),
        "audit": verdict.report(),
        "symbols": sorted(stats.symbols),
        "cascade": hours.report(),
        "portfolio": stats.portfolio.report(),
        "policy": answers.report(stats.dashboard),
        "correlation": cascade_day.report(files, hours.worst_day()),
        "data": candles.found(files)._asdict(),
        "skipped_rows": [text for each in files for text in each.skipped],
        "dashboard_url": page_url,
    }
