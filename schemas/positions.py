"""What is really held."""

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidMessage, InvalidPositionsException
from schemas.units import Equity, Id, Offset, Quantity, TimestampNs

SYMBOLS_MAX = 2_000


class Positions(Message):
    """What a portfolio really holds; the newest timestamp wins. From then on allocations say `basis: positions`."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidPositionsException

    portfolio_id: Id = Field(description="Whose positions.")
    timestamp_ns: TimestampNs = Field(description="When they were counted, ns since 1970 UTC.")
    equity: Equity | None = Field(None, description="Value of the portfolio in USD. Absent: as it was.")
    as_of_sequence: Offset | None = Field(
        None,
        description="Sequence of the last allocation that the reporter had applied. A report below the newest change "
        "of a target counts for its equity alone. Absent: judged by the time of the report.",
    )
    quantities: Annotated[dict[Id, Quantity], Field(max_length=SYMBOLS_MAX)] = Field(
        description="Coins by symbol, negative for short. A symbol that is not named is not held."
    )
