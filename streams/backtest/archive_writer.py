"""Leaves a backtest as an archive that `himari audit verify --archive` proves without a broker."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from engines.allocation import DECISION_VERSION
from schemas.errors import ConfigurationException
from streams.archives.archiver import ENTRIES, Archiver, Closed
from streams.archives.files import ArchivedRecord, arrow
from streams.archives.manifest import Manifest
from streams.journal import entries as journal
from streams.journal.genesis import BACKTEST_ID
from streams.processing.immediate import result_of

NS_PER_MS: Final = 1_000_000
OUTPUT: Final = "allocations"


class ArchiveWriter:
    """Archives one partition while it is folded; holds no more than one segment in memory.

    The archiver recomputes every segment before it is written.
    """

    def __init__(self, folder: Path, entries: int = ENTRIES) -> None:
        """Write to an empty folder. Raises: SizingError if pyarrow is missing."""
        arrow()
        self._archiver = Archiver(folder, Manifest.begun(folder, BACKTEST_ID, 1, DECISION_VERSION), entries=entries)
        self._entries = entries
        self._records: dict[str, list[ArchivedRecord]] = {journal.TOPIC: [], OUTPUT: []}
        self._ends = dict.fromkeys(self._records, 0)
        self._kept_from = 0

    def add(self, topic: str, key: bytes | None, value: bytes, at_ns: int) -> None:
        """Append a record to the journal or to the allocations."""
        offset = self._ends[topic]
        self._records[topic].append(ArchivedRecord(offset, at_ns // NS_PER_MS, key, value))
        self._ends[topic] = offset + 1

    def settle(self) -> None:
        """Archive whole segments, once all allocations of the last entry are added."""
        if self._ends[journal.TOPIC] - self._kept_from > self._entries:
            self._archive()

    def close(self) -> str:
        """Archive what is left; return the archive's head."""
        self._archiver.rest = True
        self._archive()
        return self._archiver.manifest.head

    def _archive(self) -> None:
        closed = Closed(self._ends[journal.TOPIC], self._ends[OUTPUT])
        result_of(self._archiver.partition(self, 0, closed))
        manifest = self._archiver.manifest
        for topic, records in self._records.items():
            end = manifest.end(topic, 0)
            self._records[topic] = [each for each in records if each.offset >= end]
        self._kept_from = manifest.end(journal.TOPIC, 0)

    async def chunks(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[Sequence[ArchivedRecord]]:
        """Yield the records from `first` to before `end` that are not archived yet."""
        del partition
        yield [each for each in self._records[topic] if first <= each.offset < end]


def empty(folder: Path) -> Path:
    """Return a folder that a new archive may take the place of. Raises: ConfigurationException: it is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationException(str(folder), "", "must be a new or empty folder for the archive")
    return folder
