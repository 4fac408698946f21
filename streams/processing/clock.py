"""The clock of a worker: wall time, scaled time for the demo, and time that the caller moves."""

import time
from typing import NamedTuple, Self

from schemas.errors import ConfigurationException

SECOND_NS = 1_000_000_000
ENVIRONMENT = "HIMARI_CLOCK"
"""Environment variable that passes a clock to a child process."""
PLACE = "environment"


class Clock(NamedTuple):
    """A clock that showed `start_ns` when the wall clock showed `anchor_ns`, and runs `factor` times as fast.

    The default is the wall clock itself. Its text is `start*factor@anchor`, so that a worker in another process can
    use the same clock.

    >>> str(Clock(1_767_225_600_000_000_000, 3_600, 1_800_000_000_000_000_000))
    '1767225600000000000*3600@1800000000000000000'
    """

    start_ns: int = 0
    factor: int = 1
    anchor_ns: int = 0

    @classmethod
    def scaled(cls, start_ns: int, factor: int) -> Self:
        """Return a clock that shows `start_ns` now and runs `factor` times as fast as the wall clock."""
        return cls(start_ns, factor, time.time_ns())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the clock with this text, as `str` gives it.

        Raises:
            ConfigurationException: the text is not a clock; the environment is named as its source.
        """
        start, _, rest = text.partition("*")
        factor, _, anchor = rest.partition("@")
        if not all(part.isascii() and part.isdecimal() for part in (start, factor, anchor)) or int(factor) < 1:
            rule = f"must be start_ns*factor@anchor_ns with a factor of at least 1, was {text[:80]!r}"
            raise ConfigurationException(PLACE, ENVIRONMENT, rule)
        return cls(int(start), int(factor), int(anchor))

    def __str__(self) -> str:
        return f"{self.start_ns}*{self.factor}@{self.anchor_ns}"

    def now_ns(self) -> int:
        """Return the time, ns since 1970."""
        return self.at(time.time_ns())

    def at(self, wall_ns: int) -> int:
        """Return the time on this clock when the wall clock shows `wall_ns`."""
        return self.start_ns + (wall_ns - self.anchor_ns) * self.factor

    def wall_s_until(self, time_ns: int) -> float:
        """Return the wall seconds until the clock shows `time_ns`; 0 if it is past."""
        return max(0, time_ns - self.now_ns()) / (self.factor * SECOND_NS)


class ManualClock:
    """A clock that only its caller moves, and only forward; for history and tests."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the time, ns since 1970."""
        return self._now_ns

    def move_to(self, now_ns: int) -> None:
        """Set the clock.

        Raises:
            ValueError: `now_ns` is earlier than the current time.
        """
        if now_ns < self._now_ns:
            msg = f"clock: must not go back, was moved from {self._now_ns} to {now_ns}"
            raise ValueError(msg)
        self._now_ns = now_ns

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`, at least 0."""
        self.move_to(self._now_ns + int(seconds * SECOND_NS))
