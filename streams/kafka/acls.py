"""The minimal broker permissions of each role, as data, and the `kafka-acls` commands that grant them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from schemas.errors import NotFound
from streams.journal.topics import ALL, CHANGELOGS, DEAD_LETTERS, INPUTS, JOURNAL, OUTPUTS, Names

Operation = Literal["Read", "Write", "DescribeConfigs"]

_INPUTS: Final = tuple(topic.name for topic in INPUTS)
_LETTERS: Final = tuple(topic.name for topic in DEAD_LETTERS)
_OUTPUTS: Final = tuple(topic.name for topic in OUTPUTS)
_TABLES: Final = tuple(topic.name for topic in CHANGELOGS)
_BY_NAME: Final = {topic.name: topic for topic in ALL}
_SHOWN: Final = ("allocations", "alerts")


class Role(NamedTuple):
    """A role: its task, and the topics (logical names) of each operation that it needs."""

    does: str
    rights: Mapping[Operation, tuple[str, ...]]
    group: bool = False
    """Whether it is a member of the workers' group."""


ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "worker": Role(
            "himari worker",
            {
                "Read": (*_INPUTS, JOURNAL.name, *_OUTPUTS, *_TABLES),
                "Write": ("control", *_LETTERS, JOURNAL.name, *_OUTPUTS, *_TABLES),
                "DescribeConfigs": (*_INPUTS, *_LETTERS, JOURNAL.name, *_OUTPUTS, *_TABLES),
            },
            group=True,
        ),
        "publisher": Role("publishes signals", {"Write": ("signals",)}),
        "feed": Role("publishes prices and indicators", {"Write": ("prices", "cascade-indicators")}),
        "desk": Role("publishes outcomes and positions", {"Write": ("outcomes", "positions")}),
        "reader": Role("reads allocations and alerts", {"Read": _SHOWN}),
        "operator": Role(
            "himari control, config apply, portfolio, dlq list and show",
            {"Read": (JOURNAL.name, *_LETTERS, *_SHOWN, *_TABLES), "Write": ("control",)},
        ),
        "auditor": Role(
            "himari audit, journal, export, tail", {"Read": (*_INPUTS, JOURNAL.name, *_LETTERS, *_SHOWN, *_TABLES)}
        ),
    }
)


def lines(names: Names, role: str, principal: str, bootstrap: str, group: str | None = None) -> Iterable[str]:
    """Yield the shell commands that grant a role, and the use of a consumer group, to a principal.

    Raises:
        NotFound: there is no such role.
    """
    if role not in ROLES:
        msg = f"{role} is not a role; roles are {', '.join(ROLES)}"
        raise NotFound(msg)
    head = f"kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal {principal}"
    for operation, topics in ROLES[role].rights.items():
        yield f"{head} --operation {operation} " + " ".join(f"--topic {names.of(_BY_NAME[topic])}" for topic in topics)
    groups = [names.application] if ROLES[role].group else []
    for each in [*groups, group] if group else groups:
        yield f"{head} --operation Read --group {each}"
