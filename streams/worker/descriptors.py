"""File descriptors: what a worker needs, and the limit of its process, which is raised to that before anything opens.

A worker that runs out of them stops in the middle of its work, at a moment that a stranger may choose. So it has what
it needs from the start, or does not start.
"""

import resource
from typing import Final, NamedTuple

from config.settings import Settings
from schemas.errors import ConfigurationException
from streams.journal.topics import TABLES
from streams.monitoring.connections import BACKLOG, CONNECTIONS_MAX

STORE_FILES: Final = 16
"""Of one local store: log, manifest, lock, folders (6), and the files of its records, more of them while it merges."""
BROKER_CONNECTIONS: Final = 128
OWN: Final = 128
"""Libraries, output, threads, and the files that a worker reads for a moment."""
PLACE: Final = "environment"
NAME: Final = "RLIMIT_NOFILE"


class Limit(NamedTuple):
    """A limit on open files: what the process has, and what it may raise that to."""

    soft: int
    hard: int


def needed(settings: Settings) -> int:
    """Return the descriptors of a worker that owns every partition, as after the end of all others."""
    stores = settings.topics.partitions * sum(table.stored for table in TABLES)
    pages = 2 * (CONNECTIONS_MAX + BACKLOG)
    policy = settings.rl.max_in_flight if settings.rl.enabled else 0
    return stores * STORE_FILES + pages + policy + BROKER_CONNECTIONS + OWN


def raised(limit: Limit, need: int) -> Limit:
    """Return the limit to run with: soft as high as hard, or as is needed where hard is unlimited.

    Raises:
        ConfigurationException: hard is below what is needed.
    """
    if limit.hard == resource.RLIM_INFINITY:
        soft = limit.soft if limit.soft == resource.RLIM_INFINITY else max(limit.soft, need)
        return Limit(soft, limit.hard)
    if limit.hard < need:
        rule = (
            f"must allow {need} open files for the partitions of topics.partitions, was {limit.hard} (hard limit): "
            f"ulimit -Hn {need}, LimitNOFILE={need}, or ulimits.nofile in Docker Compose"
        )
        raise ConfigurationException(PLACE, NAME, rule)
    return Limit(limit.hard, limit.hard)


def require(settings: Settings) -> None:
    """Raise this process's limit to what a worker needs.

    Raises:
        ConfigurationException: its hard limit is too low.
    """
    limit = raised(Limit(*resource.getrlimit(resource.RLIMIT_NOFILE)), needed(settings))
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
