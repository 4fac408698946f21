"""Tactical signals."""

from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from schemas.base import Message
from schemas.errors import InvalidMessage, InvalidSignalException
from schemas.rules import Fault, broken
from schemas.units import (
    BUYS,
    ActionWord,
    Horizon,
    Id,
    Label,
    Reading,
    SignalReturn,
    SignalVolatility,
    StrategyId,
    TimestampNs,
    Unit,
    in_any_case,
)
from schemas.vocabulary import SIDE

_BUY: JsonDict = {"properties": {"action": {"pattern": in_any_case(BUYS)}}}
SENTIMENT_AHEAD_NS = 5_000_000_000
"""A sentiment reading may be this much newer than its signal, because clocks differ."""
_NOT_NEGATIVE: JsonDict = {"properties": {"expected_return": {"minimum": 0}}}


class TacticalSignal(Message):
    """A strategy's view on one symbol: side, confidence, risk and horizon.

    A BUY or SELL replaces the strategy's previous forecast for the symbol; a HOLD keeps it. An older `timestamp_ns`
    never replaces a newer one.
    """

    model_config = ConfigDict(json_schema_extra={"if": _BUY, "then": _NOT_NEGATIVE})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidSignalException

    signal_id: Id | None = Field(
        None, description="Identifies the signal; a repeat is dropped. Absent: its source offset."
    )
    portfolio_id: Id = Field("main", description="Portfolio to size.")
    strategy_id: StrategyId = Field(description="Strategy that sends the signal.")
    symbol: Id = Field(description="Symbol that the signal is for.")
    action: ActionWord = Field(
        description="Side of the forecast, in any case; strength is given by confidence. HOLD changes nothing."
    )
    confidence: Unit = Field(description="Multiplies the claimed return; 0 to 1.")
    risk_score: Unit = Field(description="Reduces the size, by risk_score_weight of it at 1; 0 to 1.")
    regime: Label = Field(
        description="trending_up, trending_down, ranging, high_volatility, crisis, or an alias from the settings; case "
        "is ignored. Sizing refuses a label that the settings in force do not know."
    )
    timestamp_ns: TimestampNs = Field(description="Time of the signal, ns since 1970 UTC.")
    expected_return: SignalReturn | None = Field(
        None,
        description="Claimed return of the asset over the horizon, a ratio: non-negative, or with the action's sign. "
        "At most 1, which is 100 %. Absent: unknown, estimated; 0.0 means no edge.",
    )
    predicted_volatility: SignalVolatility | None = Field(
        None,
        description="Claimed standard deviation of the return over the horizon, a ratio. Absent: estimated from bars.",
    )
    signal_strength: Reading | None = Field(None, description="Recorded, not used.")
    horizon_s: Horizon = Field(3600.0, description="Horizon of the claimed return and volatility, in seconds.")
    valid_for_s: Horizon | None = Field(
        None, description="Seconds until the forecast expires. Absent: one and a half horizons."
    )
    sentiment_score: Unit | None = Field(None, description="0 bearish, 0.5 neutral, 1 bullish.")
    sentiment_confidence: Unit | None = Field(None, description="0 to 1. Absent: 1.")
    sentiment_timestamp_ns: TimestampNs | None = Field(
        None, description="Time of the reading, at most 5 s after timestamp_ns. Absent: timestamp_ns."
    )
    sentiment_trend: Any = Field(None, description="Recorded, not used.")
    sentiment_strength: Any = Field(None, description="Recorded, not used.")

    @model_validator(mode="after")
    def _sign_of_the_claim(self) -> Self:
        if self.expected_return is not None and self.expected_return < 0 and SIDE[self.action] > 0:
            rule = f"must be non-negative or signed as the action {self.action}, was {self.expected_return}"
            raise broken(Fault("contrary_sign", "expected_return", rule))
        return self

    @model_validator(mode="after")
    def _sentiment_is_not_ahead(self) -> Self:
        read_ns = self.sentiment_timestamp_ns
        if read_ns is not None and read_ns > self.timestamp_ns + SENTIMENT_AHEAD_NS:
            ahead_s = (read_ns - self.timestamp_ns) / 1e9
            rule = f"must lie at most 5 s after timestamp_ns, was {ahead_s:.3f} s after it"
            raise broken(Fault("in_future", "sentiment_timestamp_ns", rule))
        return self
