"""The topology, as data: one tuple of stages. Faust runs it live, the Driver runs it in memory, the docs draw it."""

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
    """What the stages of one worker share."""

    partitions: int
    """P: partitions of the journal."""
    params: Callable[[], DecisionParams]
    """The decision settings in force."""
    clock: Callable[[], int]
    """The injected clock, ns since 1970."""
    metrics: Metrics | None = None
    headers: Headers = ()
    """Go with each allocation."""
    version: int = 0
    """Of the decisions; 0: that of this code."""
    migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS


class Timed(Fold, Protocol):
    """A fold that also has something to say when time goes by."""

    def elapse(self, now_ns: int) -> list[Send]:
        """Return what is to be published because of the time."""


class IngestStage(NamedTuple):
    """The stage that validates: one source topic, no state."""

    name: str
    source: str
    outputs: tuple[str, ...]
    summary: str


class Stage(NamedTuple):
    """A stage that folds: what it reads, what it writes, what it keeps."""

    name: str
    source: str
    outputs: tuple[str, ...]
    tables: tuple[str, ...]
    summary: str
    fold: Callable[[Context, int], Timed]
    """Makes the fold of one partition."""
    contiguous: bool
    """Whether a gap in the source's offsets is a fault."""
    idle_tick: bool
    """Whether time is told only after a second without a record."""


class AskStage(NamedTuple):
    """The stage that asks outside: no state that matters, and nobody waits for it."""

    name: str
    source: str
    outputs: tuple[str, ...]
    summary: str


def _market(context: Context, partition: int) -> MarketFold:
    note = None if context.metrics is None else context.metrics.of_prices
    return MarketFold(partition, context.partitions, context.params, context.clock, note)


def _sizing(context: Context, partition: int) -> SizingFold:
    observe = None if context.metrics is None else context.metrics.processor("sizing", partition).observe
    return SizingFold(partition, observe, context.headers, context.version, context.migrations)


MARKET = Stage(
    "market",
    "prices",
    ("journal", "alerts", "prices.dlq"),
    MarketFold.tables,
    "ticks into steps",
    _market,
    contiguous=False,
    idle_tick=False,
)
SIZING = Stage(
    "sizing",
    "journal",
    ("allocations", "rl-requests", "alerts", "signals.dlq", "outcomes.dlq"),
    SizingFold.tables,
    "fold state, decide, publish",
    _sizing,
    contiguous=True,
    idle_tick=True,
)
POLICY = AskStage(
    "policy",
    "rl-requests",
    ("journal", "alerts"),
    "ask the policy within a deadline, behind the breaker; journal what came of it",
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
