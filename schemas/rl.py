"""The policy: what it is asked, what it answers, why it did not."""

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import Message
from schemas.errors import InvalidAdviceException, InvalidMessage
from schemas.units import DecisionId, Id, Reading, StrategyId, TimestampNs, Unit, Word

Weight = Annotated[float, Field(ge=-100, le=100)]


class RlRequest(Message):
    """A question to the policy about one decision; an answer past the deadline counts no more."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="The decision that may be revised.")
    portfolio_id: Id = Field(description="Its portfolio.")
    strategy_id: StrategyId = Field(description="Whose signal was decided.")
    symbol: Id = Field(description="What it is about.")
    w_base: Weight = Field(description="Signed share of the portfolio's value that the rules came to.")
    state: Annotated[list[Reading], Field(max_length=1024)] = Field(description="The state vector.")
    deadline_ns: TimestampNs = Field(description="Journal time after which no answer counts, ns since 1970 UTC.")


class Advice(Message):
    """The policy's answer; it nudges, within bounds, and never above a rule."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="The question it answers.")
    nudge: Weight = Field(description="Relative change of w_base that it asks for, before clipping.")
    confidence: Unit = Field(description="Below .5 it does not count.")
    model_version: str = Field(max_length=128, description="What the policy calls itself.")
    raw: str = Field(max_length=65_536, description="The answer as it came.")


class NoAdvice(Message):
    """There is no answer, and this is why."""

    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException

    decision_id: DecisionId = Field(description="The question that stays open no longer.")
    reason: Word = Field(description="timeout, breaker_open, refused, invalid, low_confidence, …")
