"""Predicts whether a dead letter would be accepted now, with the code that accepts records, on discarded state."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engines.handlers.effects import FoldResult, Journaled
from engines.parameters import DecisionParams
from engines.state.partition import State
from schemas import dead_letter as schema
from streams.journal.dead_letters import Letter
from streams.journal.entries import SourcePlace
from streams.journal.topics import DLQ
from streams.processing.memory_cluster import Stored
from streams.processing.ports import Record, Send
from streams.stages.ingest import INTAKES, ingest
from streams.stages.market import MarketFold
from streams.stages.sizing import SizingFold

AFTER_ALL = SourcePlace("", 2**31 - 1, 0, 0)
"""Source place of a trial: an epoch after every record ever accepted."""
ANY = DecisionParams()
"""Default settings: a trial compares no prices, so a worker's do not matter."""
OLDER = {"older_signal", "older_positions", "duplicate_signal"}
"""Notes of sizing on valid records that it skips."""


class TrialVerdict(NamedTuple):
    """What would happen to a record."""

    objection: str = ""
    """Why it would be refused again; "" if it would be accepted."""
    remark: str = ""
    """A remark on one that would be accepted."""


def entries(letter: Letter, now_ns: int, partitions: int, number: int = 0) -> Sequence[Send]:
    """Return the journal entries that a letter's record would become now, or the dead letter that it would be again.

    `number` increases from letter to letter of one trial. A record of `prices` becomes no entry by itself: its step is
    journaled later.
    """
    record = Stored(letter.offset, letter.key, letter.value, schema.original(letter.headers))
    if letter.topic in INTAKES:
        return ingest(AFTER_ALL._replace(topic=letter.topic, offset=number), record, now_ns, partitions)
    return MarketFold(0, partitions, lambda: ANY, lambda: now_ns).fold(record)


def refused(sends: Sequence[Send]) -> str:
    """Return why a record is a dead letter again; "" if it is not."""
    for send in sends:
        if send.topic.endswith(DLQ):
            why = schema.read(send.headers)
            return "" if why is None else f"{why.code}: {why.message}"
    return ""


class Trial:
    """Folds the entries of replays into current states, in order, and returns what sizing would do with them."""

    def __init__(self, states: Mapping[int, State]) -> None:
        """Try on `states`: journal partition → its state, which is modified."""
        self._folds = {}
        for partition, state in states.items():
            fold = SizingFold(partition, self._observe)
            fold.state = state
            self._folds[partition] = fold
        self._offset = 2**53
        self._notes: set[str] = set()

    def _observe(self, _entry: Journaled, folded: FoldResult, _elapsed_ns: int) -> None:
        self._notes |= {note.name for note in folded.notes}

    def verdict(self, sends: Sequence[Send]) -> TrialVerdict:
        """Return what would happen to a record that is journaled as `sends`."""
        if objection := refused(sends):
            return TrialVerdict(objection)
        self._notes.clear()
        for send in sends:
            self._offset += 1
            made = self._folds[send.partition or 0].fold(_as_record(send, self._offset))
            if objection := refused(made):
                return TrialVerdict(objection)
        older = sorted(self._notes & OLDER)
        return TrialVerdict(remark=f"of no effect: {', '.join(older)}" if older else "")


def _as_record(send: Send, offset: int) -> Record:
    return Stored(offset, send.key, send.value, send.headers)
