"""The two base models: messages on the wire, and frozen settings."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Base of messages: strict types, finite numbers, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Frozen(BaseModel):
    """Base of settings: strict types, finite numbers, unknown fields refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
