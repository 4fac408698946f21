"""`himari bench`: the benchmarks of a checkout."""

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import click
import orjson

from schemas.errors import NotFound

ROOT = Path(__file__).parents[2]
ON_A_BROKER = ("journal", "ticks", "latency", "portfolios")
NAMES = ("library", *ON_A_BROKER)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--kafka/--no-kafka", default=False, help="Also on Apache Kafka (needs Java 17).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(names: tuple[str, ...], *, kafka: bool, as_json: bool) -> None:
    """Run the benchmarks NAMES, or all; medians of several runs beside a yardstick in the same run."""
    if not (ROOT / "benchmarks").is_dir():
        msg = "the benchmarks are part of a checkout, not of the installed package"
        raise NotFound(msg)
    sys.path.insert(0, str(ROOT))
    report: dict[str, Any] = {}
    for name in names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        if name not in ON_A_BROKER:
            report[name] = _tell(name, module.run(), as_json=as_json)
            continue
        for kind in ("embedded", "kafka") if kafka else ("embedded",):
            title = f"{name} on {kind}"
            report[title] = _tell(title, asyncio.run(module.run(kind)), as_json=as_json)
    if as_json:
        sys.stdout.write(orjson.dumps(report).decode() + "\n")


def _tell(title: str, found: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    if as_json:
        click.echo(f"{title}: done", err=True)
    else:
        click.echo(title)
        for key, value in _flat(found):
            click.echo(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}")
    return found


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        rows += _flat(value, f"{prefix}{key} ") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows
