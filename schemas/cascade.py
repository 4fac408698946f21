"""Indicators of a liquidation cascade."""

from typing import ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonValue

from schemas.base import Message
from schemas.errors import InvalidCascadeIndicatorsException, InvalidMessage
from schemas.rules import Fault, broken
from schemas.units import Hours, Id, Reading, TimestampNs, Unit, Usd

READINGS = (
    "funding_rate",
    "oi_change_pct",
    "volume_ratio",
    "onchain_whale_pressure",
    "exchange_netflow_zscore",
    "liquidation_volume_24h",
    "open_interest",
)
_ONE_OF_ALL: list[JsonValue] = [{"required": [name], "properties": {name: {"type": "number"}}} for name in READINGS]


class CascadeIndicators(Message):
    """A feed's readings of crowding and forced selling; at least one is required. A missing reading is not zero."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _ONE_OF_ALL})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidCascadeIndicatorsException

    symbol: Id | None = Field(None, description="Symbol that the readings describe. Absent: the whole market.")
    timestamp_ns: TimestampNs = Field(description="Time of the readings, ns since 1970 UTC.")
    funding_rate: Reading | None = Field(None, description="Ratio per funding interval, positive if longs pay.")
    funding_interval_hours: Hours = Field(8.0, description="Hours between fundings; the rate is converted to 8 h.")
    oi_change_pct: Reading | None = Field(None, description="24 h change of open interest in coin units, as a ratio.")
    volume_ratio: Reading | None = Field(
        None, ge=0, description="Quote volume over the mean of the previous 24 h. Absent: taken from the market's bars."
    )
    onchain_whale_pressure: Unit | None = Field(None, description="Index from 0 to 1.")
    exchange_netflow_zscore: Reading | None = Field(None, description="Exchange inflow, in standard deviations.")
    liquidation_volume_24h: Usd | None = Field(None, description="USD in 24 h; used only together with open_interest.")
    open_interest: Usd | None = Field(None, description="Open interest, USD.")

    @model_validator(mode="after")
    def _at_least_one_reading(self) -> Self:
        if all(getattr(self, name) is None for name in READINGS):
            raise broken(Fault("missing", READINGS[0], f"or another must be given: {', '.join(READINGS[1:])}"))
        return self
