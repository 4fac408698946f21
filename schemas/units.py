"""The numbers and names that messages share: each with its unit and its range.

The bounds are wide: they keep out slips of unit and values that would overflow further on, not bold claims.
"""

from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Le
from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from schemas.rules import TIMESTAMP_MAX_NS, TIMESTAMP_MIN_NS, Fault, broken
from schemas.vocabulary import ACTIONS, SIDE, Action, plain_word

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]
"""A name that users choose."""
StrategyId = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._:/]|[A-Za-z0-9._:/-]{2,64})$")]
"""A strategy's name; "-" alone is ours: what a portfolio holds that no strategy asked for."""
DecisionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]
"""`{journal_id}-{partition}-{offset}-{portfolio_id}`."""
JournalId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z2-7]{8}$")]
"""8 base32 characters."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A sha256, in lower-case hex."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z _-]{0,63}$")]
"""A word in any case."""
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A word of ours, in snake_case."""
Text = Annotated[str, StringConstraints(max_length=512)]
"""What a person says."""
Said = Annotated[str, StringConstraints(max_length=512, pattern=r"\S")]
"""What a person has to say: not blank."""

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
"""USD for one coin."""
Coins = Annotated[float, Ge(0), Le(1e18)]
Quantity = Annotated[float, Ge(-1e18), Le(1e18)]
"""Coins held: positive long, negative short."""
Usd = Annotated[float, Ge(0), Le(1e18)]
Equity = Annotated[float, Ge(0.01), Le(1e15)]
"""USD; at least a cent, since weights are shares of it."""
Return = Annotated[float, Ge(-1), Le(1000)]
"""A ratio: 0.01 is one percent; a coin can lose no more than all of itself."""
ClaimedReturn = Annotated[float, Ge(-1000), Le(1000)]
"""A claimed return, non-negative or signed as the action; 0.01 is one percent."""
Volatility = Annotated[float, Ge(1e-9), Le(1000)]
"""Standard deviation of a return, as a ratio."""
SignalReturn = Annotated[float, Ge(-1), Le(1)]
"""A return that a signal may claim over its horizon: 1 is 100 %. Larger ones were given in percent, or are slips."""
SignalVolatility = Annotated[float, Ge(1e-6), Le(10)]
"""A standard deviation that a signal may claim: a stable coin's over seconds to 1,000 % over the horizon."""
RealizedReturn = Annotated[float, Ge(-1), Le(100)]
"""A return that was realised: a hundredfold in one holding at most."""
FundingRate = Annotated[float, Ge(-0.25), Le(0.25)]
"""A ratio per funding interval. Venues cap it at .04 or less, so a quarter is a slip of the unit."""
OpenInterestChange = Annotated[float, Ge(-1), Le(100)]
"""A ratio: no more than all of the open interest can go; a new contract's may come a hundredfold in a day."""
Reading = Annotated[float, Ge(-1e6), Le(1e6)]
"""An indicator: extremes are news, not errors."""
Seconds = Annotated[float, Ge(0), Le(315_360_000)]
"""Up to ten years."""
Horizon = Annotated[float, Ge(0.001), Le(315_360_000)]
"""A millisecond to ten years, in seconds."""
Hours = Annotated[float, Ge(0.01), Le(8760)]
"""Half a minute to a year: a rate per 5e-324 hours would have no end as a rate per 8 hours."""


def _no_lookalike(side: Any) -> Any:
    """Refuse True and 1.0, which Python takes for 1."""
    if isinstance(side, bool | float):
        raise broken(Fault("wrong_type", "", f"must be a word or an integer, was {side!r}"))
    return side


def _in_plain_words(action: Any) -> Any:
    return plain_word(action) if isinstance(action, str) else action


def in_any_case(words: tuple[str, ...]) -> str:
    """Return a pattern of JSON Schema for words in any case, with spaces or hyphens for underscores.

    >>> in_any_case(("buy",))
    '^([Bb][Uu][Yy])$'
    """
    told = ("".join("[_ -]" if each == "_" else f"[{each.upper()}{each}]" for each in word) for word in words)
    return f"^({'|'.join(told)})$"


BUYS: Final = tuple(action for action in ACTIONS if SIDE[action] > 0)
ActionWord = Annotated[
    Action,
    BeforeValidator(_in_plain_words),
    WithJsonSchema({"type": "string", "pattern": in_any_case(ACTIONS)}),
]
"""strong_buy, buy, hold, sell or strong_sell, in any case; spaces and hyphens count as underscores."""


Side = Annotated[Literal[1, -1, "buy", "sell", "long", "short"], BeforeValidator(_no_lookalike)]
"""1, buy, long: gains when the price rises; -1, sell, short: when it falls."""
