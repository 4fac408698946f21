"""What an operator orders: settings, trading states, a portfolio's value, the policy's mode."""

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo, field_validator
from pydantic.config import JsonDict

from schemas.base import Message
from schemas.errors import InvalidControlException, InvalidMessage
from schemas.rules import within
from schemas.units import Equity, Id, Said, Sha256, TimestampNs
from schemas.vocabulary import ControlKind, PolicyMode, TradingState

Scope = Annotated[str, StringConstraints(pattern=r"^(all|(portfolio|strategy|symbol):[A-Za-z0-9._:/-]{1,64})$")]
"""all, portfolio:P, strategy:S or symbol:X."""

PolicyScope = Annotated[str, StringConstraints(pattern=r"^(all|(portfolio|strategy):[A-Za-z0-9._:/-]{1,64})$")]
"""all, portfolio:P or strategy:S."""


class SettingsChange(Message):
    """A whole tree of decision settings, and the hash of the one it was based on.

    In force is the base: applied. In force is the tree already: nothing to do. Else it is a conflict and rejected.
    """

    base_hash: Sha256 = Field(description="sha256 of the settings it was made from, as hex.")
    hash: Sha256 = Field(description="sha256 of `tree` as JSON with sorted keys, as hex.")
    tree: dict[str, Any] = Field(description="Every decision section, fully resolved, defaults included.")


class TradingStateChange(Message):
    """Who may still trade: ACTIVE all, REDUCING only smaller, HALTED nothing (targets go to zero)."""

    scope: Scope = Field(description="all, portfolio:P, strategy:S or symbol:X.")
    state: TradingState = Field(description="The state from now on.")


class PortfolioValue(Message):
    """A portfolio's equity, told by hand."""

    portfolio_id: Id = Field(description="Whose value.")
    value_usd: Equity = Field(description="Equity in USD.")
    reset_peak: bool = Field(default=False, description="Forget the running maximum, so that no drawdown is left.")


class RlMode(Message):
    """How far the policy may act; `live` opens a gate that has closed, with a fresh sequence."""

    mode: PolicyMode = Field(description="off: not asked; shadow: asked and scored; live: it may nudge.")
    scope: PolicyScope = Field("all", description="all, portfolio:P or strategy:S.")


PAYLOADS: dict[str, type[Message]] = {
    "settings": SettingsChange,
    "trading_state": TradingStateChange,
    "portfolio_value": PortfolioValue,
    "rl_mode": RlMode,
}


def _payload_of(kind: str, payload: type[Message]) -> JsonDict:
    return {
        "if": {"properties": {"kind": {"const": kind}}},
        "then": {"properties": {"payload": payload.model_json_schema()}},
    }


class Control(Message):
    """An operator's order. Every journal partition answers it with an alert of kind `control_applied`."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_payload_of(*item) for item in PAYLOADS.items()]})
    refused_as: ClassVar[type[InvalidMessage]] = InvalidControlException

    control_id: Id = Field(description="Names the order; the answers carry it as their subject.")
    kind: ControlKind = Field(description="What the payload is.")
    payload: SettingsChange | TradingStateChange | PortfolioValue | RlMode = Field(description="As kind says.")
    reason: Said = Field(description="Why, for those who read the journal.")
    by: Said = Field(description="Who, for those who read the journal.")
    timestamp_ns: TimestampNs = Field(description="When it was ordered, ns since 1970 UTC.")

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
