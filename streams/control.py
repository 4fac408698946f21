"""Control records, as we write them ourselves."""

from collections.abc import Mapping
from typing import Any


def settings_order(payload: Mapping[str, Any], reason: str, by: str, now_ns: int) -> dict[str, Any]:
    """Return the control record that asks for other decision settings; its id names settings and moment."""
    return {
        "by": by,
        "control_id": f"settings-{payload['hash'][:16]}-{now_ns}",
        "kind": "settings",
        "payload": dict(payload),
        "reason": reason,
        "timestamp_ns": now_ns,
    }
