"""What the panels are computed from: the model of the topics, the worker's part, and the time."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from engines.pipeline.caps import Limits
from streams.page.model import PageModel, ShownDecision

MILLISECOND_NS = 1_000_000
SECOND_MS = 1_000
HOUR_MS = 3_600_000
NOT_READ_YET = "not read yet"
"""What is wrong with a feed that has just started."""


class Scene(NamedTuple):
    """One moment of the page."""

    model: PageModel
    now_ms: int
    """Time of the workers' clock, ms since 1970."""
    wall_ms: int
    """UTC, ms since 1970; it differs from `now_ms` in the demo alone."""
    role: str
    """worker or dashboard."""
    part: Mapping[str, Any]
    """What the worker of this page knows; empty for a dashboard, and for a worker that does not answer."""
    partitions: int
    """Journal partitions; 0 if that is not known."""
    owners: Mapping[int, str]
    """Address of the worker that owns a journal partition, as far as known."""
    limits: Mapping[str, Limits]
    """Limits by the hash of the settings they belong to."""
    feeds: Mapping[str, str]
    """What is wrong with each feed; "" if it is read."""
    complete: bool
    """Whether `allocations` has been searched back to its beginning."""
    problem: str = ""
    """Why the worker does not answer; "" if it does."""
    not_ready: Mapping[str, str] = {}
    """Why the worker is not ready, by part."""

    def newest(self) -> Iterator[tuple[str, ShownDecision]]:
        """Yield each portfolio and its newest decision, by name."""
        for name, known in sorted(self.model.portfolios.items()):
            if known.newest is not None:
                yield name, known.newest

    def book(self, portfolio: str) -> Mapping[str, Any] | None:
        """Return the worker's book of a portfolio; None if another worker owns it."""
        found: Mapping[str, Any] | None = self.part.get("books", {}).get(portfolio)
        return found

    def owner(self, partition: int) -> str | None:
        """Return the worker that owns a journal partition, "here" for this one; None if that is not known."""
        if partition in self.part.get("partitions", {}):
            return "here"
        return self.owners.get(partition)


def command(*words: str) -> str:
    """Return a command line to copy; names are quoted for the shell."""
    return " ".join(shlex.quote(word) for word in ("himari", *words))
