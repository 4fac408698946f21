"""A strategy's view on one symbol."""

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
    """A strategy's view on one symbol: which side, how sure, how risky, over which horizon.

    A BUY or SELL replaces what the strategy said before on the symbol; a HOLD leaves it. An older `timestamp_ns`
    never replaces a newer one.
    """

    model_config = ConfigDict(json_schema_extra={"if": _BUY, "then": _NOT_NEGATIVE})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidSignalException

    signal_id: Id | None = Field(None, description="Names the signal; a repeat is dropped. Absent: its source offset.")
    portfolio_id: Id = Field("main", description="The portfolio that is sized.")
    strategy_id: StrategyId = Field(description="Who says it.")
    symbol: Id = Field(description="What it is about.")
    action: Action = Field(description="The side; how strong is what confidence says. HOLD keeps what is there.")
    confidence: Unit = Field(description="Multiplies the claimed return; 0 to 1.")
    risk_score: Unit = Field(description="Takes from the size, up to risk_score_weight of it at 1; 0 to 1.")
    regime: Label = Field(
        description="trending_up, trending_down, ranging, high_volatility, crisis, or an alias of the settings, "
        "in any case. An unknown one is refused by sizing, with the settings in force."
    )
    timestamp_ns: TimestampNs = Field(description="When it was said, ns since 1970 UTC.")
    expected_return: ClaimedReturn | None = Field(
        None,
        description="Claimed return of the asset over the horizon, a ratio: non-negative, or signed as the action. "
        "Absent: unknown, estimated; 0.0 means no edge.",
    )
    predicted_volatility: Volatility | None = Field(
        None, description="Claimed standard deviation of the return over the horizon, a ratio. Absent: from our bars."
    )
    signal_strength: Reading | None = Field(None, description="Carried, not used.")
    horizon_s: Horizon = Field(3600.0, description="What return and volatility are claimed over, in seconds.")
    valid_for_s: Horizon | None = Field(
        None, description="After this many seconds it expires. Absent: one and a half horizons."
    )
    sentiment_score: Unit | None = Field(None, description="0 bearish, 0.5 neutral, 1 bullish.")
    sentiment_confidence: Unit | None = Field(None, description="0 to 1. Absent: 1.")
    sentiment_timestamp_ns: TimestampNs | None = Field(None, description="Age of the reading. Absent: timestamp_ns.")
    sentiment_trend: Any = Field(None, description="Carried, not used.")
    sentiment_strength: Any = Field(None, description="Carried, not used.")

    @model_validator(mode="after")
    def _sign_of_the_claim(self) -> Self:
        if self.expected_return is not None and self.expected_return < 0 and SIDE[self.action] > 0:
            rule = f"must be non-negative or signed as the action {self.action}, was {self.expected_return}"
            raise broken(Fault("contrary_sign", "expected_return", rule))
        return self
