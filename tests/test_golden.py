"""The golden journal comes out byte for byte the same: here, and whatever the libraries below do.

`tests/golden/journal.jsonl` is synthetic (`tests/golden/make.py`, seeded) and stays as it is. When decisions are meant
to change: raise `DECISION_VERSION` in `engines/allocation.py`, run `python tests/golden/make.py`, and commit
`tests/golden/outputs.json` with the change that made it differ.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest
from golden import replay
from numpy._core import _multiarray_umath as umath

from engines.decide import RANKS
from engines.fold import HANDLERS
from streams.memory import Stored
from streams.sizing import SizingFold

EXPECTED = json.loads(replay.EXPECTED.read_text())


def parted(found) -> str:
    """Say where two runs part."""
    pairs = zip(EXPECTED["marks"], found["marks"], strict=False)
    same = next((i for i, (one, other) in enumerate(pairs) if one != other), len(EXPECTED["marks"]))
    first, last = same * replay.EVERY, (same + 1) * replay.EVERY - 1
    return f"first difference in entries {first} to {last}; meant? see the docstring of tests/test_golden.py"


def test_the_golden_journal_comes_out_as_it_was_committed():
    found = replay.replay(replay.read())
    assert found == EXPECTED, parted(found)


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
