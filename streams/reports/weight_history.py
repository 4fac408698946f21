"""Strategy weights at each decision, as rows; `streams/reports/export.py` writes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

BILLION = 1_000_000_000


class WeightRecord(NamedTuple):
    """A strategy's weight on a symbol at a decision. The fields are the columns of the export."""

    timestamp_ns: int
    timestamp_iso: str
    strategy_id: str
    symbol: str
    weight: float
    """Weights of the live strategies sum to 1."""
    total_allocated_usd: float
    num_strategies: int
    drift_alert: bool


def of_allocation(fields: Mapping[str, Any]) -> list[WeightRecord]:
    """Return an allocation's rows by strategy and symbol; none if it was scaled by ratio."""
    weights = fields.get("strategy_weights") or {}
    timestamp_ns = fields["timestamp_ns"]
    return [
        WeightRecord(
            timestamp_ns,
            instant(timestamp_ns),
            cell["strategy_id"],
            cell["symbol"],
            weights[cell["strategy_id"]],
            fields["total_allocated_usd"],
            len(weights),
            fields["drift"]["alert"],
        )
        for cell in fields.get("cells", ())
        if cell["strategy_id"] in weights
    ]


def instant(timestamp_ns: int) -> str:
    """Return ns since 1970 as ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(timestamp_ns, BILLION)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000).isoformat()
