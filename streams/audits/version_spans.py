"""Which entries of a journal partition belong to which decision version, and where this version starts."""

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
"""One of these is in the bytes of every entry that names the decision version from there on."""


class VersionSpan(NamedTuple):
    """The journal entries of one decision version."""

    first: int
    last: int | None
    """None: open-ended."""
    version: int
    package: str
    """Package version, "" if unknown."""

    def __str__(self) -> str:
        """Return a description that says how to verify the span."""
        end = "on" if self.last is None else f"to {self.last}"
        which = f"=={self.package}" if self.package else f", a release of decision version {self.version}"
        return (
            f"entries from {self.first} {end} have decision version {self.version}: not checked here. "
            f"To check them: pip install himari-layer3{which}; himari audit verify"
        )


class Begun(NamedTuple):
    """The start of this version's entries in a partition."""

    start: Checkpoint
    others: tuple[VersionSpan, ...]
    """Spans before it, in order."""


async def begun(
    partition: int,
    entries: AsyncIterable[Record],
    version: int = DECISION_VERSION,
    migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS,
) -> Begun:
    """Return where a version starts in a journal partition; `entries` are read only as far as needed.

    Raises:
        AnotherVersion: the partition has no entries of this version.
        VerificationMismatch: the handed-over state does not match its digest.
    """
    reader = HandoverReader(version)
    marks: dict[int, str] = {}
    async for record in entries:
        raw = record.value or b""
        if not any(sign in raw for sign in SIGNS):
            continue
        entry = journal.read(record.offset, raw)
        if entry.kind == "genesis" and entry.body["decision_version"] == version:
            return Begun(GENESIS, ())
        marks[record.offset] = fingerprint(record)
        left = reader.take(entry)
        if left is not None:
            mine = taken_over(f"journal partition {partition}", left, version, migrations)
            start = Checkpoint(mine.offset, digest(mine.records), marks[mine.offset], 0, mine.meta, mine.records)
            return Begun(start, _spans(reader)[:-1])
    found = "; ".join(map(str, _spans(reader))) or "it has no Genesis entry"
    msg = f"journal partition {partition} has no entries of decision version {version}: {found}"
    raise AnotherVersion(msg)


def _spans(reader: HandoverReader) -> tuple[VersionSpan, ...]:
    ends = [first - 1 for first, _, _ in reader.versions[1:]]
    return tuple(
        VersionSpan(first, last, number, package)
        for (first, number, package), last in zip(reader.versions, [*ends, None], strict=True)
    )
