"""Recompute one allocation of HIMARI Layer 3 from its journal, and compare it byte for byte.

A bundle is data: four members of its ZIP are read, in memory and up to a size, and nothing in it is executed or
written to disk. Needs no Kafka and no worker, only Python's standard library and the `engines` and `schemas` of a
himari-layer3 of the bundle's decision version:

    himari audit check BUNDLE.zip                  # with the package
    python himari-verifier-VERSION.pyz BUNDLE.zip  # without it: the same code in one file, see docs/audit.md

Exit 0: the bytes are identical. 4: they differ; the first difference is shown. 5: this is no whole bundle. 8: it is of
another decision version.
"""

import base64
import hashlib
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from engines.allocation import DECISION_VERSION
from engines.fold import apply
from engines.handlers.effects import Journaled
from engines.state.codec import decode_key
from engines.state.partition import PartitionProgress, State

MIB: Final = 1 << 20
LARGEST: Final = MappingProxyType(
    {"bundle.json": MIB, "decision.json": 16 * MIB, "checkpoint.json": 1024 * MIB, "journal.jsonl": 4096 * MIB}
)
"""Member of a bundle → the most bytes that are read of it."""
REQUIRED: Final = ("bundle.json", "decision.json", "journal.jsonl")
NOTHING: Final = object()


class Differs(Exception):  # noqa: N818 a finding, not an error of this program
    """The recomputed decision differs; the message says where."""


class OtherVersion(Exception):  # noqa: N818 likewise
    """The bundle is of another decision version; the message says of which."""


