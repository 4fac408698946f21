"""Pack the code that decided at version 3, as it was committed: `python tests/golden/v3/pack.py`.

`code.zip` holds what a replay of the golden journal imports of this package, and the replay itself. It is evidence: it
is made once. Packed again it has the same members, and with the same zlib the same bytes.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

COMMIT = "1065b10"
"""The last commit whose decisions are of version 3."""
LAYERS = ("config", "engines", "schemas", "streams")
REPLAY = "tests/golden/replay.py"
CODE = Path(__file__).with_name("code.zip")
ROOT = Path(__file__).parents[3]

IMPORTED = f"""
import json, pathlib, runpy, sys
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in getattr(each, "__module__", "")]
runpy.run_path({REPLAY!r})["replay"](pathlib.Path("tests/golden/journal.jsonl").read_bytes().splitlines())
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
root = pathlib.Path.cwd()
json.dump(sorted(pathlib.Path(f).relative_to(root).as_posix() for f in files if f and root in pathlib.Path(f).parents),
          sys.stdout)
"""
"""Replays in the working directory, and prints the files there that this has imported."""


def committed() -> bytes:
    """Return the layers and the golden files of the commit, as a tar."""
    command = ["git", "archive", COMMIT, *LAYERS, "tests/golden"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout


def members(folder: Path) -> list[str]:
    """Return what a replay in a folder imports from there, and the replay."""
    done = subprocess.run([sys.executable, "-I", "-c", IMPORTED], cwd=folder, check=True, capture_output=True)
    return sorted([*json.loads(done.stdout), REPLAY])


def packed(folder: Path, names: list[str]) -> bytes:
    """Return a zip of files, sorted, without anything of the time and the machine it is made on."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in names:
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            file.writestr(member, (folder / name).read_bytes())
    return out.getvalue()


def main() -> None:
    """Write `code.zip`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        with tarfile.open(fileobj=io.BytesIO(committed())) as tar:
            tar.extractall(folder, filter="data")
        CODE.write_bytes(packed(folder, members(folder)))


if __name__ == "__main__":
    main()
