"""Replay the golden journal and print one JSON object: what came out, what is remembered, and hashes of the bytes.

Outputs alone would let two builds of one version hold different states, and decide differently later: so the records
that a checkpoint would write are hashed too.

Run by itself (`python tests/golden/replay.py`), so that the environment decides what the libraries below do.
"""

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from engines.allocation import DECISION_VERSION  # noqa: E402 (the path comes first)
from streams.processing.memory_cluster import Stored  # noqa: E402
from streams.processing.ports import RecordKey  # noqa: E402
from streams.stages.sizing import SizingFold  # noqa: E402

JOURNAL = Path(__file__).with_name("journal.jsonl")
EXPECTED = Path(__file__).with_name("outputs.json")
EVERY = 100
"""Entries between two marks: they tell where two runs part."""


class Checkpoints:
    """All records of a fold, and its progress, as checkpoints would have written them."""

    def __init__(self, fold: SizingFold) -> None:
        self.fold = fold
        self.records: dict[RecordKey, bytes] = {}

    def digest(self) -> str:
        """Take what was touched since the last time; return a hash of all records and of the progress."""
        for key in self.fold.touched:
            value = self.fold.encode(key)
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        self.fold.touched.clear()
        digest = hashlib.sha256()
        for (table, name), value in sorted(self.records.items()):
            _add(digest, table.encode(), name, value)
        _add(digest, orjson.dumps(self.fold.meta(), option=orjson.OPT_SORT_KEYS))
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Return how many records each table holds."""
        return dict(sorted(Counter(table for table, _ in self.records).items()))


def _add(digest: "hashlib._Hash", *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)


def replay(lines: list[bytes], fold: SizingFold | None = None) -> dict[str, object]:
    """Return counts and hashes of all that a journal, one entry a line, makes sizing publish and remember.

    `marks` are of all outputs so far, `state_marks` of the state at that entry.
    """
    fold, digest = fold or SizingFold(0), hashlib.sha256()
    counts: Counter[str] = Counter()
    checkpoints = Checkpoints(fold)
    marks, state_marks = [], []
    for offset, line in enumerate(lines):
        for send in fold.fold(Stored(offset, None, line)):
            counts[send.topic] += 1
            _add(digest, send.topic.encode(), send.key or b"", send.value or b"")
        if offset % EVERY == EVERY - 1:
            marks.append(digest.hexdigest()[:16])
            state_marks.append(checkpoints.digest()[:16])
    return {
        "decision_version": DECISION_VERSION,
        "entries": len(lines),
        "marks": marks,
        "outputs": dict(sorted(counts.items())),
        "sha256": digest.hexdigest(),
        "state_marks": state_marks,
        "state_sha256": checkpoints.digest(),
        "state_records": checkpoints.counts(),
    }


def read() -> list[bytes]:
    """Return the golden journal's entries."""
    return JOURNAL.read_bytes().splitlines()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(replay(read()), indent=1) + "\n")
