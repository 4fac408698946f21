"""The topology as data: one tuple of stages. Faust runs it live, the Driver in memory; the docs draw it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from engines.parameters import DecisionParams
from streams.journal.handover import MIGRATIONS, Migration
from streams.monitoring.metrics import Metrics
from streams.processing.ports import Fold, Headers, Send
from streams.stages.ingest import INTAKES
from streams.stages.market import MarketFold
from streams.stages.sizing import SizingFold


class Context(NamedTuple):
    """Shared by the stages of one worker."""

    partitions: int
    """P, the number of journal partitions."""
    params: Callable[[], DecisionParams]
    """The decision settings in force."""
    clock: Callable[[], int]
    """The clock, ns since 1970."""
    metrics: Metrics | None = None
    headers: Headers = ()
    """Added to each allocation."""
    max_ahead_ns: int = 86_400 * 10**9
    """How far a journal entry may be ahead of the clock."""
    version: int = 0
    """Decision version; 0: that of this code."""
    migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS


class Timed(Fold, Protocol):
    """A fold that also publishes as time passes."""

    def elapse(self, now_ns: int) -> list[Send]:
        """Return what to publish at this time."""


class IngestStage(NamedTuple):
    """A stage that validates one source topic; no state."""

    name: str
    source: str
    outputs: tuple[str, ...]
    summary: str


class Stage(NamedTuple):
    """A stage that folds: its source, outputs and tables."""

    name: str
    source: str
    outputs: tuple[str, ...]
    tables: tuple[str, ...]
    summary: str
    fold: Callable[[Context, int], Timed]
    """Creates the fold of one partition."""
    contiguous: bool
    """Whether a gap in the source's offsets is an error."""
    idle_tick: bool
    """Whether `elapse` is called only after a second without a record."""


class AskStage(NamedTuple):
    """A stage that calls an external policy; no durable state, and no other stage waits for it."""

    name: str
    source: str
    outputs: tuple[str, ...]
    summary: str


def _market(context: Context, partition: int) -> MarketFold:
    note = None if context.metrics is None else context.metrics.of_prices
    return MarketFold(partition, context.partitions, context.params, context.clock, note)


def _sizing(context: Context, partition: int) -> SizingFold:
    observe = None if context.metrics is None else context.metrics.processor("sizing", partition).observe
    clock, ahead_ns = context.clock, context.max_ahead_ns
    return SizingFold(
        partition, observe, context.headers, context.version, context.migrations, lambda: clock() + ahead_ns
    )


MARKET = Stage(
    "market",
    "prices",
    ("journal", "alerts", "prices.dlq"),
    MarketFold.tables,
    "aggregate ticks into steps",
    _market,
    contiguous=False,
    idle_tick=False,
)
SIZING = Stage(
    "sizing",
    "journal",
    ("allocations", "rl-requests", "alerts", "signals.dlq", "outcomes.dlq"),
    SizingFold.tables,
    "fold the journal, decide, publish",
    _sizing,
    contiguous=True,
    idle_tick=True,
)
POLICY = AskStage(
    "policy",
    "rl-requests",
    ("journal", "alerts"),
    "ask the policy within a deadline, behind the circuit breaker; journal the outcome",
)

TOPOLOGY: tuple[IngestStage | Stage | AskStage, ...] = (
    *(
        IngestStage("ingest", topic, ("journal", f"{topic}.dlq"), "validate, journal or dead-letter")
        for topic in INTAKES
    ),
    MARKET,
    SIZING,
    POLICY,
)
