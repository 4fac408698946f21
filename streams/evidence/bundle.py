"""A bundle: one decision, the journal up to it, and the versions that wrote it. It is data, and contains no program.

The same decision gives the same bytes: the bundle contains no timestamps and no paths.
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
from streams.evidence.zip_file import write_zip

PACKAGE: Final = "himari-layer3"
NEEDED: Final = (PACKAGE, "numba", "numpy", "orjson", "pydantic")
"""Packages that take part in a decision; the bundle names their versions."""

README: Final = """# Decision {name}

One decision of HIMARI Layer 3, and everything needed to recompute it.

| file | holds |
|---|---|
| decision.json | the allocation as it was published, byte for byte |
| journal.jsonl | journal partition {partition}, entries {first} to the decision: one per line |
{checkpoint}| bundle.json | the decision id, the sha256 of the data files, versions |

This is data. Verify it with a program that you got from elsewhere, and do not unpack it for that:

    himari audit check BUNDLE.zip                    # himari-layer3 {package}, decision version {decision_version}
    python himari-verifier-{package}.pyz BUNDLE.zip  # without the package: released beside it, with its sha256

`ok` and exit 0: the journal gives exactly these bytes. `differs: …` and exit 4: it does not; the first difference is
shown. Verification needs no Kafka, no worker and no network.

It proves that decision.json follows from journal.jsonl under the code you have installed. It cannot prove that these
files come from the cluster: compare the sha256 it prints with that of the allocation in your own copy of the topic.
The allocation's `inputs_hash` covers every byte of the journal up to it.

The journal contains the inputs of every portfolio in the partition. Share it only with people who may see them.
"""


CHECKPOINT: Final = (
    "| checkpoint.json | the state before the first entry, from an archive; its digest is in the archive's manifest |\n"
)


class Bundle(NamedTuple):
    """The contents of a bundle."""

    name: DecisionName
    decision: bytes
    entries: list[bytes]
    start: Checkpoint = GENESIS
    """State before the first entry."""

    def files(self) -> dict[str, bytes]:
        """Return the files by name.

        Raises:
            SizingError: an entry contains a line feed, so no worker wrote it.
        """
        broken = next((offset for offset, entry in enumerate(self.entries) if b"\n" in entry), None)
        if broken is not None:
            place = f"{self.name.partition}:{self.start.offset + 1 + broken}"
            msg = f"journal {place} contains a line feed: it was not written by a worker"
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
            "bundle.json": orjson.dumps(self._manifest(data), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
            + b"\n",
            **data,
        }

    def checkpoint(self) -> dict[str, Any] | None:
        """Return the state before the first entry as plain JSON values; None if the journal starts at Genesis."""
        if self.start.meta is None:
            return None
        rows = sorted(self.start.records.items())
        return {
            "digest": f"{self.start.digest:064x}",
            "meta": self.start.meta,
            "offset": self.start.offset,
            "records": [[table, b64encode(key).decode(), b64encode(value).decode()] for (table, key), value in rows],
        }

    def _manifest(self, data: dict[str, bytes]) -> dict[str, Any]:
        return {
            "decision_id": str(self.name),
            "decision_version": DECISION_VERSION,
            "journal_id": self.name.journal_id,
            "offset": self.name.offset,
            "partition": self.name.partition,
            "packages": {package: version(package) for package in NEEDED},
            "portfolio_id": self.name.portfolio_id,
            "python": platform.python_version(),
            "sha256": {name: hashlib.sha256(value).hexdigest() for name, value in data.items()},
        }

    def write(self, path: Path) -> None:
        """Write the ZIP."""
        write_zip(path, self.files(), zipfile.ZIP_DEFLATED)

    def finding(self) -> str:
        """Return why the recomputed decision differs, "" if it is identical."""
        try:
            name, start = self.name, self.checkpoint()
            computed = verifier.recompute(self.entries, name.partition, name.portfolio_id, start)
            return verifier.difference(self.decision, computed)
        except verifier.Differs as difference:
            return str(difference)
