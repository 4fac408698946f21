"""A decision in one file: its bytes, its journal up to it, the versions, and what computes it again anywhere.

The same decision gives the same file: no clock and no path goes in.
"""

import hashlib
import platform
import zipfile
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from engines.allocation import DECISION_VERSION
from schemas.errors import SizingError
from streams.audits.refold import GENESIS, Checkpoint
from streams.evidence import verifier
from streams.evidence.decision_id import DecisionName

PACKAGE: Final = "himari-layer3"
NEEDED: Final = (PACKAGE, "numba", "numpy", "orjson", "pydantic")
"""What the verifier runs on; the versions beside which a bundle was made."""
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""When every file in a bundle was written: the beginning of time in a ZIP."""

README: Final = """# Decision {name}

One decision of HIMARI Layer 3, and all that it takes to compute it again.

| file | holds |
|---|---|
| decision.json | the allocation as it was published, byte for byte |
| journal.jsonl | journal partition {partition}, entries {first} to the decision: one a line |
{checkpoint}| bundle.json | which decision this is, sha256 of both files, versions |
| requirements.txt | versions of the packages beside which it was made |
| verify.py | the verifier: `streams/evidence/verifier.py` of himari-layer3 {package} |

    pip install -r requirements.txt   # himari-layer3 from wherever you have it, of decision version {decision_version}
    python verify.py

`ok` and exit 0: the journal gives these bytes. `differs: …` and exit 4: it does not, and this is the first difference.
Nothing else is asked: no Kafka, no worker, no network.

What it proves: that decision.json follows from journal.jsonl by the code that you have installed. What it cannot: that
these files are those of the cluster. Compare the sha256 that it prints with that of the allocation in your own copy of
the topic; `inputs_hash` in it covers every byte of the journal up to it. `verify.py` came with the bundle: compare it
with the package's own.

The journal holds what every portfolio of the partition was sent. Give it to those who may see that.
"""


CHECKPOINT: Final = (
    "| checkpoint.json | the state before that, from an archive: its digest stands in the archive's manifest |\n"
)


class Bundle(NamedTuple):
    """A bundle before it is a file."""

    name: DecisionName
    decision: bytes
    entries: list[bytes]
    start: Checkpoint = GENESIS
    """The state before the first of them."""

    def files(self) -> dict[str, bytes]:
        """Return the files by name.

        Raises:
            SizingError: an entry cannot stand on one line, so it is none that a worker has written.
        """
        broken = next((offset for offset, entry in enumerate(self.entries) if b"\n" in entry), None)
        if broken is not None:
            place = f"{self.name.partition}:{self.start.offset + 1 + broken}"
            msg = f"journal {place} has a line feed in it: no worker has written it"
            raise SizingError(msg)
        data = {"decision.json": self.decision, "journal.jsonl": b"".join(entry + b"\n" for entry in self.entries)}
        checkpoint = self.checkpoint()
        if checkpoint is not None:
            data["checkpoint.json"] = orjson.dumps(checkpoint, option=orjson.OPT_SORT_KEYS)
        readme = README.format(
            name=self.name,
            partition=self.name.partition,
            first=self.start.offset + 1,
            checkpoint="" if checkpoint is None else CHECKPOINT,
            package=version(PACKAGE),
            decision_version=DECISION_VERSION,
        )
        return {
            "README.md": readme.encode(),
            "bundle.json": orjson.dumps(self._told(data), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n",
            **data,
            "requirements.txt": "".join(f"{package}=={version(package)}\n" for package in NEEDED).encode(),
            "verify.py": Path(verifier.__file__).read_bytes(),
        }

    def checkpoint(self) -> dict[str, Any] | None:
        """Return the state before the first entry as plain JSON values, None where it is nothing."""
        if self.start.meta is None:
            return None
        rows = sorted(self.start.records.items())
        return {
            "digest": f"{self.start.digest:064x}",
            "meta": self.start.meta,
            "offset": self.start.offset,
            "records": [[table, b64encode(key).decode(), b64encode(value).decode()] for (table, key), value in rows],
        }

    def _told(self, data: dict[str, bytes]) -> dict[str, Any]:
        return {
            "decision_id": str(self.name),
            "decision_version": DECISION_VERSION,
            "journal_id": self.name.journal_id,
            "offset": self.name.offset,
            "partition": self.name.partition,
            "portfolio_id": self.name.portfolio_id,
            "python": platform.python_version(),
            "sha256": {name: hashlib.sha256(value).hexdigest() for name, value in data.items()},
        }

    def write(self, path: Path) -> None:
        """Write the ZIP."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in sorted(self.files().items()):
                place = zipfile.ZipInfo(name, EPOCH)
                place.compress_type = zipfile.ZIP_DEFLATED
                place.create_system = 3
                place.external_attr = 0o644 << 16
                archive.writestr(place, value)

    def finding(self) -> str:
        """Return why the decision does not come out of its journal again, "" where it does."""
        try:
            name, start = self.name, self.checkpoint()
            computed = verifier.recompute(self.entries, name.partition, name.portfolio_id, start)
            return verifier.difference(self.decision, computed)
        except verifier.Differs as difference:
            return str(difference)
