"""The two base models: messages on the wire, and frozen settings."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

RECORD_BYTES_MAX = 1_048_576
"""Largest record of any kind."""


class Message(BaseModel):
    """Base of messages: strict types, finite numbers, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)
    bytes_max: ClassVar[int] = RECORD_BYTES_MAX
    """Largest record of this kind."""


class Frozen(BaseModel):
    """Base of settings: strict types, finite numbers, unknown fields refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
