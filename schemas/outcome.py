"""Trade outcomes."""

from typing import ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonValue

from schemas.base import Message
from schemas.errors import InvalidMessage, InvalidOutcomeException
from schemas.rules import Fault, broken
from schemas.units import DecisionId, Id, RealizedReturn, Seconds, Side, StrategyId, TimestampNs

_NAMES = ("decision_id", "signal_id")
_ONE_OF_BOTH: list[JsonValue] = [{"required": [name], "properties": {name: {"type": "string"}}} for name in _NAMES]


class TradeOutcome(Message):
    """The asset's return while a decision was held. It is joined to its claim by id, never by guessing."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _ONE_OF_BOTH})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidOutcomeException

    portfolio_id: Id = Field("main", description="Portfolio that made the decision.")
    strategy_id: StrategyId = Field(description="Strategy whose claim it settles.")
    symbol: Id = Field(description="Symbol that was held.")
    decision_id: DecisionId | None = Field(None, description="The allocation; this or signal_id is required.")
    signal_id: Id | None = Field(None, description="The signal; this or decision_id is required.")
    side: Side = Field(description="Side that was held.")
    realized_return: RealizedReturn = Field(
        description="Return of the asset (not of the side) over the holding, a ratio; 1 is 100 %."
    )
    holding_s: Seconds | None = Field(None, description="Holding time in seconds. Absent: the horizon.")
    timestamp_ns: TimestampNs = Field(description="Time of closing, ns since 1970 UTC.")
    used_rl: bool | None = Field(None, description="Whether the policy's nudge was traded.")

    @model_validator(mode="after")
    def _names_its_claim(self) -> Self:
        if self.decision_id is None and self.signal_id is None:
            raise broken(Fault("missing", "decision_id", "or signal_id must be given"))
        return self

    @model_validator(mode="after")
    def _of_its_portfolio(self) -> Self:
        """Refuse a decision_id of another portfolio. Ids of another form pass here, and match no claim in sizing."""
        parts = (self.decision_id or "").split("-", 3)
        if len(parts) == 4 and parts[2].isdecimal() and parts[3] != self.portfolio_id:
            rule = f"must be a decision of portfolio_id {self.portfolio_id}, was {self.decision_id}"
            raise broken(Fault("inconsistent", "decision_id", rule))
        return self
