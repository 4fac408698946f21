"""Replay the golden journal and print one JSON object: what came out, and hashes of its bytes.

Run by itself (`python tests/golden/replay.py`), so that the environment decides what the libraries below do.
"""

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from engines.allocation import DECISION_VERSION  # noqa: E402 (the path comes first)
from streams.memory import Stored  # noqa: E402
from streams.sizing import SizingFold  # noqa: E402

JOURNAL = Path(__file__).with_name("journal.jsonl")
EXPECTED = Path(__file__).with_name("outputs.json")
EVERY = 100
"""Entries between two marks: they tell where two runs part."""


def replay(lines: list[bytes]) -> dict[str, object]:
    """Return counts and hashes of all that a journal, one entry a line, makes sizing publish."""
    fold, digest = SizingFold(0), hashlib.sha256()
    counts: Counter[str] = Counter()
    marks = []
    for offset, line in enumerate(lines):
        for send in fold.fold(Stored(offset, None, line)):
            counts[send.topic] += 1
            for part in (send.topic.encode(), send.key or b"", send.value or b""):
                digest.update(len(part).to_bytes(4, "big") + part)
        if offset % EVERY == EVERY - 1:
            marks.append(digest.hexdigest()[:16])
    return {
        "decision_version": DECISION_VERSION,
        "entries": len(lines),
        "marks": marks,
        "outputs": dict(sorted(counts.items())),
        "sha256": digest.hexdigest(),
    }


def read() -> list[bytes]:
    """Return the golden journal's entries."""
    return JOURNAL.read_bytes().splitlines()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(replay(read()), indent=1) + "\n")
