"""What is brought along at run time: the bill is whole and valid, the licences are permissive, known holes fail."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("supply", ROOT / "tools/supply.py")
supply = importlib.util.module_from_spec(spec)
spec.loader.exec_module(supply)


def test_the_closure_is_what_runs_and_nothing_of_what_develops():
    found = supply.closure()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {supply.normal(Requirement(text).name) for text in project["dependencies"]}
    assert asked < found.keys()
    assert {"mode-streaming", "llvmlite", "multidict", "pydantic-core"} < found.keys(), "and what those need"
    assert not {"pytest", "ruff", "hypothesis", "pyarrow", "scipy", "cryptography", "pip-audit"} & found.keys()


def locked(name):
    """Return package → (version, hashes) of a lock."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(blocks) == text.count("==")
    return {package: (version, tuple(hashes.split())) for package, version, hashes in blocks}


def test_the_lock_of_what_runs_is_what_runs_and_the_build_backend_and_no_more():
    found = {name: each.version for name, each in supply.closure().items() if name != supply.PACKAGE}
    runs = {name: version for name, (version, _) in locked("requirements.lock").items()}
    assert {name: version for name, version in runs.items() if name != "setuptools"} == found
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert [Requirement(text).name for text in backend] == ["setuptools"]
    assert Requirement(backend[0]).specifier.contains(runs["setuptools"])


def test_the_lock_of_what_develops_holds_the_other_one_to_the_hash():
    runs, develops = locked("requirements.lock"), locked("requirements-dev.lock")
    assert runs.items() < develops.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {supply.normal(Requirement(text).name) for text in project["optional-dependencies"]["dev"]}
    assert asked <= develops.keys()


def test_all_licences_at_run_time_are_permissive_or_known_and_accepted():
    assert supply.not_permissive() == {}
    assert {name for name, found in supply.closure().items() if not supply.permits(supply.licence(found))} == {"orjson"}


@pytest.mark.parametrize(
    ("expression", "permissive"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only", False),
        ("LGPL-2.1-or-later", False),
        ("AGPL-3.0-only OR LicenseRef-Commercial", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", False),
        ("BSD-2-Clause AND Apache-2.0 WITH LLVM-exception", True),
        ("not stated", False),
    ],
)
def test_an_expression_is_permissive_if_what_binds_is(expression, permissive):
    assert supply.permits(expression) is permissive


def test_the_bill_is_valid_cyclonedx_and_the_same_each_time(tmp_path):
    path = tmp_path / "deep" / "sbom.json"
    assert supply.main(["sbom", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    refs = {each["bom-ref"] for each in document["components"]}
    assert len(refs) == len(document["components"]) == len(supply.closure()) - 1
    assert document["metadata"]["component"]["purl"] not in refs
    for each in document["dependencies"]:
        assert set(each["dependsOn"]) <= refs
    assert document == supply.bill()


FINE = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "required", "code", "text"),
    [
        ([FINE], False, 0, "1 packages audited"),
        ([FINE, HOLE, SKIPPED], False, 1, "b 2: PYSEC-1, mended in 2.1"),
        ([FINE, SKIPPED], False, 0, "NOT AUDITED: 1 of 2"),
        ([FINE, SKIPPED], True, 1, "NOT AUDITED: 1 of 2"),
    ],
)
def test_a_hole_fails_and_silence_of_the_service_is_no_good_news(packages, required, code, text):
    got, lines = supply.audited({"dependencies": packages}, required=required)
    assert got == code
    assert lines[0].startswith(text)
