"""What decision version 3 decided still comes out byte for byte, by version 3's own code.

`tests/golden/v3/` holds the journal, what came of it, and the code that `pack.py` took from the last commit of version
3. It stays as it is, whatever later versions decide.
"""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("golden") / "v3"
EXPECTED = json.loads((HERE / "outputs.json").read_text())
SHA256 = {
    "code.zip": "64287d650559b2da40536b67032feafe566f174975edf86b887e9630b206d7f3",
    "journal.jsonl": "e10b0bac0de4707b98fb83f97cdd0af521a4adb42675ca1561b1744560a329c4",
    "outputs.json": "513ad2fb3dff3d4aa7cb5eb94dceb4d7914dea055f71d57f1f8bdb25f03343b5",
}
COMMIT = "1065b10"
OURS = ("config", "engines", "schemas", "streams")
PROGRAM = f"""
import json, pathlib, runpy, sys
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in getattr(each, "__module__", "")]
replay = runpy.run_path("tests/golden/replay.py")
found = replay["replay"](replay["read"]())
ours = {{name: each.__file__ for name, each in sys.modules.items() if name.partition(".")[0] in {OURS}}}
here = pathlib.Path.cwd()
found["elsewhere"] = sorted(name for name, file in ours.items() if here not in pathlib.Path(file).resolve().parents)
found["modules"] = len(ours)
json.dump(found, sys.stdout)
"""
"""Replays with nothing of this package but what lies in the working directory."""


@pytest.fixture
def unpacked(tmp_path):
    folder = tmp_path.resolve()
    with zipfile.ZipFile(HERE / "code.zip") as code:
        code.extractall(folder)
    (folder / "tests/golden/journal.jsonl").write_bytes((HERE / "journal.jsonl").read_bytes())
    return folder


def replayed(folder):
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM], cwd=folder, capture_output=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SHA256)
def test_the_evidence_is_as_it_was_committed(name):
    assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == SHA256[name]


def test_version_3_decides_its_journal_as_it_did(unpacked):
    found = replayed(unpacked)
    assert found.pop("elsewhere") == [], "only version 3's code took part"
    assert found.pop("modules") > len(OURS)
    assert found == EXPECTED
    assert found["decision_version"] == 3


def test_other_code_would_be_seen(unpacked):
    cascade = unpacked / "engines/cascade.py"
    before, after = "(1.0, 0.5, 0.25, 0.0)", "(1.0, 0.5, 0.24, 0.0)"
    assert before in cascade.read_text()
    cascade.write_text(cascade.read_text().replace(before, after))
    found = replayed(unpacked)
    assert found["elsewhere"] == []
    assert found["sha256"] != EXPECTED["sha256"]


def test_the_code_is_that_of_the_commit():
    """Where the history is there; a shallow clone has the sha256 alone."""
    known = subprocess.run(
        ["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"], cwd=HERE, capture_output=True, check=False
    )
    if known.returncode:
        pytest.skip(f"{COMMIT} is not in this clone")
    with zipfile.ZipFile(HERE / "code.zip") as code:
        for name in code.namelist():
            done = subprocess.run(["git", "show", f"{COMMIT}:{name}"], cwd=HERE, capture_output=True, check=True)
            assert code.read(name) == done.stdout, name
