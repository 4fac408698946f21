"""Lateness: which symbols' ticks keep arriving too late to count, and whose clocks lag; one alert per episode.

Ticks are judged in windows of 30 s of event time. A symbol with fewer than three ticks in a window is not judged.

| kind | value of a symbol in a window | threshold |
|---|---|---|
| `late_prices` | share of its ticks that arrived too late to count | .05, and three such ticks |
| `clock_skew` | smallest lag of its ticks behind the newest tick of the partition, in seconds | 1 |

Two consecutive windows at or above the threshold raise an alert. It can be raised again after a window in which no
symbol was above half the threshold, and at the earliest an hour later.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

SECOND_NS: Final = 1_000_000_000
WINDOW_NS: Final = 30 * SECOND_NS
WINDOWS: Final = 2
TICKS_MIN: Final = 3
THRESHOLDS: Final = {"late_prices": 0.05, "clock_skew": 1.0}
OVER_RATIO: Final = 0.5
QUIET_NS: Final = 3_600 * SECOND_NS
NEVER_NS: Final = -QUIET_NS


class LastingLateness(NamedTuple):
    """A lasting condition: its symbols, the worst first."""

    kind: str
    symbols: tuple[str, ...]
    value: float
    """Of the first symbol."""
    threshold: float
    at_ns: int


LateCounts = list[int]
"""One symbol's ticks in a window: [counted, late, smallest lag of a counted one in ns]."""


class LatenessWatch(NamedTuple):
    """How many windows one kind has lasted, and whether and when it was alerted."""

    windows: int = 0
    alerted: bool = False
    alerted_ns: int = NEVER_NS


class Lateness:
    """The windows of one partition of `prices`."""

    def __init__(self) -> None:
        self.newest_ns = -1
        self.window = -1
        self.tallies: dict[str, LateCounts] = {}
        self.watches = {kind: LatenessWatch() for kind in THRESHOLDS}

    def counted(self, symbol: str, at_ns: int) -> list[LastingLateness]:
        """Count a tick; if it opens a new window, return the conditions that have lasted."""
        found: list[LastingLateness] = []
        if at_ns > self.newest_ns:
            self.newest_ns = at_ns
            if at_ns // WINDOW_NS > self.window:
                found = self._turn(at_ns)
        tally = self._tally(symbol)
        tally[0] += 1
        behind_ns = self.newest_ns - at_ns
        tally[2] = min(tally[2], behind_ns)
        return found

    def late(self, symbol: str) -> None:
        """Record a tick that arrived too late to count."""
        self._tally(symbol)[1] += 1

    def _tally(self, symbol: str) -> LateCounts:
        tally = self.tallies.get(symbol)
        if tally is None:
            tally = self.tallies[symbol] = [0, 0, 2**62]
        return tally

    def _turn(self, at_ns: int) -> list[LastingLateness]:
        """Close the window before `at_ns` and open its own."""
        values = {kind: self._values(kind) for kind in THRESHOLDS}
        found = [finding for kind in THRESHOLDS for finding in self._judge(kind, values[kind], at_ns)]
        before, self.window, self.tallies = self.window, at_ns // WINDOW_NS, {}
        if self.window > before + 1:
            self.watches = {kind: watch._replace(windows=0) for kind, watch in self.watches.items()}
        return found

    def _values(self, kind: str) -> dict[str, float]:
        """Return each judged symbol's value in the window that closes."""
        rows = self.tallies.items()
        if kind == "late_prices":
            return {symbol: late / (counted + late) for symbol, (counted, late, _) in rows if late >= TICKS_MIN}
        return {symbol: behind_ns / SECOND_NS for symbol, (counted, _, behind_ns) in rows if counted >= TICKS_MIN}

    def _judge(self, kind: str, values: Mapping[str, float], at_ns: int) -> list[LastingLateness]:
        threshold, watch = THRESHOLDS[kind], self.watches[kind]
        beyond = sorted((-value, symbol) for symbol, value in values.items() if value >= threshold)
        windows = watch.windows + 1 if beyond else 0
        alerted = watch.alerted and max(values.values(), default=0.0) > OVER_RATIO * threshold
        due = windows >= WINDOWS and not alerted and at_ns - watch.alerted_ns >= QUIET_NS
        self.watches[kind] = LatenessWatch(windows, alerted or due, at_ns if due else watch.alerted_ns)
        if not due:
            return []
        return [LastingLateness(kind, tuple(symbol for _, symbol in beyond), -beyond[0][0], threshold, at_ns)]

    # -- checkpoint ------------------------------------------------------------------------------------------------
    def plain(self) -> list[Any]:
        """Return the windows as plain JSON values."""
        return [self.newest_ns, self.window, self.tallies, {kind: list(watch) for kind, watch in self.watches.items()}]

    @classmethod
    def of(cls, plain: list[Any]) -> "Lateness":
        """Return the windows that `plain` gave."""
        made = cls()
        made.newest_ns, made.window, made.tallies, watches = plain
        made.watches = {
            kind: LatenessWatch(*watches[kind]) if kind in watches else LatenessWatch() for kind in THRESHOLDS
        }
        return made
