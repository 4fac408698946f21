"""The two kinds of model: messages that cross the wire, and settings that are frozen."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """What crosses the wire: strict types, finite numbers, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Frozen(BaseModel):
    """What is configured: strict types, finite numbers, unknown fields refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
