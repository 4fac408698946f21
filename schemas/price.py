"""Prices: one tick per message, or many."""

from typing import Annotated, Any, ClassVar, NotRequired, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from typing_extensions import TypedDict

from schemas.base import Message
from schemas.errors import InvalidMessage, InvalidPriceException
from schemas.rules import Fault, broken
from schemas.units import Coins, Id, Price, TimestampNs

TICKS_MAX = 10_000
REACH_MAX = 1e6
"""Low and high must lie within this factor of the price; values beyond it are errors, not prices."""


class PriceTick(Message):
    """One price of one symbol. A candle is sent as a tick at its end, with its low, high and volume."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidPriceException

    symbol: Id = Field(description="Symbol that is priced.")
    price: Price = Field(description="USD per coin.")
    timestamp_ns: TimestampNs = Field(description="Time of the trade or end of the candle, ns since 1970 UTC.")
    low: Price | None = Field(None, description="Lowest price since the previous tick, at most price. Absent: price.")
    high: Price | None = Field(
        None, description="Highest price since the previous tick, at least price. Absent: price."
    )
    volume: Coins | None = Field(None, description="Coins traded since the previous tick. Absent: 0.")

    @model_validator(mode="after")
    def _low_to_high(self) -> Self:
        low, high = self.low, self.high
        if (low is not None and low > self.price) or (high is not None and high < self.price):
            rule = f"must lie between low and high, was {self.price}, not in [{low}, {high}]"
            raise broken(Fault("inconsistent", "price", rule))
        for name, extreme in (("low", low), ("high", high)):
            if extreme is not None and not self.price / REACH_MAX <= extreme <= self.price * REACH_MAX:
                rule = f"must lie within a factor of {REACH_MAX:g} of price {self.price}, was {extreme}"
                raise broken(Fault("inconsistent", name, rule))
        return self


class PriceTicks(Message):
    """Many ticks in one record, in the order in which they are folded; `price` must not be given beside them."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["price"]}})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidPriceException

    ticks: Annotated[list[PriceTick], Field(min_length=1, max_length=TICKS_MAX, fail_fast=True)] = Field(
        description=f"1 to {TICKS_MAX} ticks."
    )


class PlainTick(TypedDict):
    """A PriceTick as the plain dict it was parsed to: validating it is four times as fast as building the model."""

    __pydantic_config__ = PriceTick.model_config  # type: ignore[misc]

    symbol: Id
    price: Price
    timestamp_ns: TimestampNs
    low: NotRequired[Price | None]
    high: NotRequired[Price | None]
    volume: NotRequired[Coins | None]


class RawTicks(TypedDict):
    """A PriceTicks whose ticks are not validated yet."""

    __pydantic_config__ = PriceTick.model_config  # type: ignore[misc]

    ticks: Annotated[list[Any], Field(min_length=1, max_length=TICKS_MAX)]


RAW_TICKS = TypeAdapter(RawTicks)
TICKS = TypeAdapter(Annotated[list[PlainTick], Field(min_length=1, max_length=TICKS_MAX, fail_fast=True)])


def descends(tick: PlainTick) -> bool:
    """Return whether low ≤ price ≤ high is violated, or low or high is too far from price."""
    low, price, high = tick.get("low"), tick["price"], tick.get("high")
    return (low is not None and not price / REACH_MAX <= low <= price) or (
        high is not None and not price <= high <= price * REACH_MAX
    )
