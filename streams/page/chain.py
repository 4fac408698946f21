"""The hash chain of one portfolio's allocations, as far as the page has seen it."""

from collections import OrderedDict
from typing import Final, Literal

ChainWord = Literal["intact", "gap", "fork"]

REMEMBERED: Final = 64
"""Sequences whose hashes are kept to tell a repeat from a fork."""


class AllocationChain:
    """Checks each allocation against the one before it. A fork or a gap stays on record."""

    __slots__ = ("_hashes", "last", "since", "text", "word")

    def __init__(self) -> None:
        self.word: ChainWord = "intact"
        self.text = ""
        """What is wrong; "" for an intact chain."""
        self.last = 0
        """Newest sequence; 0 before the first."""
        self.since = 0
        """Sequence from which every link has been checked."""
        self._hashes: OrderedDict[int, str] = OrderedDict()

    def take(self, sequence: int, previous_hash: str, own_hash: str, *, skipped: bool = False) -> bool:
        """Take the next record; return whether it is new. `skipped`: records before it were not read."""
        if sequence <= self.last:
            self._recognise(sequence, own_hash)
            return False
        if not self.last or (skipped and sequence > self.last + 1):
            self.since = sequence
        elif sequence > self.last + 1:
            self._break("gap", f"sequence {self.last + 1} is missing, {sequence} follows {self.last}", sequence)
        elif previous_hash != self._hashes[self.last]:
            self._break("fork", f"sequence {sequence} does not follow the published {self.last}", sequence)
        self.last = sequence
        self._hashes[sequence] = own_hash
        if len(self._hashes) > REMEMBERED:
            self._hashes.popitem(last=False)
        return True

    def _recognise(self, sequence: int, own_hash: str) -> None:
        known = self._hashes.get(sequence)
        if known is not None and known != own_hash:
            self._break("fork", f"sequence {sequence} was published twice with different bytes", self.since)

    def _break(self, word: ChainWord, text: str, since: int) -> None:
        if self.word != "fork":
            self.word, self.text = word, text
        self.since = since
