"""Readings that foretell, or show, a cascade of liquidations."""

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
    """What a feed knows of crowding and forced selling; at least one reading. Missing is not zero."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _ONE_OF_ALL})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidCascadeIndicatorsException

    symbol: Id | None = Field(None, description="What the readings are of. Absent: the market as a whole.")
    timestamp_ns: TimestampNs = Field(description="When they were read, ns since 1970 UTC.")
    funding_rate: Reading | None = Field(None, description="Ratio per funding interval, positive where longs pay.")
    funding_interval_hours: Hours = Field(8.0, description="Hours between two fundings; the rate is brought to 8 h.")
    oi_change_pct: Reading | None = Field(None, description="Change of open interest in 24 h, coin units, a ratio.")
    volume_ratio: Reading | None = Field(
        None, ge=0, description="Quote volume against the mean of the previous 24 h. Absent: from our own bars."
    )
    onchain_whale_pressure: Unit | None = Field(None, description="An index from 0 to 1.")
    exchange_netflow_zscore: Reading | None = Field(None, description="Exchange inflow, in standard deviations.")
    liquidation_volume_24h: Usd | None = Field(None, description="USD in 24 h; counts where open_interest is given.")
    open_interest: Usd | None = Field(None, description="USD.")

    @model_validator(mode="after")
    def _at_least_one_reading(self) -> Self:
        if all(getattr(self, name) is None for name in READINGS):
            raise broken(Fault("missing", READINGS[0], f"or another must be given: {', '.join(READINGS[1:])}"))
        return self
