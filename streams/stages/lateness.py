"""Lateness: whose ticks keep coming too late to count, and whose clock stays behind its neighbours'; told of once.

Ticks are judged by windows of half a minute of event time. A symbol with fewer ticks than three in one is not judged.

| kind | value of a symbol in a window | threshold |
|---|---|---|
| `late_prices` | share of its ticks that came too late to count | .05, and three ticks |
| `clock_skew` | the least that one of its ticks was behind the newest tick of the partition, in seconds | 1 |

Two windows in a row at the threshold or above raise an alert. It can be raised again after a window in which no symbol
was above half of the threshold, and after an hour.
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
    """What has lasted: the symbols by how much, descending."""

    kind: str
    symbols: tuple[str, ...]
    value: float
    """Of the first symbol."""
    threshold: float
    at_ns: int


LateCounts = list[int]
"""One symbol's ticks in a window: [counted, late, the least that one that counted was behind in ns]."""


class LatenessWatch(NamedTuple):
    """How long one kind has lasted, and whether it was told of."""

    windows: int = 0
    told: bool = False
    told_ns: int = NEVER_NS


class Lateness:
    """The windows of one partition of `prices`."""

    def __init__(self) -> None:
        self.newest_ns = -1
        self.window = -1
        self.tallies: dict[str, LateCounts] = {}
        self.watches = {kind: LatenessWatch() for kind in THRESHOLDS}

    def counted(self, symbol: str, at_ns: int) -> list[LastingLateness]:
        """Take a tick that counts; return what has lasted, where it is the first of a window."""
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
        """Take a tick that came too late to count."""
        self._tally(symbol)[1] += 1

    def _tally(self, symbol: str) -> LateCounts:
        tally = self.tallies.get(symbol)
        if tally is None:
            tally = self.tallies[symbol] = [0, 0, 2**62]
        return tally

    def _turn(self, at_ns: int) -> list[LastingLateness]:
        """End the window before at_ns."""
        values = {kind: self._values(kind) for kind in THRESHOLDS}
        found = [finding for kind in THRESHOLDS for finding in self._judge(kind, values[kind], at_ns)]
        before, self.window, self.tallies = self.window, at_ns // WINDOW_NS, {}
        if self.window > before + 1:
            self.watches = {kind: watch._replace(windows=0) for kind, watch in self.watches.items()}
        return found

    def _values(self, kind: str) -> dict[str, float]:
        """Return each judged symbol's value in the window that ends."""
        rows = self.tallies.items()
        if kind == "late_prices":
            return {symbol: late / (counted + late) for symbol, (counted, late, _) in rows if late >= TICKS_MIN}
        return {symbol: behind_ns / SECOND_NS for symbol, (counted, _, behind_ns) in rows if counted >= TICKS_MIN}

    def _judge(self, kind: str, values: Mapping[str, float], at_ns: int) -> list[LastingLateness]:
        threshold, watch = THRESHOLDS[kind], self.watches[kind]
        beyond = sorted((-value, symbol) for symbol, value in values.items() if value >= threshold)
        windows = watch.windows + 1 if beyond else 0
        told = watch.told and max(values.values(), default=0.0) > OVER_RATIO * threshold
        due = windows >= WINDOWS and not told and at_ns - watch.told_ns >= QUIET_NS
        self.watches[kind] = LatenessWatch(windows, told or due, at_ns if due else watch.told_ns)
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
