"""The policy: what it is asked, what it answers, why it did not.

(decision_id, strategy_id, symbol) name a question: one decision may ask about several cells.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidAdviceException, InvalidMessage
from schemas.units import (
    ClaimedReturn,
    DecisionId,
    Equity,
    Horizon,
    Id,
    Price,
    Reading,
    Return,
    StrategyId,
    Text,
    TimestampNs,
    Unit,
    Volatility,
)
from schemas.vocabulary import Regime

Weight = Annotated[float, Field(ge=-100, le=100)]


NoAdviceReason = Literal["timeout", "refused", "open", "invalid", "late", "disabled"]
"""timeout: no whole answer in time. refused: no connection, a status other than 200, or too many waiting. open: the
breaker's doing. invalid: the answer broke a rule. late: asked or answered past the deadline. disabled: no endpoint."""
REASONS: tuple[NoAdviceReason, ...] = get_args(NoAdviceReason)


class RlRequest(Message):
    """A question to the policy about one cell of one decision; an answer past the deadline counts no more."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="The decision that may be revised.")
    portfolio_id: Id = Field(description="Its portfolio.")
    strategy_id: StrategyId = Field(description="Whose signal was decided.")
    symbol: Id = Field(description="What it is about.")
    w_base: Weight = Field(description="Signed share of the portfolio's value that the rules came to.")
    action: Literal["buy", "sell"] = Field(description="Side of the signal's forecast.")
    confidence: Unit = Field(description="The signal's.")
    risk_score: Unit = Field(description="The signal's.")
    regime: Regime = Field(description="Confirmed for the symbol.")
    expected_return: Annotated[ClaimedReturn, Field(ge=0)] = Field(
        description="Claimed over the horizon, in the side's favour."
    )
    predicted_volatility: Volatility = Field(description="Standard deviation of the return over the horizon.")
    horizon_s: Horizon = Field(description="Seconds that the forecast is about.")
    price: Price | None = Field(None, description="Last price, USD; null: none is known.")
    portfolio_value: Equity = Field(description="The portfolio's value, USD.")
    state: Annotated[list[Reading], Field(max_length=1024)] = Field(
        description="The state vector; engines/handlers/policy_request.py names its numbers."
    )
    deadline_ns: TimestampNs = Field(description="Journal time after which no answer counts, ns since 1970 UTC.")


class Advice(Message):
    """The policy's answer; it nudges, within bounds, and never above a rule."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="The question it answers, with strategy_id and symbol.")
    portfolio_id: Id = Field(description="Of the question.")
    strategy_id: StrategyId = Field(description="Of the question.")
    symbol: Id = Field(description="Of the question.")
    nudge: Weight = Field(description="Relative change of w_base that it asks for, before clipping.")
    confidence: Unit = Field(description="Below .5 it does not count.")
    model_version: str = Field(max_length=128, description="What the policy calls itself.")
    predicted_return: Return | None = Field(None, description="What the policy expects; noted, not used.")
    predicted_volatility: Volatility | None = Field(None, description="What the policy expects; noted, not used.")
    raw: str = Field(max_length=65_536, description="The answer as it came.")


class NoAdvice(Message):
    """There is no answer, and this is why."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="The question that stays open no longer, with strategy_id and symbol.")
    portfolio_id: Id = Field(description="Of the question.")
    strategy_id: StrategyId = Field(description="Of the question.")
    symbol: Id = Field(description="Of the question.")
    reason: NoAdviceReason = Field(
        description="timeout, refused, open (the breaker's doing), invalid, late or disabled."
    )
    detail: Text = Field("", description="Place, rule and value, for people.")
