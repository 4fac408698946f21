"""Build the self-contained verifier of bundles: `python -m tools.verifier [FOLDER]`.

One `.pyz` with the code that decides and the verifier, released beside the package and never inside a bundle. Built
twice from the same commit it has the same bytes, so its sha256 can be published and checked. It needs Python 3.11 or
newer and the packages of `NEEDED`, whose binary parts no single file can hold.
"""

import hashlib
import io
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

from streams.evidence.zip_file import write_zip

ROOT = Path(__file__).parents[1]
NEEDED = ("numba", "numpy", "orjson", "pydantic")
MAIN = f"""import os
import sys

os.environ["NUMBA_DISABLE_JIT"] = "1"  # the same bytes, and nothing compiled is written to disk
try:
    from himari_verifier import main
except ModuleNotFoundError as error:
    sys.exit(f"himari verifier: {{error.name}} is missing: pip install {" ".join(NEEDED)}")
sys.exit(main(sys.argv[1:]))
"""


def members() -> dict[str, bytes]:
    """Return what the archive holds, by name."""
    found = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in ("engines", "schemas")
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    found["himari_verifier.py"] = (ROOT / "streams/evidence/verifier.py").read_bytes()
    found["__main__.py"] = MAIN.encode()
    return found


def archive() -> bytes:
    """Return the bytes of the `.pyz`: sorted members without times, stored uncompressed."""
    out = io.BytesIO()
    write_zip(out, members(), zipfile.ZIP_STORED)
    return b"#!/usr/bin/env python3\n" + out.getvalue()


def build(folder: Path) -> Path:
    """Write the verifier and a file with its sha256 into a folder; return the verifier's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"himari-verifier-{version('himari-layer3')}.pyz"
    value = archive()
    path.write_bytes(value)
    digest = hashlib.sha256(value).hexdigest()
    path.with_suffix(".pyz.sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    built = build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist")
    sys.stdout.write(built.with_suffix(".pyz.sha256").read_text(encoding="utf-8"))
