"""Start: time of `himari demo` from process start to the first allocation it reads."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.rig import spread
from streams.demo import runner
from streams.demo.statistics import DemoStatistics

TARGET_S = 8.0
SECONDS = 5
"""Length of the demo's live run."""


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return seconds to the first allocation on the embedded broker, and to the end of a short demo."""
    first, whole = [], []
    for _ in range(1 if quick else 5):
        began = time.monotonic()
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.start"], cwd=Path(__file__).parents[1], capture_output=True, check=True
        )
        whole.append(time.monotonic() - began)
        first.append(json.loads(child.stdout)["first_at"] - began)
    return {"first_allocation_s": spread(first), "whole_s": spread(whole), "live_s": SECONDS, "target_s": TARGET_S}


class Noted(DemoStatistics):
    """The demo's statistics, accessible after the run. The monotonic clock is shared by all processes."""

    all: list["Noted"] = []  # noqa: RUF012 (a process has one demo)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.all.append(self)


def main() -> None:
    """Run a demo, and print the time its first allocation was read."""
    runner.DemoStatistics = Noted  # type: ignore[assignment, attr-defined]
    uvloop.run(runner.run(runner.Options(SECONDS, (), 7, kafka=False, as_json=True)))
    print(json.dumps({"first_at": Noted.all[0].first_at}))


if __name__ == "__main__":
    main()
