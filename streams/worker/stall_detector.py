"""When a worker is stuck: a judgement over what was seen of its parts, pure of clocks and of Faust.

Each part that has something to do shows a *mark*, which changes while it works. A mark that stands for longer than is
tolerable is a *stall*. Time is what was watched: a process that was itself stopped (SIGSTOP, a suspended machine) has
seen little of it, and its parts are given their patience again.
"""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

STEP_MAX_S: Final = 1.0
"""Time between two looks that counts, at most: what is longer, the whole process slept. Shorter than any patience."""
SUSPICION: Final = 0.5
"""Share of the patience after which a stall is shown to those who ask whether the worker is ready."""

NAMED: Final = 6
"""Stalls that are named when the worker ends."""


class Vital(NamedTuple):
    """One part of a worker, as it was seen."""

    name: str
    mark: Hashable
    """Changes while the part works; None: it has nothing to do."""
    trouble: str
    """What is wrong if the mark stands."""
    patience_s: float
    """For how long it may stand (s)."""


class Stall(NamedTuple):
    """A part whose mark stands."""

    name: str
    trouble: str
    stood_s: float
    patience_s: float

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.name}: {self.trouble} for {self.stood_s:.0f} s"


class Watchdog:
    """Remembers since when each mark stands."""

    def __init__(self) -> None:
        self._looked_s: float | None = None
        self._watched_s = 0.0
        self._since: dict[str, tuple[Hashable, float]] = {}

    def look(self, now_s: float, vitals: Iterable[Vital]) -> list[Stall]:
        """Return the parts whose mark stands at a time (monotonic, s), in the order given.

        A part that is not among them is forgotten.
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
            stood_s = self._watched_s - since_s
            if stood_s > 0.0:
                stalls.append(Stall(vital.name, vital.trouble, stood_s, vital.patience_s))
        self._since = seen
        return stalls


def suspects(stalls: Iterable[Stall]) -> list[Stall]:
    """Return the stalls that are no good sign, those that are deadly included."""
    return [stall for stall in stalls if stall.stood_s >= SUSPICION * stall.patience_s]


def stuck(stalls: Iterable[Stall]) -> str:
    """Return why the worker must end, "" where it need not: the stalls that last too long, then the other suspects."""
    found = suspects(stalls)
    deadly = [stall for stall in found if stall.stood_s >= stall.patience_s]
    if not deadly:
        return ""
    named = [*deadly, *(stall for stall in found if stall not in deadly)]
    more = [f"and {len(named) - NAMED} more"] if len(named) > NAMED else []
    return "; ".join([*map(str, named[:NAMED]), *more])


class Lane(NamedTuple):
    """One partition that this worker has to work on."""

    place: str
    """Topic (name on the broker) and partition."""
    position: int | None
    """Offset before which all is done; None: still recovering."""
    end: int | None
    """Offset that the next record will have, None where it is not known."""
    moves: Hashable = 0
    """Changes while it recovers."""
    ticks: bool = False
    """Whether its worker itself sees to it that there is a record every second."""


def of_lane(lane: Lane, patience_s: float) -> Vital:
    """Return what to watch of a partition."""
    if lane.position is None:
        return Vital(lane.place, ("recovering", lane.moves), "its recovery has not moved", patience_s)
    if lane.end is not None and lane.end > lane.position:
        waiting = lane.end - lane.position
        return Vital(
            lane.place, lane.position, f"has stood at {lane.position} while {waiting} records waited", patience_s
        )
    if lane.ticks:
        return Vital(lane.place, lane.position, f"has stood at {lane.position} without even a tick", patience_s)
    return Vital(lane.place, None, "", patience_s)


def late(lane: Lane, records: int) -> str:
    """Return why a partition is not ready, "" where it is; it may have so many records to do still."""
    if lane.position is None:
        return "recovering"
    if lane.end is None:
        return "reading has not begun"
    waiting = lane.end - lane.position
    return f"{waiting} records behind" if waiting > records else ""


class Waits:
    """What is awaited at this moment, oldest first."""

    def __init__(self) -> None:
        self._serial = 0
        self._open: dict[int, str] = {}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Await something inside."""
        self._serial = serial = self._serial + 1
        self._open[serial] = what
        try:
            yield
        finally:
            del self._open[serial]

    def vital(self, name: str, trouble: str, patience_s: float) -> Vital:
        """Return what to watch: the oldest wait must end."""
        serial = next(iter(self._open), None)
        return Vital(name, serial, "" if serial is None else f"{trouble} {self._open[serial]}", patience_s)
