"""What one journal entry leads to: allocations, alerts, refusals, and notes to be counted."""

from typing import Any, NamedTuple

from engines.models.cascade import Components
from engines.pipeline.decide import Trigger, stronger
from engines.pipeline.publish import Published
from engines.state import strategies
from engines.state.partition import State
from schemas.vocabulary import ErrorCode


class Journaled(NamedTuple):
    """One journal entry as sizing reads it."""

    offset: int
    kind: str
    topic: str
    """Logical source topic, "" for internal kinds."""
    epoch: int
    partition: int
    source_offset: int
    journaled_at_ns: int
    body: dict[str, Any]
    value: bytes
    """The entry's own bytes: what the inputs hash covers."""


class Note(NamedTuple):
    """Something to count: a name and its labels or value."""

    name: str
    label: str
    value: float


class CascadeReading(NamedTuple):
    """One side of a symbol as the cascade detector saw it."""

    symbol: str
    side: int
    components: Components
    score: float
    """R as latched, in [0, 1]."""
    level: int
    """In force from now on, 0-3."""


class Refusal(NamedTuple):
    """An input that ingest could not judge and sizing refuses: to its dead-letter topic, whole."""

    topic: str
    code: ErrorCode
    field: str
    text: str


class FoldResult:
    """What an entry led to."""

    __slots__ = ("alerts", "allocations", "claimed", "looks", "notes", "refusals", "requests", "triggers")

    def __init__(self) -> None:
        self.triggers: dict[str, Trigger] = {}
        self.claimed: dict[str, list[tuple[str, str]]] = {}
        """Per portfolio: (strategy, symbol) of each cell that a signal gave a new forecast."""
        self.allocations: list[Published] = []
        self.alerts: list[dict[str, Any]] = []
        self.refusals: list[Refusal] = []
        self.requests: list[dict[str, Any]] = []
        """Questions to the policy."""
        self.notes: list[Note] = []
        self.looks: list[CascadeReading] = []

    def call_for(self, portfolio: str, trigger: Trigger) -> None:
        """Name a portfolio that has to decide."""
        self.triggers[portfolio] = stronger(self.triggers.get(portfolio), trigger)

    def refuse(self, entry: Journaled, field: str, rule: str) -> None:
        """Refuse the entry's input: it would be one too many of something."""
        text = f"{entry.topic or 'call'}: {field} {rule}"
        self.refusals.append(Refusal(entry.topic, "out_of_range", field, text))

    def note(self, name: str, label: str = "", value: float = 1.0) -> None:
        """Leave something to be counted."""
        self.notes.append(Note(name, label, value))


def alert(
    state: State,
    folded: FoldResult,
    offset: int,
    kind: str,
    subject: str,
    *,
    severity: str,
    value: float | None = None,
    threshold: float | None = None,
    result: str | None = None,
) -> None:
    """Raise an alert; its id is a function of its place in the journal, so a repeat is recognised."""
    journal_id = state.progress.journal_id if state.progress else ""
    folded.alerts.append(
        {
            "alert_id": f"{journal_id}-{state.partition}-{offset}-{kind}-{len(folded.alerts)}",
            "journal": {"offset": offset, "partition": state.partition},
            "kind": kind,
            "result": result,
            "severity": severity,
            "subject": subject,
            "threshold": threshold,
            "value": value,
        }
    )


def warn_of_drift(state: State, folded: FoldResult, offset: int, portfolio: str) -> None:
    """Tell that the weights of a portfolio's strategies have drifted to the threshold."""
    alert(
        state,
        folded,
        offset,
        "drift",
        portfolio,
        severity="warning",
        value=strategies.drift_of(state, portfolio).ratio,
        threshold=state.params.risk_management.drift_alert_threshold,
    )
