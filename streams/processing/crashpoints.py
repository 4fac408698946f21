"""Named places where a worker can be made to die, so that tests may hold that none of them loses or doubles anything.

Off unless the environment has `HIMARI_CRASH_AT=name:nth`: the process is killed (`kill -9`) when it passes `name` the
nth time. A place is passed once a chunk, a table or a checkpoint, never once an entry; when off, that is a call of a
function that returns.
"""

import os
import signal
from collections.abc import Callable
from typing import Literal, NoReturn, get_args

from schemas.errors import ConfigurationException

ENVIRONMENT = "HIMARI_CRASH_AT"
"""Variable that arms one place in one process."""
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
sent: one partition's part of what is published is acknowledged, the others' perhaps not · published: all of it is ·
taken: a checkpoint is encoded, nothing of it written · stored: a table's records are in the local store, not in the
changelog · logged: in the changelog too, the store does not know how far · written: all tables are, `progress` is not ·
progressed: `progress` is, no chunk acknowledged · acknowledged: all is · restored: the state is back, what was
published above it not read · known: that is read too, nothing new is."""

POINTS: tuple[Point, ...] = get_args(Point)


def passed(_point: Point) -> None:
    """Do nothing: the place is passed."""


def trap(text: str, die: Callable[[], None]) -> Callable[[Point], None]:
    """Return what calls `die` at the passage that `name:nth` names; "" names none.

    Raises:
        ConfigurationException: no place has that name, or nth is no number from 1 on.
    """
    if not text:
        return passed
    name, _, nth = text.partition(":")
    if name not in POINTS or not (nth.isascii() and nth.isdecimal() and int(nth)):
        rule = f"must be name:nth with a name of {', '.join(POINTS)} and nth from 1 on, was {text[:80]!r}"
        raise ConfigurationException(PLACE, ENVIRONMENT, rule)
    left = int(nth)

    def passing(point: Point) -> None:
        nonlocal left
        left -= point == name
        if left == 0:
            die()

    return passing


def _die() -> NoReturn:
    """End the process as `kill -9` does: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


at: Callable[[Point], None] = trap(os.environ.get(ENVIRONMENT, ""), _die)
"""Pass a place."""
