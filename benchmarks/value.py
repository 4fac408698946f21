"""What sizing is worth on real candles, before and after: one table. `python -m benchmarks.value` runs it.

    python -m benchmarks.value --code tests/golden/v3/code.zip          # this code beside decision version 3
    python -m benchmarks.value --code ../other-checkout --coins BTC --seeds 3
    python -m benchmarks.value --methods                                # the tables of learning alone, on made outcomes
    python -m benchmarks.value --cascades                               # the real hours that must be acted on

`value_course.py` is the course: what the strategies know, when they claim, how targets are filled. This code, and each
`--code` (a checkout, or a zip of one), takes it in processes of its own. Naive Kelly takes every claim at its word,
within the same caps. The candles lie in `../shared/data` beside the project; without them there is nothing to measure,
and the run ends with an error that says so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks import cascade_hours, methods
from benchmarks.value_course import BOOKS

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
COURSES = {"BTC": (("BTC",), 5), "4 coins": (("BTC", "ETH", "BNB", "ADA"), 10)}
"""Name → coins, and how many seeds."""
PROCESSES = 2
THIS = "this code"

Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for; print markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.value", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--code", action="append", default=[], help="another checkout, or a zip, to run beside this one"
    )
    parser.add_argument("--coins", choices=COURSES, action="append", help="which courses (default: all)")
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds (default: 5 on BTC, 10 on four coins)")
    parser.add_argument("--hours", type=int, default=0, help="only the first so many hours (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of this code")
    parser.add_argument("--json", action="store_true", help="print every run as a line of JSON instead of tables")
    parser.add_argument("--methods", action="store_true", help="the tables of learning alone instead")
    parser.add_argument("--cascades", action="store_true", help="the real cascades, hour by hour, instead")
    asked = parser.parse_args(arguments)
    if asked.methods:
        print(methods.report())
        return
    if not DATA.is_dir():
        raise SystemExit("SKIPPED, nothing was measured: no candles in ../shared/data beside the project")
    if asked.cascades:
        print(cascade_hours.report(DATA))
        return
    settings = {key: json.loads(value) for key, _, value in (each.partition("=") for each in asked.set)}
    for name in asked.coins or COURSES:
        coins, seeds = COURSES[name]
        jobs = [
            {"data": str(DATA), "coins": coins, "seed": seed, "hours": asked.hours}
            for seed in range(asked.seeds or seeds)
        ]
        found = measured(asked.code, jobs, settings)
        if asked.json:
            print("\n".join(json.dumps({"code": code, **each}) for code, of in found.items() for each in of))
        else:
            print(f"\n{name}, {len(jobs)} seeds\n\n{table(found)}")


def measured(codes: Iterable[str], jobs: Sequence[Result], settings: Result) -> dict[str, list[Result]]:
    """Return the results of each code and of this one, job by job; at most `PROCESSES` run at once."""
    with tempfile.TemporaryDirectory(prefix="himari-value-") as name, ThreadPoolExecutor(PROCESSES) as pool:
        folders = {code: _folder(Path(code), Path(name) / str(place)) for place, code in enumerate(codes)}
        folders[THIS] = ROOT
        waiting = {
            code: [pool.submit(course, folder, {**job, "settings": settings if code == THIS else {}}) for job in jobs]
            for code, folder in folders.items()
        }
        return {code: [each.result() for each in of] for code, of in waiting.items()}


def _folder(code: Path, into: Path) -> Path:
    """Return the folder in which code lies, unpacked if it is a zip."""
    if not code.exists():
        raise SystemExit(f"--code must be a folder or a zip with the package's code, was {code}")
    if code.is_dir():
        return code.resolve()
    with zipfile.ZipFile(code) as packed:
        packed.extractall(into)
    return into


def course(folder: Path, job: Result) -> Result:
    """Return the result of one job, taken by the code in a folder, in a process of its own."""
    script = Path(__file__).with_name("value_course.py")
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(folder)],
        input=json.dumps(job).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the course failed on {folder}: {done.stderr.decode()[-2000:]}")
    result: Result = json.loads(done.stdout)
    return result


# -- the table ---------------------------------------------------------------------------------------------------------
def table(found: dict[str, list[Result]]) -> str:
    """Return P&L (sd) / drawdown in % of V and turnover in V by book, for each code; then naive Kelly's."""
    codes = list(found)
    first = codes[0]
    heads = ["book", *(f"{code}: P&L % (sd) / drawdown % · turnover V" for code in codes), "naive Kelly"]
    if len(codes) > 1:
        heads.append(f"{THIS} − {first}: P&L ± se, drawdown, turnover")
    lines = [heads, ["---"] * len(heads)]
    for book in BOOKS:
        row = [book, *(_cell(found[code], "sized", book) for code in codes), _cell(found[first], "naive", book)]
        if len(codes) > 1:
            row.append(_difference(found[first], found[THIS], book))
        lines.append(row)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of(results: Sequence[Result], kind: str, book: str, what: str) -> list[float]:
    return [each[kind][book][what] for each in results]


def _cell(results: Sequence[Result], kind: str, book: str) -> str:
    profit, fall, turned = (_of(results, kind, book, what) for what in ("profit", "drawdown", "turnover"))
    return f"{_spread(profit)} / {100 * mean(fall):.1f} · {mean(turned):.0f}"


def _spread(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation between seeds, in %."""
    deviation = f" ({100 * stdev(values):.1f})" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{deviation}"


def _difference(before: Sequence[Result], after: Sequence[Result], book: str) -> str:
    """Return the mean difference, seed by seed: both took the same claims on the same prices."""
    differ = {
        what: [y - x for x, y in zip(_of(before, "sized", book, what), _of(after, "sized", book, what), strict=True)]
        for what in ("profit", "drawdown", "turnover")
    }
    profit = differ["profit"]
    error = f" ± {100 * stdev(profit) / len(profit) ** 0.5:.1f}" if len(profit) > 1 else ""
    return f"{100 * mean(profit):+.1f}{error}, {100 * mean(differ['drawdown']):+.1f}, {mean(differ['turnover']):+.0f}"


if __name__ == "__main__":
    main()
