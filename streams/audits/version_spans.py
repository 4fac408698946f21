"""Which entries of a journal partition belong to which decision version, and where this one's proof begins."""

from collections.abc import AsyncIterable, Mapping
from typing import Final, NamedTuple

from engines.allocation import DECISION_VERSION
from schemas.errors import AnotherVersion
from streams.audits.refold import GENESIS, Checkpoint
from streams.journal import entries as journal
from streams.journal.handover import MIGRATIONS, HandoverReader, Migration, taken_over
from streams.processing.checkpoint import digest, fingerprint
from streams.processing.ports import Record

SIGNS: Final = (b'"kind":"engine"', b'"kind":"genesis"')
"""In the bytes of each entry that says which version decides from there on."""


class VersionSpan(NamedTuple):
    """Entries that one version decided."""

    first: int
    last: int | None
    """None: the journal's end is not known to be its end."""
    version: int
    package: str
    """Version of the package, "" where nobody has told."""

    def __str__(self) -> str:
        """Return it for people, with what verifies it."""
        end = "on" if self.last is None else f"to {self.last}"
        which = f"=={self.package}" if self.package else f", a release of decision version {self.version}"
        return (
            f"entries from {self.first} {end} are of decision version {self.version}: not checked here. "
            f"To check them: pip install himari-layer3{which}; himari audit verify"
        )


class Begun(NamedTuple):
    """Where this version's part of a partition begins."""

    start: Checkpoint
    others: tuple[VersionSpan, ...]
    """Before it, in order."""


async def begun(
    partition: int,
    entries: AsyncIterable[Record],
    version: int = DECISION_VERSION,
    migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS,
) -> Begun:
    """Return where a version begins in a journal partition, of which `entries` are read as far as that needs.

    Raises:
        AnotherVersion: nowhere.
        VerificationMismatch: the state handed over to it does not have its digest.
    """
    wait = HandoverReader(version)
    marks: dict[int, str] = {}
    async for record in entries:
        raw = record.value or b""
        if not any(sign in raw for sign in SIGNS):
            continue
        entry = journal.read(record.offset, raw)
        if entry.kind == "genesis" and entry.body["decision_version"] == version:
            return Begun(GENESIS, ())
        marks[record.offset] = fingerprint(record)
        left = wait.take(entry)
        if left is not None:
            mine = taken_over(f"journal partition {partition}", left, version, migrations)
            start = Checkpoint(mine.offset, digest(mine.records), marks[mine.offset], 0, mine.meta, mine.records)
            return Begun(start, _stretches(wait)[:-1])
    told = "; ".join(map(str, _stretches(wait))) or "it holds no Genesis"
    msg = f"journal partition {partition} has nothing of decision version {version}: {told}"
    raise AnotherVersion(msg)


def _stretches(wait: HandoverReader) -> tuple[VersionSpan, ...]:
    ends = [first - 1 for first, _, _ in wait.versions[1:]]
    return tuple(
        VersionSpan(first, last, number, package)
        for (first, number, package), last in zip(wait.versions, [*ends, None], strict=True)
    )
