"""The golden journal comes out byte for byte the same: here, and whatever the libraries below do; so does the state.

`tests/golden/journal.jsonl` is synthetic (`tests/golden/make.py`, seeded) and stays as it is. When decisions are meant
to change: raise `DECISION_VERSION` in `engines/allocation.py`, run `python tests/golden/make.py`, and commit
`tests/golden/outputs.json` with the change that made it differ.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import orjson
import pytest
from golden import replay
from numpy._core import _multiarray_umath as umath

from engines.fold import HANDLERS
from engines.pipeline.decide import RANKS
from engines.state.tables import TABLES
from streams.processing.memory_cluster import Stored
from streams.stages.sizing import SizingFold

EXPECTED = json.loads(replay.EXPECTED.read_text())


def parted(found, expected=EXPECTED) -> str:
    """Say where two runs part, and whether in what they publish or in what they remember."""
    said = [
        f"{what} differ first in entries {first * replay.EVERY} to {(first + 1) * replay.EVERY - 1}"
        for marks, what in (("marks", "outputs"), ("state_marks", "state records"))
        if (first := _first(found[marks], expected.get(marks, []))) is not None
    ]
    return "; ".join([*said, "meant? see the docstring of tests/test_golden.py"])


def _first(found, expected):
    pairs = zip_longest(found, expected)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), None)


def test_the_golden_journal_comes_out_as_it_was_committed():
    found = replay.replay(replay.read())
    assert found == EXPECTED, parted(found)


class Otherwise(SizingFold):
    """Another build of the same version: from an entry on it remembers one record otherwise, and says the same."""

    def __init__(self, since):
        super().__init__(0)
        self.since = since

    def encode(self, key):
        value = super().encode(key)
        return value and value.replace(b"1", b"2") if key == self.since else value


def test_a_build_that_says_the_same_but_remembers_otherwise_is_found():
    """Each table counts: a byte of any one record, in its last value, changes the state's hash and no output's."""
    lines = replay.read()[:300]
    plain, its = SizingFold(0), {}
    for offset, line in enumerate(lines):
        plain.fold(Stored(offset, None, line))
        its |= dict.fromkeys(plain.touched)
    held = {key: value for key in its if (value := plain.encode(key)) and b"1" in value}
    one_a_table = {key[0]: key for key in sorted(held)}
    assert len(one_a_table) >= 5
    expected = replay.replay(lines)
    for key in one_a_table.values():
        found = replay.replay(lines, Otherwise(key))
        assert found["sha256"] == expected["sha256"]
        assert found["state_sha256"] != expected["state_sha256"], key
        assert parted(found, expected).startswith("state records differ first in entries ")


def test_the_golden_journal_leaves_records_in_every_table():
    """Or two builds could hold different records of a table that no hash is of."""
    found = replay.replay(replay.read())
    assert found["state_records"].keys() == set(TABLES)


def _dispatched() -> str:
    """Return the features that numpy could do without on this machine."""
    return " ".join(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name))


ENVIRONMENTS = {
    "hash seed 0": {"PYTHONHASHSEED": "0"},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 4294967295": {"PYTHONHASHSEED": "4294967295"},
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Sandybridge": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "OpenBLAS for Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "numpy without dispatch": {"NPY_DISABLE_CPU_FEATURES": _dispatched()},
    "numba for any CPU": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "numba interpreted": {"NUMBA_DISABLE_JIT": "1"},
    "one thread, other places": {"OMP_NUM_THREADS": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "C"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_bytes_are_the_same_with(name):
    environment = {**os.environ, **ENVIRONMENTS[name]}
    done = subprocess.run(
        [sys.executable, str(Path(replay.__file__))], env=environment, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found == EXPECTED, parted(found)


def test_the_golden_journal_is_a_hard_one():
    """Every kind of entry that sizing folds, every trigger, level, cap, gate and basis is in it."""
    seen = Counter()
    fold = SizingFold(0)
    for offset, line in enumerate(replay.read()):
        seen["kind", orjson.loads(line)["kind"]] += 1
        for send in fold.fold(Stored(offset, None, line)):
            if send.topic == "allocations":
                _look(orjson.loads(send.value), seen)
    wanted = {("kind", kind) for kind in ("genesis", *HANDLERS)} | {("trigger", rank) for rank in RANKS}
    wanted |= {("level", level) for level in ("MONITOR", "REDUCE_50%", "REDUCE_75%", "EXIT")}
    wanted |= {("cap", level) for level in ("cell", "symbol", "strategy", "portfolio")}
    wanted |= {("basis", basis) for basis in ("positions", "targets")}
    wanted |= {("conformal", status) for status in ("ok", "insufficient_samples")}
    wanted |= {("reason", reason) for reason in REASONS}
    assert wanted <= seen.keys(), sorted(wanted - seen.keys())


REASONS = (
    "no edge",
    "edge below min_edge",
    "win rate below min_win_rate",
    "no forecast",
    "no price",
    "stale price",
    "halted",
    "shorts are off",
    "min_position_usd",
    "below a lot",
    "netted",
)


def _look(fields, seen):
    seen["trigger", fields["trigger"]["kind"]] += 1
    seen["basis", fields["basis"]] += 1
    seen["level", fields.get("cascade_recommendation")] += 1
    seen["conformal", fields.get("diagnostics", {}).get("conformal", {}).get("status")] += 1
    for bound in fields["bound"]:
        seen["cap", bound.partition(":")[0]] += 1
    for row in fields["waterfall"]:
        seen["reason", row["reason"]] += 1
