"""Allocations as the library returns them: fields as attributes, and the bytes that were published."""

from typing import Any

import orjson

from schemas.allocation import Allocation

__all__ = ["EnsembleAllocation", "PositionSizingDecision"]


class PositionSizingDecision:
    """One allocation: its fields as attributes (see `schemas.allocation.Allocation`), its bytes in `value`."""

    __slots__ = ("_fields", "value")

    def __init__(self, value: bytes) -> None:
        """Parse an allocation's bytes."""
        self.value = value
        self._fields: dict[str, Any] = orjson.loads(value)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            if name in Allocation.model_fields:
                return None
            msg = f"an allocation has no field {name!r}"
            raise AttributeError(msg) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._fields['decision_id']}: {self._fields['allocations']})"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields."""
        return dict(self._fields)

    def to_message(self) -> Allocation:
        """Return the allocation as the validated wire message."""
        return Allocation.model_validate_json(self.value)


class EnsembleAllocation(PositionSizingDecision):
    """The allocation of several signals; same fields, including those of the portfolio."""

    __slots__ = ()