def members(bundle: Path) -> dict[str, bytes]:
    """Return the data of a bundle by member.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a ZIP, a required member is missing, doubled, too large or damaged.
    """
    try:
        with zipfile.ZipFile(bundle) as archive:
            names = archive.namelist()
            wanted = [name for name in LARGEST if name in names or name in REQUIRED]
            return {name: _member(archive, name, names.count(name)) for name in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        msg = f"{bundle.name} is not a readable ZIP: {error}"
        raise ValueError(msg) from error


def _member(archive: zipfile.ZipFile, name: str, count: int) -> bytes:
    if count != 1:
        msg = f"{name} must be in the bundle once, was {count} times"
        raise ValueError(msg)
    with archive.open(name) as member:
        value = member.read(LARGEST[name] + 1)
    if len(value) > LARGEST[name]:
        msg = f"{name} must have at most {LARGEST[name]} bytes"
        raise ValueError(msg)
    return value


def read(offset: int, raw: bytes) -> Journaled:
    """Return a journal entry in the form the engine folds."""
    fields = _parsed(raw)
    source = fields["source"] or {"topic": "", "epoch": 0, "partition": 0, "offset": 0}
    return Journaled(
        offset,
        fields["kind"],
        source["topic"],
        source["epoch"],
        source["partition"],
        source["offset"],
        fields["journaled_at_ns"],
        _parsed(fields["value"]),
        raw,
    )


def _parsed(text: str | bytes) -> Any:
    """Return the parsed JSON; integers beyond 64 bits become floats, as in the worker."""
    return json.loads(text, parse_int=_whole, parse_constant=_refuse)


def _whole(digits: str) -> int | float:
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


def _refuse(name: str) -> None:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def restore(partition: int, checkpoint: Any) -> State:
    """Return the state of a checkpoint; None gives the state before the first entry.

    Raises:
        Differs: the digest of its records is not the one it states.
    """
    state = State(partition)
    if checkpoint is None:
        return state
    records = [(table, base64.b64decode(key), base64.b64decode(value)) for table, key, value in checkpoint["records"]]
    digest = sum(_term(*record) for record in records) % (1 << 256)
    if f"{digest:064x}" != checkpoint["digest"]:
        raise Differs(f"the checkpoint at entry {checkpoint['offset']} has digest {digest:064x}")
    named = {(table, decode_key(key)): value for table, key, value in records}
    state.restore(PartitionProgress(**json.loads(json.dumps(checkpoint["meta"]))), named)  # a fold changes it in place
    return state


def _term(table: str, key: bytes, value: bytes) -> int:
    """Return one record's summand of the digest."""
    head = struct.pack("<II", len(table.encode()), len(key))
    return int.from_bytes(hashlib.sha256(head + table.encode() + key + value).digest(), "big")


def recompute(entries: Iterable[bytes], partition: int, portfolio: str, checkpoint: Any = None) -> bytes:
    """Fold journal entries from the beginning, or from a checkpoint; return the last entry's allocation.

    Raises:
        Differs: an entry cannot be folded, or the last one has no decision for this portfolio.
    """
    state = restore(partition, checkpoint)
    decided: list[bytes] = []
    for offset, raw in enumerate(entries, start=0 if checkpoint is None else checkpoint["offset"] + 1):
        try:
            folded = apply(state, read(offset, raw))
        except Exception as error:
            msg = f"journal {partition}:{offset} cannot be folded: {type(error).__name__}: {error}"
            raise Differs(msg) from error
        decided = [each.value for each in folded.allocations if each.decision.portfolio_id == portfolio]
        state.touched.clear()
    if not decided:
        msg = f"the last journal entry has no decision for {portfolio}"
        raise Differs(msg)
    return decided[0]


def difference(published: bytes, computed: bytes) -> str:
    """Return the first difference of two allocations, fields in name order; "" if the bytes are identical."""
    if published == computed:
        return ""
    try:
        found = _first_difference("", json.loads(published), json.loads(computed))
    except (RecursionError, ValueError):
        found = ""
    if found:
        return found
    place = next(
        (place for place, (one, other) in enumerate(zip(published, computed, strict=False)) if one != other),
        min(len(published), len(computed)),
    )
    return f"byte {place}: the bytes differ, the fields do not"


def _first_difference(path: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other})
        pairs = [
            (f"{path}.{name}" if path else name, one.get(name, NOTHING), other.get(name, NOTHING)) for name in names
        ]
        return next((found for pair in pairs if (found := _first_difference(*pair))), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{path}[{place}]", *pair) for place, pair in enumerate(zip(one, other, strict=True))]
        return next((found for pair in pairs if (found := _first_difference(*pair))), "")
    if type(one) is type(other) and one == other:
        return ""
    return f"{path or 'the record'}: published {_shown(one)}, computed {_shown(other)}"


def _shown(value: Any) -> str:
    text = "nothing" if value is NOTHING else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 120 else f"{text[:117]}..."


def check(files: Mapping[str, bytes]) -> str:
    """Verify the data of a bundle; return the result in one line.

    Raises:
        Differs: the recomputed decision differs.
        OtherVersion: it belongs to another decision version.
        ValueError: the bundle is incomplete.
    """
    manifest = json.loads(files["bundle.json"])
    if manifest["decision_version"] != DECISION_VERSION:
        msg = f"the bundle has decision version {manifest['decision_version']}, installed is {DECISION_VERSION}"
        raise OtherVersion(msg)
    for name, value in files.items():
        found = hashlib.sha256(value).hexdigest()
        if name != "bundle.json" and found != manifest["sha256"][name]:
            msg = f"{name} was changed after bundling: its sha256 is {found}"
            raise Differs(msg)
    published, entries = files["decision.json"], files["journal.jsonl"].split(b"\n")[:-1]
    checkpoint = json.loads(files["checkpoint.json"]) if "checkpoint.json" in files else None
    first = 0 if checkpoint is None else checkpoint["offset"] + 1
    if len(entries) != manifest["offset"] + 1 - first:
        msg = f"journal.jsonl must contain entries {first} to {manifest['offset']}, contains {len(entries)}"
        raise ValueError(msg)
    finding = difference(published, recompute(entries, manifest["partition"], manifest["portfolio_id"], checkpoint))
    if finding:
        raise Differs(finding)
    digest = hashlib.sha256(published).hexdigest()
    after = "" if checkpoint is None else f" after the checkpoint at entry {first - 1}, digest {checkpoint['digest']}"
    return f"ok: {manifest['decision_id']} recomputed from {len(entries)} journal entries{after}; sha256 {digest}"


def verdict(bundle: Path) -> tuple[int, str]:
    """Return exit code and result of the verification of a bundle, in one line of printable ASCII."""
    try:
        code, found = 0, check(members(bundle))
    except Differs as finding:
        code, found = 4, f"differs: {finding}"
    except OtherVersion as finding:
        code, found = 8, f"cannot verify: {finding}"
    except KeyError as error:
        code, found = 5, f"cannot verify: bundle.json must have {error}"
    except (AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
        code, found = 5, f"cannot verify: {error}"
    return code, "".join(each if each.isascii() and each.isprintable() else ascii(each)[1:-1] for each in found)


def main(arguments: list[str]) -> int:
    """Print the result of the verification of the bundle that is named; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python himari-verifier-VERSION.pyz BUNDLE.zip\n")
        return 2
    code, found = verdict(Path(arguments[0]))
    sys.stdout.write(found + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
