"""Log lines that somebody outside can cause: one now and then, with the number of those that were not written."""

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
"""Time between two lines."""


class RareLog:
    """Writes a warning at most every `EVERY_S`; `clock` is monotonic, s."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._next_s, self._left_out = float("-inf"), 0

    def tell(self, text: str, *values: object) -> None:
        """Write the line, or count it."""
        now_s = self._clock()
        if now_s < self._next_s:
            self._left_out += 1
            return
        self._logger.warning(text, *values)
        if self._left_out:
            self._logger.warning("and %d more such lines were left out before this one", self._left_out)
        self._next_s, self._left_out = now_s + EVERY_S, 0
