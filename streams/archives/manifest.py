"""The manifest of an archive: one line per file, each with the hash of the previous line.

Lines are only appended. The hash of the last line, the head, identifies the whole archive: record it elsewhere to
detect later changes or truncation.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

import orjson

from config.settings import PARTITIONS_MAX
from schemas.errors import NotFound, VerificationMismatch
from schemas.rules import shown
from streams.archives.files import write

NAME: Final = "manifest.jsonl"
FORMAT: Final = 1
SEGMENT: Final = "segment"
CHECKPOINT: Final = "checkpoint"
TOPICS: Final = ("journal", "allocations")
"""The topics that are archived, by logical name."""


class Segment(NamedTuple):
    """A file with all records of one partition between two offsets."""

    topic: str
    """Logical name."""
    partition: int
    first: int
    last: int
    file: str
    """Path relative to the archive's folder."""
    sha256: str
    """Of the file."""
    content: str
    """sha256 of the records, independent of the file format."""
    first_ms: int
    last_ms: int
    """Kafka timestamps of the first and the last record, ms since 1970."""


class Snapshot(NamedTuple):
    """A file with a checkpoint."""

    partition: int
    offset: int
    """Last journal entry folded in."""
    outputs: int
    """Offset in `allocations` before which there are no allocations of entries above `offset`."""
    now_ns: int
    """Journal time at `offset`, ns since 1970."""
    digest: str
    """Sum of the records' sha256, hex."""
    file: str
    sha256: str


def segment_name(topic: str, partition: int, first: int) -> str:
    """Return the path of a segment's file."""
    return f"{topic}/{partition}/{first:020}.parquet"


def snapshot_name(partition: int, offset: int) -> str:
    """Return the path of a checkpoint's file."""
    return f"checkpoints/{partition}/{offset:020}.parquet"


FileLine = TypeVar("FileLine", Segment, Snapshot)


