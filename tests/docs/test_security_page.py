"""The page on security says of roles and limits what the code does."""

import re
from pathlib import Path

from config.settings import Settings
from engines.state import capacity
from schemas.control import Control
from schemas.positions import SYMBOLS_MAX
from schemas.price import TICKS_MAX
from schemas.wire import WIRE
from streams.journal.dead_letters import KEPT_BYTES
from streams.journal.topics import CHANGELOGS, DEAD_LETTERS, INPUTS, OUTPUTS, Names
from streams.kafka.acls import ROLES, lines
from streams.monitoring.connections import ANSWER_S, CONNECTIONS_MAX, HEAD_S
from streams.worker.descriptors import needed

TEXT = (Path(__file__).parents[2] / "docs/security.md").read_text(encoding="utf-8")
GROUPS = {
    "inputs": {topic.name for topic in INPUTS},
    "dead letters": {topic.name for topic in DEAD_LETTERS},
    "outputs": {topic.name for topic in OUTPUTS},
    "changelogs": {topic.name for topic in CHANGELOGS},
    "–": set(),
}


def topics(cell):
    """Return the topics that a cell of the table names, by their groups or themselves."""
    words = [word.strip() for word in cell.split(",") if "takes part" not in word]
    return set().union(*(GROUPS.get(word, {word}) for word in words))


def test_the_table_of_roles_is_what_rights_gives():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", TEXT, re.MULTILINE)
    assert [name for name, *_ in rows] == list(ROLES)
    for name, does, read, write in rows:
        role = ROLES[name]
        assert does == role.does
        assert topics(read) == set(role.rights.get("Read", ()))
        assert topics(write) == set(role.rights.get("Write", ()))
        assert ("takes part in the group" in read) is role.group


def test_the_limits_are_those_of_the_code():
    assert (WIRE.bytes_max, WIRE.depth_max, TICKS_MAX, SYMBOLS_MAX) == (1 << 20, 8, 10_000, 2_000)
    assert (capacity.SYMBOLS_MAX, capacity.PORTFOLIOS_MAX, capacity.SCOPES_MAX) == (2_000, 10_000, 1_000)
    assert (Control.bytes_max, CONNECTIONS_MAX, HEAD_S, ANSWER_S) == (64 * 1024, 64, 5, 60)
    assert "| an order | 64 KiB |" in TEXT
    assert "| 64; 5 s; 60 s |" in TEXT
    assert (capacity.STRATEGIES_MAX, capacity.CELLS_MAX, KEPT_BYTES) == (200, 2_000, 64 * 1024)
    for text in ("1 MiB, 8 deep", "10,000; 2,000", "| 10,000 |", "| 200; 2,000 |", "| 2,000 symbols |", "| 1,000 |"):
        assert text in TEXT


def test_the_files_that_a_worker_needs_are_those_of_the_code():
    rows = re.findall(r"^\| (\d+)(?: \(default\))? \| ?\d* \| ([\d,]+) \|$", TEXT, re.MULTILINE)
    told = {int(partitions): int(need.replace(",", "")) for partitions, need in rows}
    assert told == {each: needed(Settings.model_validate({"topics": {"partitions": each}})) for each in (2, 12, 24)}


def test_rights_are_printed_as_commands_by_the_names_on_the_broker():
    printed = list(lines(Names("own"), "publisher", "User:desk", "b:1"))
    head = "kafka-acls.sh --bootstrap-server b:1 --add --allow-principal User:desk"
    assert printed == [f"{head} --operation Write --topic own.signals.v1"]
    assert list(lines(Names("own"), "worker", "User:w", "b:1"))[-1].endswith("--operation Read --group own")
