"""`himari audit`: compute again what was published, and compare."""

import asyncio
import sys

import click
import orjson

from streams.audit import Verdict
from streams.cli.settings import common, connection, loaded, names
from streams.kafka.verification import verify_cluster


@click.group()
def audit() -> None:
    """Compute allocations again from the journal."""


@audit.command()
@click.option("--portfolio", help="Only this portfolio's allocations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def verify(config: str | None, bootstrap: str | None, portfolio: str | None, *, as_json: bool) -> None:
    """Compare every allocation with the journal, byte for byte, and its hash chain. Exit 4 where one differs."""
    settings = loaded(config, bootstrap).settings
    verdict = asyncio.run(verify_cluster(connection(settings), names(settings), settings.topics.partitions, portfolio))
    if as_json:
        sys.stdout.write(orjson.dumps(verdict.report()).decode() + "\n")
    else:
        click.echo(told(verdict))
    click.get_current_context().exit(0 if verdict.ok else 4)


def told(verdict: Verdict) -> str:
    """Return a verdict in one line."""
    if verdict.ok:
        return f"verified: {verdict.checked} allocations computed again from the journal, every byte the same"
    return (
        f"NOT verified: of {verdict.checked} allocations {verdict.mismatched} differ, "
        f"{verdict.chain_broken} break the chain; first: {verdict.first_mismatch}"
    )