class Manifest:
    """The lines of a manifest, with the hash chain checked.

    Raises:
        NotFound: the folder is not an archive.
        VerificationMismatch: a line was changed, or one is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[bytes] = []
        self.hashes: list[str] = []
        self.segments: dict[tuple[str, int], list[Segment]] = {}
        self.snapshots: dict[int, list[Snapshot]] = {}
        self.journal_id, self.partitions, self.decision_version = "", 0, 0
        path = folder / NAME
        if not path.is_file():
            msg = f"{folder} is not an archive: it has no {NAME}"
            raise NotFound(msg)
        try:
            text = path.read_bytes()
        except OSError as error:
            msg = f"{NAME} cannot be read: {error.strerror}"
            raise VerificationMismatch(msg) from error
        if not text.endswith(b"\n"):
            msg = f"{NAME} does not end with a complete line: its tail is lost"
            raise VerificationMismatch(msg)
        for line in text.split(b"\n")[:-1]:
            self._take(line)

    @classmethod
    def begun(cls, folder: Path, journal_id: str, partitions: int, decision_version: int) -> "Manifest":
        """Create an archive of a journal, or open the existing one.

        Raises:
            VerificationMismatch: the existing archive belongs to another journal, or is damaged.
        """
        if not (folder / NAME).exists():
            head = {
                "decision_version": decision_version,
                "format": FORMAT,
                "journal_id": journal_id,
                "kind": "archive",
                "partitions": partitions,
                "previous": "",
            }
            write(folder / NAME, _line(head) + b"\n")
        found = cls(folder)
        if (found.journal_id, found.partitions) != (journal_id, partitions):
            there = f"{found.journal_id} with {found.partitions} partitions"
            msg = f"{NAME} is of journal {there}, not of {journal_id} with {partitions}"
            raise VerificationMismatch(msg)
        return found

    @property
    def head(self) -> str:
        """Return the hash of the last line."""
        return self.hashes[-1] if self.hashes else ""

    @property
    def files(self) -> list[str]:
        """Return the paths of all files, in the order they were added."""
        return [orjson.loads(line)["file"] for line in self.lines[1:]]

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after the last record of a topic's partition; 0: none."""
        segments = self.segments.get((topic, partition))
        return segments[-1].last + 1 if segments else 0

    def add(self, found: Sequence[Segment | Snapshot]) -> None:
        """Append lines atomically."""
        lines, previous = list(self.lines), self.head
        for each in found:
            kind = SEGMENT if isinstance(each, Segment) else CHECKPOINT
            lines.append(_line({**each._asdict(), "kind": kind, "previous": previous}))
            previous = _hash(lines[-1])
        write(self.folder / NAME, b"".join(line + b"\n" for line in lines))
        for line in lines[len(self.lines) :]:
            self._take(line)

    # -- reading -----------------------------------------------------------------------------------------------------
    def _take(self, line: bytes) -> None:
        place = f"{NAME}:{len(self.lines) + 1}"
        try:
            fields = orjson.loads(line)
            kind, previous = fields.pop("kind"), fields.pop("previous")
            ours = _line({**fields, "kind": kind, "previous": previous}) == line
            readers = {"archive": self._begin, SEGMENT: self._segment, CHECKPOINT: self._snapshot}
            read = readers[kind] if ours and (kind == "archive") == (not self.lines) else readers[""]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = f"{place} is not a valid manifest line"
            raise VerificationMismatch(msg) from error
        if previous != self.head:
            before = f"{NAME}:{len(self.lines)} has hash {self.head or 'none'}"
            msg = f"{place} breaks the chain: {before}, but it follows {previous or 'none'}"
            raise VerificationMismatch(msg)
        try:
            read(place, fields)
        except (KeyError, TypeError) as error:
            msg = f"{place} has a missing or unknown field: {error}"
            raise VerificationMismatch(msg) from error
        self.lines.append(line)
        self.hashes.append(_hash(line))

    def _begin(self, place: str, fields: Mapping[str, Any]) -> None:
        if fields["format"] != FORMAT:
            msg = f"{NAME}: format must be {FORMAT}, was {fields['format']}"
            raise VerificationMismatch(msg)
        self.journal_id = _typed(place, fields, "journal_id", str)
        self.partitions = _typed(place, fields, "partitions", int)
        self.decision_version = _typed(place, fields, "decision_version", int)
        if not 1 <= self.partitions <= PARTITIONS_MAX:
            msg = f"{place}: partitions must be 1 to {PARTITIONS_MAX}, was {self.partitions}"
            raise VerificationMismatch(msg)

    def _read(self, place: str, fields: Mapping[str, Any], line: type[FileLine]) -> FileLine:
        """Return a line's fields, each of its type, of a partition that exists."""
        for name, kind in get_type_hints(line).items():
            _typed(place, fields, name, kind)
        found = line(**fields)
        if not 0 <= found.partition < self.partitions:
            msg = f"{place}: partition must be 0 to {self.partitions - 1}, was {found.partition}"
            raise VerificationMismatch(msg)
        return found

    def _segment(self, place: str, fields: Mapping[str, Any]) -> None:
        segment = self._read(place, fields, Segment)
        if segment.topic not in TOPICS:
            msg = f"{place}: topic must be {' or '.join(TOPICS)}, was {segment.topic[:64]}"
            raise VerificationMismatch(msg)
        wanted = self.end(segment.topic, segment.partition)
        if segment.first != wanted or segment.last < segment.first:
            where = f"{segment.topic} {segment.partition}"
            msg = f"{place}: {where} must continue at {wanted}, was {segment.first} to {segment.last}"
            raise VerificationMismatch(msg)
        _named(place, segment.file, segment_name(segment.topic, segment.partition, segment.first))
        self.segments.setdefault((segment.topic, segment.partition), []).append(segment)

    def _snapshot(self, place: str, fields: Mapping[str, Any]) -> None:
        snapshot = self._read(place, fields, Snapshot)
        last, outputs = self.end("journal", snapshot.partition) - 1, self.end("allocations", snapshot.partition)
        if (snapshot.offset, snapshot.outputs) != (last, outputs):
            there = f"{snapshot.offset} and {snapshot.outputs}"
            msg = f"{place}: the checkpoint must be at {last} and {outputs}, was at {there}"
            raise VerificationMismatch(msg)
        _named(place, snapshot.file, snapshot_name(snapshot.partition, snapshot.offset))
        self.snapshots.setdefault(snapshot.partition, []).append(snapshot)


def _typed(place: str, fields: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """Return a field of a kind. Raises: VerificationMismatch."""
    value = fields[name]
    if type(value) is not kind:
        rule = "a whole number" if kind is int else "a text"
        msg = f"{place}: {name} must be {rule}, was {shown(value)}"
        raise VerificationMismatch(msg)
    return value


def _named(place: str, found: str, wanted: str) -> None:
    if found != wanted:
        msg = f"{place}: file must be {wanted}, was {found}"
        raise VerificationMismatch(msg)


def _line(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(fields), option=orjson.OPT_SORT_KEYS)


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
