"""Field types shared by the messages, each with its unit and range.

The bounds are wide: they refuse wrong units and values that would overflow later, not bold claims.
"""

from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Le
from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from schemas.rules import TIMESTAMP_MAX_NS, TIMESTAMP_MIN_NS, Fault, broken
from schemas.vocabulary import ACTIONS, SIDE, Action, plain_word

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]
"""A name chosen by the user."""
StrategyId = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._:/]|[A-Za-z0-9._:/-]{2,64})$")]
"""A strategy's name. "-" alone is reserved for holdings that no strategy asked for."""
DecisionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]
"""`{journal_id}-{partition}-{offset}-{portfolio_id}`."""
JournalId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z2-7]{8}$")]
"""8 base32 characters."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A sha256, in lower-case hex."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z _-]{0,63}$")]
"""A label; case is ignored."""
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""An identifier of this package, in snake_case."""
Text = Annotated[str, StringConstraints(max_length=512)]
"""Free text."""
Said = Annotated[str, StringConstraints(max_length=512, pattern=r"\S")]
"""Free text that must not be blank."""

TimestampNs = Annotated[
    int,
    Ge(TIMESTAMP_MIN_NS),
    Le(TIMESTAMP_MAX_NS),
    Field(description="Nanoseconds since 1970-01-01 UTC."),
]
Offset = Annotated[int, Ge(0), Le(2**63 - 1)]
Index = Annotated[int, Ge(0), Le(2**31 - 1)]
Count = Annotated[int, Ge(1), Le(2**31 - 1)]

Unit = Annotated[float, Ge(0), Le(1)]
"""From 0 to 1."""
Price = Annotated[float, Ge(1e-18), Le(1e15)]
"""USD per coin."""
Coins = Annotated[float, Ge(0), Le(1e18)]
Quantity = Annotated[float, Ge(-1e18), Le(1e18)]
"""Coins held: positive long, negative short."""
Usd = Annotated[float, Ge(0), Le(1e18)]
Equity = Annotated[float, Ge(0.01), Le(1e15)]
"""USD; at least one cent, because weights are shares of it."""
Return = Annotated[float, Ge(-1), Le(1000)]
"""A ratio: 0.01 is one percent; at least -1, a total loss."""
ClaimedReturn = Annotated[float, Ge(-1000), Le(1000)]
"""A claimed return, non-negative or with the action's sign; 0.01 is one percent."""
Volatility = Annotated[float, Ge(1e-9), Le(1000)]
"""Standard deviation of a return, as a ratio."""
SignalReturn = Annotated[float, Ge(-1), Le(1)]
"""A return claimed by a signal over its horizon: 1 is 100 %. Larger values are percentages or errors."""
SignalVolatility = Annotated[float, Ge(1e-6), Le(10)]
"""A standard deviation claimed by a signal: from a stable coin's over seconds to 1,000 % over the horizon."""
RealizedReturn = Annotated[float, Ge(-1), Le(100)]
"""A realised return: at most a hundredfold gain in one holding."""
FundingRate = Annotated[float, Ge(-0.25), Le(0.25)]
"""A ratio per funding interval. Venues cap it at 0.04 or less, so larger values have the wrong unit."""
OpenInterestChange = Annotated[float, Ge(-1), Le(100)]
"""A ratio: at least -1, the whole open interest; that of a new contract may grow a hundredfold in a day."""
Reading = Annotated[float, Ge(-1e6), Le(1e6)]
"""An indicator; extreme values are valid."""
Seconds = Annotated[float, Ge(0), Le(315_360_000)]
"""Up to ten years."""
Horizon = Annotated[float, Ge(0.001), Le(315_360_000)]
"""A millisecond to ten years, in seconds."""
Hours = Annotated[float, Ge(0.01), Le(8760)]
"""36 seconds to a year; shorter intervals could overflow when a rate is converted to 8 hours."""


def _no_lookalike(side: Any) -> Any:
    """Refuse True and 1.0, which Python treats as equal to 1."""
    if isinstance(side, bool | float):
        raise broken(Fault("wrong_type", "", f"must be a string or an integer, was {side!r}"))
    return side


def _in_plain_words(action: Any) -> Any:
    return plain_word(action) if isinstance(action, str) else action


def in_any_case(words: tuple[str, ...]) -> str:
    """Return a pattern of JSON Schema for words in any case, with spaces or hyphens for underscores.

    >>> in_any_case(("buy",))
    '^([Bb][Uu][Yy])$'
    """
    patterns = ("".join("[_ -]" if each == "_" else f"[{each.upper()}{each}]" for each in word) for word in words)
    return f"^({'|'.join(patterns)})$"


BUYS: Final = tuple(action for action in ACTIONS if SIDE[action] > 0)
ActionWord = Annotated[
    Action,
    BeforeValidator(_in_plain_words),
    WithJsonSchema({"type": "string", "pattern": in_any_case(ACTIONS)}),
]
"""strong_buy, buy, hold, sell or strong_sell, in any case; spaces and hyphens count as underscores."""


Side = Annotated[Literal[1, -1, "buy", "sell", "long", "short"], BeforeValidator(_no_lookalike)]
"""1, buy and long gain when the price rises; -1, sell and short when it falls."""
