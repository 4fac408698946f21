"""Tactical signals."""

from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from schemas.base import Message
from schemas.errors import InvalidMessage, InvalidSignalException
from schemas.rules import Fault, broken
from schemas.units import ClaimedReturn, Horizon, Id, Label, Reading, StrategyId, TimestampNs, Unit, Volatility
from schemas.vocabulary import SIDE, Action

_BUY: JsonDict = {"properties": {"action": {"enum": ["strong_buy", "buy"]}}}
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
    action: Action = Field(description="Side of the forecast; strength is given by confidence. HOLD changes nothing.")
    confidence: Unit = Field(description="Multiplies the claimed return; 0 to 1.")
    risk_score: Unit = Field(description="Reduces the size, by risk_score_weight of it at 1; 0 to 1.")
    regime: Label = Field(
        description="trending_up, trending_down, ranging, high_volatility, crisis, or an alias from the settings; case "
        "is ignored. Sizing refuses a label that the settings in force do not know."
    )
    timestamp_ns: TimestampNs = Field(description="Time of the signal, ns since 1970 UTC.")
    expected_return: ClaimedReturn | None = Field(
        None,
        description="Claimed return of the asset over the horizon, a ratio: non-negative, or with the action's sign. "
        "Absent: unknown, estimated; 0.0 means no edge.",
    )
    predicted_volatility: Volatility | None = Field(
        None,
        description="Claimed standard deviation of the return over the horizon, a ratio. Absent: estimated from bars.",
    )
    signal_strength: Reading | None = Field(None, description="Recorded, not used.")
    horizon_s: Horizon = Field(3600.0, description="Horizon of the claimed return and volatility, in seconds.")
    valid_for_s: Horizon | None = Field(None, description="Seconds until the forecast expires. Absent: the horizon.")
    sentiment_score: Unit | None = Field(None, description="0 bearish, 0.5 neutral, 1 bullish.")
    sentiment_confidence: Unit | None = Field(None, description="0 to 1. Absent: 1.")
    sentiment_timestamp_ns: TimestampNs | None = Field(None, description="Time of the reading. Absent: timestamp_ns.")
    sentiment_trend: Any = Field(None, description="Recorded, not used.")
    sentiment_strength: Any = Field(None, description="Recorded, not used.")

    @model_validator(mode="after")
    def _sign_of_the_claim(self) -> Self:
        if self.expected_return is not None and self.expected_return < 0 and SIDE[self.action] > 0:
            rule = f"must be non-negative or signed as the action {self.action}, was {self.expected_return}"
            raise broken(Fault("contrary_sign", "expected_return", rule))
        return self
