"""`himari bench`: run the benchmarks (source checkout only)."""

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from schemas.errors import NotFound
from streams.cli.terminal import say, say_json

ROOT = Path(__file__).parents[2]
ON_A_BROKER = ("journal", "ticks", "latency", "policy", "portfolios", "verify")
ON_KAFKA = ("restart",)
"""Need Apache Kafka: run only with --kafka or when named."""
SPREAD = {"median", "min", "max"}
NAMES = ("library", "correlation", "portfolio", "together", "hybrid", "gate", "start", *ON_A_BROKER, *ON_KAFKA)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--kafka/--no-kafka", default=False, help="Also on Apache Kafka (needs Java 17).")
@click.option("--quick", is_flag=True, help="One short run each: checks that they work, not how fast.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(names: tuple[str, ...], *, kafka: bool, quick: bool, as_json: bool) -> None:
    """Run the benchmarks NAMES (default: all). Reports medians of several runs, each with a baseline.

    The baseline is measured in the same run, so that ratios hold on a busy machine.
    """
    if not (ROOT / "benchmarks").is_dir():
        msg = "the benchmarks are part of the source checkout, not of the installed package"
        raise NotFound(msg)
    sys.path.insert(0, str(ROOT))
    report: dict[str, Any] = {}
    for name in names or [each for each in NAMES if kafka or each not in ON_KAFKA]:
        module = importlib.import_module(f"benchmarks.{name}")
        if name not in ON_A_BROKER + ON_KAFKA:
            report[name] = _tell(name, module.run(quick=quick), as_json=as_json)
            continue
        for kind in ("kafka",) if name in ON_KAFKA else ("embedded", "kafka") if kafka else ("embedded",):
            title = f"{name} on {kind}"
            report[title] = _tell(title, asyncio.run(module.run(kind, quick=quick)), as_json=as_json)
    if as_json:
        say_json(report)


def _tell(title: str, found: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    if as_json:
        say(f"{title}: done", err=True)
    else:
        say(title)
        for key, value in _flat(found):
            say(f"  {key}: {value}")
    return found


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value.keys() == SPREAD:
            yield name, f"{value['median']:.4g} ({value['min']:.4g} to {value['max']:.4g})"
        elif isinstance(value, dict):
            yield from _flat(value, f"{name} ")
        else:
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)
