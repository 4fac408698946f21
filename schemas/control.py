"""Operator commands: settings, trading states, portfolio value, policy mode, slots to be freed."""

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo, field_validator
from pydantic.config import JsonDict

from schemas.base import Message
from schemas.errors import InvalidControlException, InvalidMessage
from schemas.rules import Fault, broken, within
from schemas.units import Equity, Id, Said, Sha256, TimestampNs
from schemas.vocabulary import ControlKind, PolicyMode, TradingState

Scope = Annotated[str, StringConstraints(pattern=r"^(all|(portfolio|strategy|symbol):[A-Za-z0-9._:/-]{1,64})$")]
"""all, portfolio:P, strategy:S or symbol:X."""

PolicyScope = Annotated[str, StringConstraints(pattern=r"^(all|(portfolio|strategy):[A-Za-z0-9._:/-]{1,64})$")]
"""all, portfolio:P or strategy:S."""

ForgetScope = Annotated[str, StringConstraints(pattern=r"^(portfolio|strategy):[A-Za-z0-9._:/-]{1,64}$")]
"""portfolio:P or strategy:S."""


class SettingsChange(Message):
    """A complete tree of decision settings, and the hash of the settings it was based on.

    Applied if the base is in force, a no-op if the tree is already in force, rejected as a conflict otherwise.
    """

    base_hash: Sha256 = Field(description="sha256 of the settings that the change is based on, as hex.")
    hash: Sha256 = Field(description="sha256 of `tree` as JSON with sorted keys, as hex.")
    tree: dict[str, Any] = Field(description="Every decision section, fully resolved, defaults included.")


class TradingStateChange(Message):
    """Sets a trading state: ACTIVE trades freely, REDUCING only reduces positions, HALTED sets targets to zero."""

    scope: Scope = Field(description="all, portfolio:P, strategy:S or symbol:X.")
    state: TradingState = Field(description="State from now on.")
    everything: bool = Field(
        default=False,
        description="With scope all and state ACTIVE: also ends every halt and reduction of a narrower scope.",
    )

    @field_validator("everything")
    @classmethod
    def _resumes_all(cls, everything: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 pydantic passes it so
        """Refuse it where it would say one thing and do another: a halt of all with it would end others."""
        if everything and (info.data.get("scope"), info.data.get("state")) != ("all", "ACTIVE"):
            raise broken(Fault("inconsistent", "", "must stand with scope all and state ACTIVE alone"))
        return everything


class PortfolioValue(Message):
    """A portfolio's equity, set by an operator."""

    portfolio_id: Id = Field(description="Portfolio to set.")
    value_usd: Equity = Field(description="Equity in USD.")
    reset_peak: bool = Field(
        default=False, description="Also reset the equity peak, so that the drawdown becomes zero."
    )


class RlMode(Message):
    """Sets the policy's mode. Closed gates of portfolios in scope are reset: evidence is collected from the start.

    A strategy scope resets no gate.
    """

    mode: PolicyMode = Field(description="off: not asked; shadow: asked and scored; live: may nudge sizes.")
    scope: PolicyScope = Field("all", description="all, portfolio:P or strategy:S.")


class Forget(Message):
    """Frees the slots of strategies that have neither a live claim nor a position: weights, posteriors, open claims.

    Refused for a strategy that has one; a scope of a portfolio frees the slots of its other strategies.
    """

    scope: ForgetScope = Field(description="strategy:S, or portfolio:P for all its idle strategies.")
    portfolio_id: Id | None = Field(None, description="With strategy:S: only in this portfolio; null: in every one.")

    @field_validator("portfolio_id")
    @classmethod
    def _of_a_strategy(cls, portfolio: str | None, info: ValidationInfo) -> str | None:
        if portfolio is not None and not str(info.data.get("scope", "strategy:")).startswith("strategy:"):
            raise broken(Fault("inconsistent", "", "must stand with a scope of a strategy alone"))
        return portfolio


PAYLOADS: dict[str, type[Message]] = {
    "settings": SettingsChange,
    "trading_state": TradingStateChange,
    "portfolio_value": PortfolioValue,
    "rl_mode": RlMode,
    "forget": Forget,
}


def _payload_of(kind: str, payload: type[Message]) -> JsonDict:
    return {
        "if": {"properties": {"kind": {"const": kind}}},
        "then": {"properties": {"payload": payload.model_json_schema()}},
    }


class Control(Message):
    """An operator command. Every journal partition answers with an alert of kind `control_applied`."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_payload_of(*item) for item in PAYLOADS.items()]})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidControlException
    bytes_max: ClassVar[int] = 65_536
    """Every journal partition gets a copy; the tree of all settings has 3 kB."""

    control_id: Id = Field(description="Identifies the command; the answering alerts carry it as their subject.")
    kind: ControlKind = Field(description="Kind of payload.")
    payload: SettingsChange | TradingStateChange | PortfolioValue | RlMode | Forget = Field(
        description="Payload of that kind."
    )
    reason: Said = Field(description="Why it was issued; for readers of the journal.")
    by: Said = Field(description="Who issued it; for readers of the journal.")
    timestamp_ns: TimestampNs = Field(description="Time of issue, ns since 1970 UTC.")

    @field_validator("payload", mode="before")
    @classmethod
    def _as_kind_says(cls, payload: Any, info: ValidationInfo) -> Any:
        model = PAYLOADS.get(info.data.get("kind", ""))
        if model is None or isinstance(payload, model):
            return payload
        try:
            return model.model_validate(payload)
        except ValidationError as error:
            raise within(error) from None
