"""Compute one allocation of HIMARI Layer 3 again from its journal, and compare it byte for byte.

This file is `verify.py` of a bundle that `himari audit bundle` has written, and `streams/evidence/verifier.py` of the
package: compare the two before you believe it. It needs no Kafka and no worker, only the `engines` and `schemas` of a
himari-layer3 of the same decision version, and Python's own library. In the folder of an unpacked bundle:

    python verify.py

Exit 0: the bytes are the same. 4: they are not, and the first difference is named. 1: this is not a whole bundle, or
another decision version is installed.
"""

import base64
import hashlib
import json
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engines.allocation import DECISION_VERSION
from engines.fold import apply
from engines.handlers.effects import Journaled
from engines.state.codec import decode_key
from engines.state.partition import PartitionProgress, State

FILES = ("decision.json", "journal.jsonl")
NOTHING = object()


class Differs(Exception):  # noqa: N818 a finding, not an error of this program
    """The decision does not come out again; says where."""


def read(offset: int, raw: bytes) -> Journaled:
    """Return a journal entry as sizing folds it."""
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
    """Return what JSON says; whole numbers that 64 bits do not hold are floats, as the worker takes them."""
    return json.loads(text, parse_int=_whole, parse_constant=_refuse)


def _whole(digits: str) -> int | float:
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


def _refuse(name: str) -> None:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def restore(partition: int, checkpoint: Any) -> State:
    """Return the state of a checkpoint, None: that before the first entry.

    Raises:
        Differs: its records do not have the digest that it says.
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
    """Return what one record adds to the digest."""
    head = struct.pack("<II", len(table.encode()), len(key))
    return int.from_bytes(hashlib.sha256(head + table.encode() + key + value).digest(), "big")


def recompute(entries: Iterable[bytes], partition: int, portfolio: str, checkpoint: Any = None) -> bytes:
    """Fold the entries of a journal partition from its beginning, or after a checkpoint; return what the last decides.

    Raises:
        Differs: an entry cannot be folded, or the last one decides nothing for this portfolio.
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
        msg = f"the journal decides nothing for {portfolio} there"
        raise Differs(msg)
    return decided[0]


def difference(published: bytes, computed: bytes) -> str:
    """Return where two allocations first differ, by field in order of name, "" where their bytes are the same."""
    if published == computed:
        return ""
    try:
        found = _apart("", json.loads(published), json.loads(computed))
    except (RecursionError, ValueError):
        found = ""
    if found:
        return found
    place = next(
        (place for place, (one, other) in enumerate(zip(published, computed, strict=False)) if one != other),
        min(len(published), len(computed)),
    )
    return f"byte {place}: the record's bytes are other ones"


def _apart(path: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other})
        pairs = [
            (f"{path}.{name}" if path else name, one.get(name, NOTHING), other.get(name, NOTHING)) for name in names
        ]
        return next((found for pair in pairs if (found := _apart(*pair))), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{path}[{place}]", *pair) for place, pair in enumerate(zip(one, other, strict=True))]
        return next((found for pair in pairs if (found := _apart(*pair))), "")
    if type(one) is type(other) and one == other:
        return ""
    return f"{path or 'the record'}: published {_shown(one)}, computed {_shown(other)}"


def _shown(value: Any) -> str:
    text = "nothing" if value is NOTHING else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 120 else f"{text[:117]}..."


def check(folder: Path) -> str:
    """Return what an unpacked bundle proves.

    Raises:
        Differs: the decision does not come out again.
        ValueError: the bundle is not whole, or another decision version is installed.
    """
    told = json.loads((folder / "bundle.json").read_bytes())
    if told["decision_version"] != DECISION_VERSION:
        msg = f"the decision is of decision version {told['decision_version']}, installed is {DECISION_VERSION}"
        raise ValueError(msg)
    for name in (*FILES, *(name for name in ("checkpoint.json",) if name in told["sha256"])):
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != told["sha256"][name]:
            msg = f"{name} is not the file that was bundled: its sha256 is {found}"
            raise Differs(msg)
    published = (folder / "decision.json").read_bytes()
    entries = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    checkpoint = json.loads((folder / "checkpoint.json").read_bytes()) if "checkpoint.json" in told["sha256"] else None
    first = 0 if checkpoint is None else checkpoint["offset"] + 1
    if len(entries) != told["offset"] + 1 - first:
        msg = f"journal.jsonl must hold the entries {first} to {told['offset']}, holds {len(entries)}"
        raise ValueError(msg)
    finding = difference(published, recompute(entries, told["partition"], told["portfolio_id"], checkpoint))
    if finding:
        raise Differs(finding)
    digest = hashlib.sha256(published).hexdigest()
    after = "" if checkpoint is None else f" after the checkpoint at entry {first - 1}, digest {checkpoint['digest']},"
    return f"ok: {told['decision_id']} comes out of {len(entries)} journal entries{after} again, sha256 {digest}"


def main(folder: Path) -> int:
    """Say what a bundle proves; return the exit code."""
    try:
        found, code = check(folder), 0
    except Differs as finding:
        found, code = f"differs: {finding}", 4
    except (KeyError, OSError, TypeError, ValueError) as error:
        found, code = f"cannot verify: {error}", 1
    sys.stdout.write(
        "".join(each if each.isascii() and each.isprintable() else ascii(each)[1:-1] for each in found) + "\n"
    )
    return code


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
