"""Would a dead letter be taken now? Asked of the very code that takes records, on a state that nobody keeps."""

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
"""A trial stands after everything that was ever taken of its topic: a later epoch."""
ANY = DecisionParams()
"""Settings of no worker: no price is tried against another."""
OLDER = {"older_signal", "older_positions", "duplicate_signal"}
"""Notes of sizing about records that it passes over, by no fault of theirs."""


class TrialVerdict(NamedTuple):
    """What would become of a record."""

    objection: str = ""
    """Why it would be refused again; "" where it would be taken."""
    remark: str = ""
    """What else there is to know of one that would be taken."""


def entries(letter: Letter, now_ns: int, partitions: int, number: int = 0) -> Sequence[Send]:
    """Return the journal entries that a letter's record would become now, or the dead letter that it would be again.

    `number` rises from letter to letter of one trial. A record of `prices` becomes no entry by itself: its step is
    journaled later.
    """
    record = Stored(letter.offset, letter.key, letter.value, schema.original(letter.headers))
    if letter.topic in INTAKES:
        return ingest(AFTER_ALL._replace(topic=letter.topic, offset=number), record, now_ns, partitions)
    return MarketFold(0, partitions, lambda: ANY, lambda: now_ns).fold(record)


def refused(sends: Sequence[Send]) -> str:
    """Return why a record is a dead letter again, "" where it is none."""
    for send in sends:
        if send.topic.endswith(DLQ):
            why = schema.read(send.headers)
            return "" if why is None else f"{why.code}: {why.message}"
    return ""


class Trial:
    """Folds what replays would journal into states of this moment, in order, and says what sizing makes of it."""

    def __init__(self, states: Mapping[int, State]) -> None:
        """Try on `states`: journal partition → its state, which is used up."""
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
        """Return what becomes of a record that would be journaled as `sends`."""
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
