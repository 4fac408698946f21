"""Policy messages: the question, the answer, and the reason for no answer.

(decision_id, strategy_id, symbol) identify a question: one decision may ask about several cells.
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
"""timeout: no complete answer in time. refused: no connection, a status other than 200, or too many waiting. open: the
circuit breaker is open. invalid: the answer broke a rule. late: asked or answered after the deadline. disabled: no
endpoint is configured."""
REASONS: tuple[NoAdviceReason, ...] = get_args(NoAdviceReason)


class RlRequest(Message):
    """A question to the policy about one cell of one decision; answers after the deadline are ignored."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="Decision that may be revised.")
    portfolio_id: Id = Field(description="Portfolio of the decision.")
    strategy_id: StrategyId = Field(description="Strategy whose signal was decided.")
    symbol: Id = Field(description="Symbol of the signal.")
    w_base: Weight = Field(description="Target of the rules, as a signed share of the portfolio's value.")
    action: Literal["buy", "sell"] = Field(description="Side of the signal's forecast.")
    confidence: Unit = Field(description="Confidence of the signal.")
    risk_score: Unit = Field(description="Risk score of the signal.")
    regime: Regime = Field(description="Confirmed regime of the symbol.")
    expected_return: Annotated[ClaimedReturn, Field(ge=0)] = Field(
        description="Claimed return over the horizon in the direction of the side, a ratio."
    )
    predicted_volatility: Volatility = Field(description="Standard deviation of the return over the horizon.")
    horizon_s: Horizon = Field(description="Horizon of the forecast in seconds.")
    price: Price | None = Field(None, description="Last price, USD; null: unknown.")
    portfolio_value: Equity = Field(description="Value of the portfolio, USD.")
    state: Annotated[list[Reading], Field(max_length=1024)] = Field(
        description="State vector; engines/handlers/policy_request.py names its elements."
    )
    deadline_ns: TimestampNs = Field(description="Journal time after which answers are ignored, ns since 1970 UTC.")


class Advice(Message):
    """The policy's answer: a nudge within bounds, applied before the caps."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="Identifies the question, with strategy_id and symbol.")
    portfolio_id: Id = Field(description="As in the question.")
    strategy_id: StrategyId = Field(description="As in the question.")
    symbol: Id = Field(description="As in the question.")
    nudge: Weight = Field(description="Requested relative change of w_base, before clipping.")
    confidence: Unit = Field(description="Weight of the nudge; below rl.min_confidence (default .5) it is ignored.")
    model_version: str = Field(max_length=128, description="Version that the policy reports for itself.")
    predicted_return: Return | None = Field(None, description="Return that the policy predicts; recorded, not used.")
    predicted_volatility: Volatility | None = Field(
        None, description="Volatility that the policy predicts; recorded, not used."
    )
    raw: str = Field(max_length=65_536, description="The answer as received.")


class NoAdvice(Message):
    """The reason why a question got no answer."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="Identifies the question, with strategy_id and symbol.")
    portfolio_id: Id = Field(description="As in the question.")
    strategy_id: StrategyId = Field(description="As in the question.")
    symbol: Id = Field(description="As in the question.")
    reason: NoAdviceReason = Field(description="timeout, refused, open (circuit breaker), invalid, late or disabled.")
    detail: Text = Field("", description="Place, rule and value, as readable text.")
