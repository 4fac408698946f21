"""Alerts: conditions that an operator should look at."""

from typing import ClassVar

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidAllocationException, InvalidMessage
from schemas.units import Index, Offset, TimestampNs, Word
from schemas.vocabulary import Severity


class Position(Message):
    """A position in the journal."""

    partition: Index = Field(description="Journal partition.")
    offset: Offset = Field(description="Offset in the partition.")


class Alert(Message):
    """A condition to look at. Its id is derived from its journal position, so a redelivery is recognised."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAllocationException

    alert_id: str = Field(max_length=256, description="Identifies the alert; the same each time it is sent.")
    kind: Word = Field(
        description="correlation, drift, cascade, risk_budget, breaker, stale_price, suspect_price, suspect_equity, "
        "clipped_claims, missing_report, missing_outcome, late_prices, clock_skew, config_rejected, control_applied, "
        "fork, …; readers ignore kinds that they do not know."
    )
    severity: Severity = Field(description="info: no action needed; warning: investigate; critical: act now.")
    subject: str = Field(max_length=256, description="Symbol, strategy, portfolio, or the control_id that it answers.")
    value: float | None = Field(None, description="Measured value.")
    threshold: float | None = Field(None, description="Threshold that it was compared with.")
    result: str | None = Field(None, description="For `control_applied`: applied, no_op, or the reason for rejection.")
    journal: Position | None = Field(description="Entry that raised it; null if none did.")
    timestamp_ns: TimestampNs = Field(description="Journal time when it was raised, ns since 1970 UTC.")
