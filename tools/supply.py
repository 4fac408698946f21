"""The package's run-time dependencies: bill of materials, licences, and known vulnerabilities.

    python tools/supply.py sbom build/sbom.cdx.json
    python tools/supply.py licences
    python tools/supply.py audit

The bill is CycloneDX 1.6 and lists the installed versions; the same packages give the same bytes. The audit queries a
vulnerability service through pip-audit. If the service is unreachable it prints NOT AUDITED, and fails if
HIMARI_AUDIT=required.
"""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

PACKAGE: Final = "himari-layer3"
LOCK: Final = Path(__file__).parents[1] / "requirements-dev.lock"
"""Run-time and development dependencies; `requirements.lock` is the run-time part."""

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


def closure(package: str = PACKAGE) -> dict[str, metadata.Distribution]:
    """Return a package and all its installed run-time dependencies, by normalised name."""
    found: dict[str, metadata.Distribution] = {}
    seen: dict[tuple[str, frozenset[str]], None] = {}
    waiting = [(package, frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen[name, extras] = None
        found[name] = metadata.distribution(name)
        for text in found[name].requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": each}) for each in {"", *extras}):
                waiting.append((normal(needed.name), frozenset(needed.extras)))
    return dict(sorted(found.items()))


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
    """Return the run-time dependencies whose licence is neither permissive nor in `ALLOWED`."""
    named = {name: licence(found) for name, found in closure().items()}
    return {name: said for name, said in named.items() if not permits(said) and ALLOWED.get(name) != said}


# -- bill of materials -----------------------------------------------------------------------------------------------
def bill() -> dict[str, Any]:
    """Return the bill of materials as a CycloneDX 1.6 document."""
    found = closure()
    own = found.pop(PACKAGE)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(PACKAGE, own, "application")},
        "components": [_component(name, each, "library") for name, each in found.items()],
        "dependencies": [
            {"ref": _purl(name, each), "dependsOn": _needs(each, found)}
            for name, each in {PACKAGE: own, **found}.items()
        ],
    }


def _component(name: str, found: metadata.Distribution, kind: str) -> dict[str, Any]:
    said = licence(found)
    known = {"expression": said} if permits(said) or name in ALLOWED else {"license": {"name": said}}
    purl = _purl(name, found)
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": found.version,
        "purl": purl,
        "licenses": [known],
    }


def _purl(name: str, found: metadata.Distribution) -> str:
    return f"pkg:pypi/{name}@{found.version}"


def _needs(found: metadata.Distribution, known: dict[str, metadata.Distribution]) -> list[str]:
    names = {normal(Requirement(text).name) for text in found.requires or []}
    return sorted(_purl(name, known[name]) for name in names if name in known)


# -- vulnerabilities -------------------------------------------------------------------------------------------------
def audited(report: dict[str, Any], *, required: bool) -> tuple[int, list[str]]:
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
        return int(required), [f"{message}, or it is unreachable"]
    return 0, [f"{len(packages)} packages audited, no known vulnerability"]


def audit() -> int:
    """Query a vulnerability service for every locked version."""
    words = ["-m", "pip_audit", "-r", str(LOCK), "--disable-pip", "--require-hashes", "--timeout", "5", "-f", "json"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)  # noqa: S603
    required = os.environ.get("HIMARI_AUDIT") == "required"
    try:
        code, lines = audited(json.loads(done.stdout), required=required)
    except ValueError:
        said = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        code, lines = int(required), [f"NOT AUDITED: the vulnerability service is unreachable: {said[0][:200]}"]
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
        case ["audit"]:
            return audit()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
