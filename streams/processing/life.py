"""The life of a processor: its phases, and the table of transitions between them."""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final


class Phase(Enum):
    """Where a processor is in its life."""

    UNRECOVERED = auto()
    """No state yet: new, or its recovery is in progress or failed."""
    READY = auto()
    """The state is the fold up to `offset`, and everything it decided is published."""
    STEPPING = auto()
    """A step is in progress."""
    BROKEN = auto()
    """A step or the write of a checkpoint failed or was cancelled: memory may be ahead of what is published."""


class Event(Enum):
    """What moves a processor from one phase to the next."""

    RECOVER = auto()
    RECOVERED = auto()
    BEGIN = auto()
    END = auto()
    BREAK = auto()
    """A step, or a checkpoint that is written in the background, failed or was cancelled."""


TRANSITIONS: Final[Mapping[tuple[Phase, Event], Phase]] = MappingProxyType(
    {
        (Phase.UNRECOVERED, Event.RECOVER): Phase.UNRECOVERED,
        (Phase.READY, Event.RECOVER): Phase.UNRECOVERED,
        (Phase.BROKEN, Event.RECOVER): Phase.UNRECOVERED,
        (Phase.UNRECOVERED, Event.RECOVERED): Phase.READY,
        (Phase.READY, Event.BEGIN): Phase.STEPPING,
        (Phase.STEPPING, Event.END): Phase.READY,
        (Phase.READY, Event.BREAK): Phase.BROKEN,
        (Phase.STEPPING, Event.BREAK): Phase.BROKEN,
        (Phase.BROKEN, Event.BREAK): Phase.BROKEN,
        (Phase.BROKEN, Event.END): Phase.BROKEN,
    }
)
"""The phase after each event; a pair that is missing stops the processor. A background write may break during a step:
then the step ends in BROKEN."""
