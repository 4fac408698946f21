"""Handover from one decision version to another inside a journal, verifiable from the journal alone.

The old version folds everything, appends an `engine` entry and folds it as its last one, writes its checkpoint, and
appends its whole state as further `engine` entries. So each entry belongs to exactly one version: the old one can be
shown to have left that state, digest included, and the new one to have continued from it.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from engines.handlers.effects import Journaled
from engines.parameters import DecisionParams, settings_hash
from schemas.errors import AnotherVersion, VerificationMismatch
from streams.journal import entries as journal
from streams.journal import migration_3_to_4
from streams.journal.topics import MIB
from streams.processing.checkpoint import digest
from streams.processing.ports import RecordKey

PART_BYTES: Final = 4 * MIB
"""Bytes of values in one entry that carries state; a journal entry may have 9 MiB."""

Meta = dict[str, Any]
StateRecords = dict[RecordKey, bytes]
Migration = Callable[[Meta, StateRecords], tuple[Meta, StateRecords]]
"""Converts the state of one version to the next one's; pure, and never changed once released."""

MIGRATIONS: Final[Mapping[tuple[int, int], Migration]] = MappingProxyType({(3, 4): migration_3_to_4.migrate})
"""(from, to) → migration."""


class HandoverState(NamedTuple):
    """The state of a version at its `engine` entry."""

    offset: int
    meta: Meta
    records: StateRecords


def package() -> str:
    """Return the version of this package, "0" if it is not installed."""
    try:
        return version("himari-layer3")
    except PackageNotFoundError:
        return "0"


# -- the old version ---------------------------------------------------------------------------------------------------
def engine(from_version: int, to_version: int, now_ns: int) -> bytes:
    """Return the entry that hands over."""
    body = {"from_version": from_version, "package": package(), "to_version": to_version}
    return journal.internal("engine", body, now_ns)


def state_entries(left: HandoverState, now_ns: int) -> Iterator[bytes]:
    """Yield the entries that carry the state, in parts."""
    parts = list(_parts(left.records))
    for number, part in enumerate(parts):
        records = [[table, b64encode(key).decode(), b64encode(value).decode()] for (table, key), value in part]
        state = {
            "digest": f"{digest(left.records):064x}",
            "meta": left.meta if number == 0 else {},
            "offset": left.offset,
            "part": number,
            "parts": len(parts),
            "records": records,
        }
        body = {
            "from_version": left.meta["decision_version"],
            "state": state,
            "to_version": left.meta["successor"],
        }
        yield journal.internal("engine", body, now_ns)


def _parts(records: StateRecords) -> Iterator[list[tuple[RecordKey, bytes]]]:
    part: list[tuple[RecordKey, bytes]] = []
    size = 0
    for key, value in sorted(records.items()):
        if part and size + len(value) > PART_BYTES:
            yield part
            part, size = [], 0
        part.append((key, value))
        size += len(value)
    yield part


# -- the new version ---------------------------------------------------------------------------------------------------
def taken_over(
    place: str, left: HandoverState, to_version: int, migrations: Mapping[tuple[int, int], Migration]
) -> HandoverState:
    """Return the state that the new version continues from.

    Raises:
        AnotherVersion: it was not handed over to this version, or no migration is known.
    """
    found, successor = left.meta["decision_version"], left.meta.get("successor", 0)
    if successor != to_version:
        what = f"was handed over to version {successor}: install that" if successor else _how(found, to_version)
        msg = f"{place} is of decision version {found}, this is version {to_version}: {what}"
        raise AnotherVersion(msg)
    migrate = migrations.get((found, to_version))
    if migrate is None:
        known = ", ".join(str(old) for old, new in sorted(migrations) if new == to_version) or "none"
        msg = f"{place} was handed over by decision version {found}; version {to_version} takes over from: {known}"
        raise AnotherVersion(msg)
    meta, records = migrate(dict(left.meta), dict(left.records))
    settings = DecisionParams.model_validate(meta["settings"]).model_dump()
    meta |= {
        "decision_version": to_version,
        "settings": settings,
        "settings_hash": settings_hash(settings),
        "successor": 0,
    }
    return HandoverState(left.offset, meta, records)


def _how(found: int, to_version: int) -> str:
    return f"stop the workers and run version {found} with: himari worker --drain --to {to_version}"


class HandoverReader:
    """Reads, in a journal that another version began, the state that was handed over to `to_version`."""

    def __init__(self, to_version: int) -> None:
        self.to_version = to_version
        self.offset = -1
        """Offset of the newest `engine` entry to this version; -1: none."""
        self.versions: list[tuple[int, int, str]] = []
        """(first entry, version, package) of each span so far; "" if the package is not known."""
        self._parts: dict[int, Mapping[str, Any]] = {}

    def take(self, entry: Journaled) -> HandoverState | None:
        """Take an entry; return the state once it is complete.

        Raises:
            VerificationMismatch: the records do not have the digest that was handed over.
        """
        body = entry.body
        if entry.kind == "genesis":
            self.versions.append((entry.offset, body["decision_version"], ""))
        if entry.kind != "engine" or body["to_version"] == body["from_version"]:
            return None
        state = body.get("state")
        if state is None:
            self._hand(entry)
        elif state["offset"] == self.offset:
            self._parts[state["part"]] = state
            if len(self._parts) == state["parts"]:
                return self._complete(state["digest"])
        return None

    def _hand(self, entry: Journaled) -> None:
        first, number, _ = self.versions.pop()
        self.versions += [(first, number, entry.body.get("package") or "")]
        self.versions += [(entry.offset + 1, entry.body["to_version"], "")]
        self.offset = entry.offset if entry.body["to_version"] == self.to_version else -1
        self._parts.clear()

    def _complete(self, expected: str) -> HandoverState:
        rows = [row for _, part in sorted(self._parts.items()) for row in part["records"]]
        records = {(table, b64decode(key)): b64decode(value) for table, key, value in rows}
        if f"{digest(records):064x}" != expected:
            msg = f"the state handed over at entry {self.offset} does not have its digest"
            raise VerificationMismatch(msg)
        return HandoverState(self.offset, dict(self._parts[0]["meta"]), records)


def plain(meta: Mapping[str, object]) -> Meta:
    """Return a checkpoint's meta as plain JSON values."""
    found: Meta = orjson.loads(orjson.dumps(meta))
    return found
