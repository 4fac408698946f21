"""Detects a stuck worker from observations of its parts; pure, without a clock and without Faust.

Each part with work to do shows a *mark*, which changes while it works. A mark that stays unchanged for too long is a
*stall*. Only observed time counts: a process that was itself stopped (SIGSTOP, a suspended machine) observed little of
it, and its parts get their full patience again.
"""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

STEP_MAX_S: Final = 1.0
"""Most time that counts between two observations: beyond it, the whole process slept. Shorter than any patience."""
SUSPICION: Final = 0.5
"""Share of the patience after which a stall makes the worker not ready."""

NAMED: Final = 6
"""Stalls named in the reason for stopping the worker."""


class Vital(NamedTuple):
    """One observation of a part of a worker."""

    name: str
    mark: Hashable
    """Changes while the part works; None: it has no work."""
    trouble: str
    """What is wrong if the mark does not change."""
    patience_s: float
    """Time for which it may stay unchanged (s)."""


class Stall(NamedTuple):
    """A part whose mark has not changed."""

    name: str
    trouble: str
    stalled_s: float
    patience_s: float

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.name}: {self.trouble} for {self.stalled_s:.0f} s"


class Watchdog:
    """Tracks since when each mark is unchanged."""

    def __init__(self) -> None:
        self._looked_s: float | None = None
        self._watched_s = 0.0
        self._since: dict[str, tuple[Hashable, float]] = {}

    def look(self, now_s: float, vitals: Iterable[Vital]) -> list[Stall]:
        """Return the parts whose mark has not changed, at a time (monotonic, s), in the order given.

        Parts that are not in `vitals` are forgotten.
        """
        if self._looked_s is not None:
            self._watched_s += min(now_s - self._looked_s, STEP_MAX_S)
        self._looked_s = now_s
        seen: dict[str, tuple[Hashable, float]] = {}
        stalls = []
        for vital in vitals:
            if vital.mark is None:
                continue
            mark, since_s = self._since.get(vital.name, (None, 0.0))
            if mark != vital.mark:
                since_s = self._watched_s
            seen[vital.name] = (vital.mark, since_s)
            stalled_s = self._watched_s - since_s
            if stalled_s > 0.0:
                stalls.append(Stall(vital.name, vital.trouble, stalled_s, vital.patience_s))
        self._since = seen
        return stalls


def suspects(stalls: Iterable[Stall]) -> list[Stall]:
    """Return the stalls that make the worker not ready, including those that stop it."""
    return [stall for stall in stalls if stall.stalled_s >= SUSPICION * stall.patience_s]


def stuck(stalls: Iterable[Stall]) -> str:
    """Return why the worker must stop, "" if it need not: the stalls that last too long, then the other suspects."""
    found = suspects(stalls)
    deadly = [stall for stall in found if stall.stalled_s >= stall.patience_s]
    if not deadly:
        return ""
    named = [*deadly, *(stall for stall in found if stall not in deadly)]
    more = [f"and {len(named) - NAMED} more"] if len(named) > NAMED else []
    return "; ".join([*map(str, named[:NAMED]), *more])


class PartitionWork(NamedTuple):
    """The progress of one partition that this worker reads."""

    place: str
    """Topic (name on the broker) and partition."""
    position: int | None
    """Offset before which everything is processed; None: still recovering."""
    end: int | None
    """Offset of the next record to be appended, None if it is not known."""
    moves: Hashable = 0
    """Changes while it recovers."""
    ticks: bool = False
    """Whether the worker itself appends a record every second."""


def partition_vital(work: PartitionWork, patience_s: float) -> Vital:
    """Return the vital of a partition."""
    if work.position is None:
        return Vital(work.place, ("recovering", work.moves), "its recovery has made no progress", patience_s)
    if work.end is not None and work.end > work.position:
        waiting = work.end - work.position
        return Vital(
            work.place, work.position, f"has stayed at {work.position} while {waiting} records waited", patience_s
        )
    if work.ticks:
        return Vital(work.place, work.position, f"has stayed at {work.position} without a tick", patience_s)
    return Vital(work.place, None, "", patience_s)


def late(work: PartitionWork, records: int) -> str:
    """Return why a partition is not ready, "" if it is; `records`: how many it may be behind."""
    if work.position is None:
        return "recovering"
    if work.end is None:
        return "reading has not started"
    waiting = work.end - work.position
    return f"{waiting} records behind" if waiting > records else ""


class Waits:
    """What is being awaited, oldest first."""

    def __init__(self) -> None:
        self._serial = 0
        self._open: dict[int, str] = {}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Record a wait for the duration of the block."""
        self._serial = serial = self._serial + 1
        self._open[serial] = what
        try:
            yield
        finally:
            del self._open[serial]

    def vital(self, name: str, trouble: str, patience_s: float) -> Vital:
        """Return the vital of the oldest wait, which must end in time."""
        serial = next(iter(self._open), None)
        return Vital(name, serial, "" if serial is None else f"{trouble} {self._open[serial]}", patience_s)
