"""Weights: what each strategy counted at each decision, as rows for people and their spreadsheets."""

import csv
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["WeightRecord", "defused", "instant", "of_allocation", "write"]

BILLION = 1_000_000_000
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for a formula. Source: OWASP, CSV injection."""


class WeightRecord(NamedTuple):
    """One row of the weight history: a strategy on a symbol at a decision. The fields are the columns of the export."""

    timestamp_ns: int
    timestamp_iso: str
    strategy_id: str
    symbol: str
    weight: float
    """Among the live strategies, which sum to 1."""
    total_allocated_usd: float
    num_strategies: int
    drift_alert: bool


def of_allocation(fields: Mapping[str, Any]) -> list[WeightRecord]:
    """Return an allocation's rows, by strategy and symbol; none where it was decided by ratio."""
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


def write(path: str | Path, records: Iterable[WeightRecord]) -> int:
    """Write rows as CSV with a header; return how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(WeightRecord._fields)
        for record in records:
            writer.writerow([defused(cell) for cell in record])
            count += 1
    return count


def defused(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs: a text that would be a formula gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def instant(timestamp_ns: int) -> str:
    """Return ns since 1970 as ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(timestamp_ns, BILLION)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000).isoformat()
