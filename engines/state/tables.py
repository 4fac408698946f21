"""Tables: the records of one journal partition, by key, and which of them have changed since the last checkpoint."""

from typing import TypeVar

__all__ = ["TABLES", "Key", "RecordTable", "TouchedRecords"]

TABLES = (
    "kelly-posteriors",
    "pools",
    "conformal-scores",
    "predictions",
    "correlations",
    "markets",
    "regimes",
    "strategies",
    "books",
    "targets",
    "states",
    "questions",
    "gates",
)
"""Names of the tables that a checkpoint of sizing writes."""

Key = tuple[str, ...]
R = TypeVar("R")
TouchedRecords = dict[tuple[str, Key], None]
"""(table, key) of each record that changed."""


class RecordTable(dict[Key, R]):
    """The records of one table. Change them with `put` and `drop`, which mark the record as touched."""

    __slots__ = ("_name", "_touched")

    def __init__(self, name: str, touched: TouchedRecords) -> None:
        """Begin empty; `touched` is shared by all tables of a state."""
        super().__init__()
        self._name, self._touched = name, touched

    def put(self, key: Key, record: R) -> None:
        """Store a record."""
        self[key] = record
        self._touched[self._name, key] = None

    def drop(self, key: Key) -> None:
        """Delete a record, if it is there."""
        if self.pop(key, None) is not None:
            self._touched[self._name, key] = None
