"""Indicators of a liquidation cascade."""

from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict, JsonValue

from schemas.base import Message
from schemas.errors import InvalidCascadeIndicatorsException, InvalidMessage
from schemas.rules import Fault, broken
from schemas.units import FundingRate, Hours, Id, OpenInterestChange, Reading, TimestampNs, Unit, Usd

LIQUIDATIONS = "liquidation_volume_24h"
READINGS = (
    "funding_rate",
    "oi_change_pct",
    "volume_ratio",
    "onchain_whale_pressure",
    "exchange_netflow_zscore",
    "liquidation_volume_24h",
    "open_interest",
)
_LIQUIDATED: JsonDict = {"required": [LIQUIDATIONS], "properties": {LIQUIDATIONS: {"type": "number"}}}
_SOME_INTEREST: JsonDict = {"properties": {"open_interest": {"not": {"const": 0}}}}
_ONE_OF_ALL: list[JsonValue] = [{"required": [name], "properties": {name: {"type": "number"}}} for name in READINGS]


def _not_null(schema: dict[str, Any]) -> None:
    """Declare the field in the JSON schema as a string that may be absent, but not null."""
    text = schema.pop("anyOf")[0]
    schema.update(text)
    del schema["default"]


class CascadeIndicators(Message):
    """A feed's readings of crowding and forced selling; at least one is required. A missing reading is not zero."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _ONE_OF_ALL, "if": _LIQUIDATED, "then": _SOME_INTEREST})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidCascadeIndicatorsException

    symbol: Id | None = Field(
        None,
        description="Symbol that the readings describe. Absent (not null): the whole market.",
        json_schema_extra=_not_null,
    )
    timestamp_ns: TimestampNs = Field(description="Time of the readings, ns since 1970 UTC.")
    funding_rate: FundingRate | None = Field(None, description="Ratio per funding interval, positive if longs pay.")
    funding_interval_hours: Hours = Field(8.0, description="Hours between fundings; the rate is converted to 8 h.")
    oi_change_pct: OpenInterestChange | None = Field(
        None, description="24 h change of open interest in coin units, as a ratio; -1 is all of it."
    )
    volume_ratio: Reading | None = Field(
        None, ge=0, description="Quote volume over the mean of the previous 24 h. Absent: taken from the market's bars."
    )
    onchain_whale_pressure: Unit | None = Field(None, description="Index from 0 to 1.")
    exchange_netflow_zscore: Reading | None = Field(None, description="Exchange inflow, in standard deviations.")
    liquidation_volume_24h: Usd | None = Field(None, description="USD in 24 h; used only together with open_interest.")
    open_interest: Usd | None = Field(None, description="Open interest, USD.")

    @field_validator("symbol", mode="before")
    @classmethod
    def _absent_or_named(cls, symbol: Any) -> Any:
        """Refuse null: readings whose symbol was lost must not be applied to the whole market."""
        if symbol is None:
            raise broken(Fault("wrong_type", "", "must be a string, or absent for the whole market, was null"))
        return symbol

    @model_validator(mode="after")
    def _liquidated_of_something(self) -> Self:
        if self.open_interest == 0 and self.liquidation_volume_24h is not None:
            rule = f"must be positive where {LIQUIDATIONS} is given, was 0"
            raise broken(Fault("inconsistent", "open_interest", rule))
        return self

    @model_validator(mode="after")
    def _at_least_one_reading(self) -> Self:
        if all(getattr(self, name) is None for name in READINGS):
            raise broken(Fault("missing", READINGS[0], f"or another must be given: {', '.join(READINGS[1:])}"))
        return self
