"""What somebody should look at."""

from typing import ClassVar

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidAllocationException, InvalidMessage
from schemas.units import Index, Offset, TimestampNs, Word
from schemas.vocabulary import Severity


class Position(Message):
    """One place in the journal."""

    partition: Index = Field(description="Journal partition.")
    offset: Offset = Field(description="Offset in it.")


class Alert(Message):
    """What somebody should look at. Its id is a function of its place in the journal, so a repeat is recognised."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAllocationException

    alert_id: str = Field(max_length=256, description="The same for the same alert, however often it is sent.")
    kind: Word = Field(
        description="correlation, drift, cascade, risk_budget, breaker, stale_price, suspect_price, late_prices, "
        "clock_skew, config_rejected, "
        "control_applied, fork, …; readers pass over those that they do not know."
    )
    severity: Severity = Field(description="info: nothing to do; warning: look; critical: act.")
    subject: str = Field(max_length=256, description="A symbol, strategy, portfolio, or the control_id it answers.")
    value: float | None = Field(None, description="What was measured.")
    threshold: float | None = Field(None, description="What it was measured against.")
    result: str | None = Field(None, description="Of `control_applied`: applied, no_op, or why not.")
    journal: Position | None = Field(description="The entry that raised it; null where no entry did.")
    timestamp_ns: TimestampNs = Field(description="Journal time when it was raised, ns since 1970 UTC.")
