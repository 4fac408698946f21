"""Ingest: a source record becomes a journal entry or, unchanged, a dead letter. Nothing is lost."""

from collections.abc import Callable
from typing import Any, NamedTuple

from schemas import wire
from schemas.base import RECORD_BYTES_MAX, Message
from schemas.cascade import CascadeIndicators
from schemas.control import Control, Forget, PortfolioValue
from schemas.errors import InvalidMessage
from schemas.outcome import TradeOutcome
from schemas.positions import Positions
from schemas.signal import TacticalSignal
from streams.journal import entries as journal
from streams.journal.dead_letters import dead_letter, size_of
from streams.journal.entries import SourcePlace
from streams.journal.topics import ROOM
from streams.processing.partitioner import partition_of
from streams.processing.ports import Record, Send

AHEAD_NS = 5_000_000_000
"""Records with an event time further ahead of the clock are refused."""

POSITIONS_AGE_NS = 7 * 86_400 * 1_000_000_000
"""Position reports older than this are refused as outdated."""

BESIDE_BYTES_MAX = RECORD_BYTES_MAX + ROOM
"""Largest accepted size of key and headers."""

EVERYWHERE = ""


class Intake(NamedTuple):
    """How the records of one source topic enter the journal."""

    kind: str
    model: type[Message]
    portfolio: Callable[[Any], str]
    """The portfolio whose journal partition gets it; `EVERYWHERE` for what all portfolios share."""


def _portfolio_of_control(control: Control) -> str:
    if isinstance(control.payload, PortfolioValue | Forget):
        return control.payload.portfolio_id or EVERYWHERE
    return EVERYWHERE


INTAKES: dict[str, Intake] = {
    "signals": Intake("signal", TacticalSignal, lambda message: message.portfolio_id),
    "outcomes": Intake("outcome", TradeOutcome, lambda message: message.portfolio_id),
    "positions": Intake("positions", Positions, lambda message: message.portfolio_id),
    "cascade-indicators": Intake("cascade", CascadeIndicators, lambda _: EVERYWHERE),
    "control": Intake("control", Control, _portfolio_of_control),
}


def _check_size(model: type[Message], record: Record, topic: str) -> None:
    """Refuse a record whose key and headers would exceed the journal's entry size.

    Raises:
        InvalidMessage: the model's own subclass.
    """
    size = size_of(record.key, None, record.headers)
    if size > BESIDE_BYTES_MAX:
        rule = f"record must have at most {BESIDE_BYTES_MAX} bytes of key and headers, was {size}"
        refused_as: type[InvalidMessage] = model.refused_as  # type: ignore[attr-defined]
        raise refused_as("too_large", "", f"{topic}: {rule}")


def ingest(place: SourcePlace, record: Record, now_ns: int, partitions: int) -> list[Send]:
    """Return the journal entry of a source record, for one partition or for all, or its dead letter."""
    intake = INTAKES[place.topic]
    try:
        message = wire.decode(intake.model, record.value, place=place.topic)
        _check_size(intake.model, record, place.topic)
        wire.check_time(message, message.timestamp_ns, now_ns + AHEAD_NS, place=place.topic)  # type: ignore[attr-defined]
        if isinstance(message, Positions):
            wire.check_age(message, message.timestamp_ns, now_ns - POSITIONS_AGE_NS, place=place.topic)
    except InvalidMessage as error:
        return [dead_letter(place, record, error)]
    value = journal.entry(
        intake.kind,
        (record.value or b"").decode(),
        now_ns,
        place=place,
        event_time_ns=message.timestamp_ns,  # type: ignore[attr-defined]
        key=record.key,
        headers=record.headers,
    )
    portfolio = intake.portfolio(message)
    if portfolio == EVERYWHERE:
        return [Send(journal.TOPIC, partition, record.key, value) for partition in range(partitions)]
    return [Send(journal.TOPIC, partition_of(portfolio.encode(), partitions), portfolio.encode(), value)]
