"""Reported positions."""

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidMessage, InvalidPositionsException
from schemas.units import Equity, Id, Offset, Quantity, TimestampNs

SYMBOLS_MAX = 2_000


class Positions(Message):
    """A portfolio's actual holdings; the newest timestamp wins. Later allocations have `basis: positions`."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidPositionsException

    portfolio_id: Id = Field(description="Portfolio that holds them.")
    timestamp_ns: TimestampNs = Field(description="Time of the report, ns since 1970 UTC.")
    equity: Equity | None = Field(None, description="Value of the portfolio in USD. Absent: unchanged.")
    as_of_sequence: Offset | None = Field(
        None,
        description="Sequence of the last allocation that the reporter had applied. If it is below the newest change "
        "of a target, only the report's equity is used. Absent: decided by the time of the report.",
    )
    quantities: Annotated[dict[Id, Quantity], Field(max_length=SYMBOLS_MAX)] = Field(
        description="Coins by symbol, or contracts where position_sizing.contracts names it; negative for short. An "
        "absent symbol is not held."
    )
