"""Named points where tests kill a worker, to show that a crash at none of them loses or duplicates anything.

Off unless the environment has `HIMARI_CRASH_AT=name:nth`: the process is killed (`kill -9`) when it passes `name` the
nth time. A point is passed once per chunk, table or checkpoint, never once per entry; when off, passing it costs one
call of an empty function.
"""

import os
import signal
from collections.abc import Callable
from typing import Literal, NoReturn, get_args

from schemas.errors import ConfigurationException

ENVIRONMENT = "HIMARI_CRASH_AT"
"""Environment variable that arms one point in one process."""
PLACE = "environment"

Point = Literal[
    "ingested",
    "folded",
    "sent",
    "published",
    "taken",
    "stored",
    "logged",
    "written",
    "progressed",
    "acknowledged",
    "restored",
    "known",
]
"""ingested: a chunk of an input is journaled, not acknowledged · folded: a chunk is folded, nothing of it published ·
sent: one partition's share of the outputs is acknowledged, others may not be · published: all outputs are ·
taken: a checkpoint is encoded, nothing of it written · stored: a table's records are in the local store, not in the
changelog · logged: in the changelog too, but the store's changelog offset is not updated · written: all tables are
written, `progress` is not · progressed: `progress` is written, no chunk acknowledged · acknowledged: all chunks are ·
restored: the state is restored, outputs published above it are not read yet · known: those are read, no new record
is."""

POINTS: tuple[Point, ...] = get_args(Point)


def passed(_point: Point) -> None:
    """Do nothing: no point is armed."""


def trap(text: str, die: Callable[[], None]) -> Callable[[Point], None]:
    """Return a function that calls `die` at the nth pass of the point in `name:nth`; "" arms none.

    Raises:
        ConfigurationException: no point has that name, or nth is not a number of at least 1.
    """
    if not text:
        return passed
    name, _, nth = text.partition(":")
    if name not in POINTS or not (nth.isascii() and nth.isdecimal() and int(nth)):
        rule = f"must be name:nth with name one of {', '.join(POINTS)} and nth at least 1, was {text[:80]!r}"
        raise ConfigurationException(PLACE, ENVIRONMENT, rule)
    left = int(nth)

    def passing(point: Point) -> None:
        nonlocal left
        left -= point == name
        if left == 0:
            die()

    return passing


def _die() -> NoReturn:
    """End the process as `kill -9` does: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


at: Callable[[Point], None] = trap(os.environ.get(ENVIRONMENT, ""), _die)
"""Pass a point."""
