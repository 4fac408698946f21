"""The messages that have a JSON Schema; a new message is added here."""

from typing import Any

from schemas.alert import Alert
from schemas.allocation import Allocation
from schemas.base import Message
from schemas.cascade import CascadeIndicators
from schemas.control import Control, PortfolioValue, RlMode, SettingsChange, TradingStateChange
from schemas.dead_letter import DeadLetter
from schemas.entry import Adopt, Engine, Entry, Genesis, Step, Tick
from schemas.outcome import TradeOutcome
from schemas.positions import Positions
from schemas.price import PriceTick, PriceTicks
from schemas.rl import Advice, NoAdvice, RlRequest
from schemas.signal import TacticalSignal

MESSAGES: dict[str, type[Message]] = {
    "tactical-signal": TacticalSignal,
    "cascade-indicators": CascadeIndicators,
    "price-tick": PriceTick,
    "price-ticks": PriceTicks,
    "trade-outcome": TradeOutcome,
    "positions": Positions,
    "control": Control,
    "settings-change": SettingsChange,
    "trading-state-change": TradingStateChange,
    "portfolio-value": PortfolioValue,
    "rl-mode": RlMode,
    "allocation": Allocation,
    "alert": Alert,
    "entry": Entry,
    "genesis": Genesis,
    "step": Step,
    "tick": Tick,
    "engine": Engine,
    "adopt": Adopt,
    "rl-request": RlRequest,
    "advice": Advice,
    "no-advice": NoAdvice,
    "dead-letter": DeadLetter,
}


def schema_of(name: str) -> dict[str, Any]:
    """Return a message's JSON Schema, draft 2020-12.

    Rules that it cannot express: integers are written without a fraction, a price lies between low and high, no key
    is repeated, and the limits of size and depth.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:himari:layer3:{name}:v1",
        **_closed(MESSAGES[name].model_json_schema()),
    }


def _closed(schema: Any) -> Any:
    """Refuse keys that do not match a key pattern; pydantic's schema allows them."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    return closed | {"additionalProperties": False} if "patternProperties" in schema else closed
