"""A strategy's view on one symbol."""

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
"""A reading of the mood may be this much younger than its signal: clocks differ."""
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
    action: ActionWord = Field(
        description="The side, in any case; how strong is what confidence says. HOLD keeps what is there."
    )
    confidence: Unit = Field(description="Multiplies the claimed return; 0 to 1.")
    risk_score: Unit = Field(description="Takes from the size, up to risk_score_weight of it at 1; 0 to 1.")
    regime: Label = Field(
        description="trending_up, trending_down, ranging, high_volatility, crisis, or an alias of the settings, "
        "in any case. An unknown one is refused by sizing, with the settings in force."
    )
    timestamp_ns: TimestampNs = Field(description="When it was said, ns since 1970 UTC.")
    expected_return: SignalReturn | None = Field(
        None,
        description="Claimed return of the asset over the horizon, a ratio: non-negative, or signed as the action. "
        "At most 1, which is 100 %. Absent: unknown, estimated; 0.0 means no edge.",
    )
    predicted_volatility: SignalVolatility | None = Field(
        None, description="Claimed standard deviation of the return over the horizon, a ratio. Absent: from our bars."
    )
    signal_strength: Reading | None = Field(None, description="Carried, not used.")
    horizon_s: Horizon = Field(3600.0, description="What return and volatility are claimed over, in seconds.")
    valid_for_s: Horizon | None = Field(None, description="After this many seconds it expires. Absent: the horizon.")
    sentiment_score: Unit | None = Field(None, description="0 bearish, 0.5 neutral, 1 bullish.")
    sentiment_confidence: Unit | None = Field(None, description="0 to 1. Absent: 1.")
    sentiment_timestamp_ns: TimestampNs | None = Field(
        None, description="When the mood was read, at most 5 s after timestamp_ns. Absent: timestamp_ns."
    )
    sentiment_trend: Any = Field(None, description="Carried, not used.")
    sentiment_strength: Any = Field(None, description="Carried, not used.")

    @model_validator(mode="after")
    def _sign_of_the_claim(self) -> Self:
        if self.expected_return is not None and self.expected_return < 0 and SIDE[self.action] > 0:
            rule = f"must be non-negative or signed as the action {self.action}, was {self.expected_return}"
            raise broken(Fault("contrary_sign", "expected_return", rule))
        return self

    @model_validator(mode="after")
    def _mood_was_read_before(self) -> Self:
        read_ns = self.sentiment_timestamp_ns
        if read_ns is not None and read_ns > self.timestamp_ns + SENTIMENT_AHEAD_NS:
            ahead_s = (read_ns - self.timestamp_ns) / 1e9
            rule = f"must lie at most 5 s after timestamp_ns, was {ahead_s:.3f} s after it"
            raise broken(Fault("in_future", "sentiment_timestamp_ns", rule))
        return self
