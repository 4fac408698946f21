"""Recovery of a journal that another decision version began: its part is skipped, up to the state it handed over."""

from collections.abc import Callable

from streams.journal import entries as journal
from streams.journal.handover import HandoverReader, HandoverState
from streams.processing.ports import FoldRecord, Record, Send


class HandoverFold:
    """Folds a journal partition from its first entry, for one decision version.

    Entries go to `fold` from this version's own Genesis on, or from the state that was handed over to it, which goes to
    `take_over` first. Entries of other versions before that are skipped: nothing is published for them.
    """

    def __init__(self, version: int, fold: FoldRecord, take_over: Callable[[HandoverState], None]) -> None:
        self._version, self._fold, self._take_over = version, fold, take_over
        self._reader: HandoverReader | None = HandoverReader(version)
        """None: this version decides."""
        self._held: list[Record] = []
        """Entries between the handover and the end of the state that it hands over."""

    def fold(self, record: Record) -> list[Send]:
        """Fold one journal entry; return what it publishes."""
        reader = self._reader
        if reader is None or record.value is None:
            return self._fold(record)
        entry = journal.read(record.offset, record.value)
        if entry.kind == "genesis" and entry.body["decision_version"] == self._version:
            self._reader = None
            return self._fold(record)
        if reader.offset >= 0:
            self._held.append(record)
        state = reader.take(entry)
        if reader.offset == entry.offset:
            self._held.clear()
        if state is None:
            return []
        held, self._held, self._reader = self._held, [], None
        self._take_over(state)
        return [send for each in held for send in self._fold(each)]
