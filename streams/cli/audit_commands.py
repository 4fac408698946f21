"""`himari audit`: compute again what was published, and compare."""

import asyncio
import sys

import click
import orjson
from aiokafka import TopicPartition

from config.settings import Settings
from streams import audit as audits
from streams.audit import Verdict
from streams.cli.settings import common, connection, loaded, names
from streams.kafka import read
from streams.sizing import Observer


@click.group()
def audit() -> None:
    """Compute allocations again from the journal."""


@audit.command()
@click.option("--portfolio", help="Only this portfolio's allocations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def verify(config: str | None, bootstrap: str | None, portfolio: str | None, *, as_json: bool) -> None:
    """Compare every allocation with the journal, byte for byte, and its hash chain. Exit 4 where one differs."""
    verdict = asyncio.run(verify_all(loaded(config, bootstrap).settings, portfolio))
    if as_json:
        sys.stdout.write(orjson.dumps(verdict.report()).decode() + "\n")
    else:
        click.echo(told(verdict))
    click.get_current_context().exit(0 if verdict.ok else 4)


async def verify_all(settings: Settings, portfolio: str | None = None, observe: Observer | None = None) -> Verdict:
    """Verify every journal partition of a cluster; `observe` is told what the entries of the first one led to."""
    way, topics = connection(settings), names(settings)
    total = Verdict()
    for partition in range(settings.topics.partitions):
        allocations = TopicPartition(topics.topic("allocations"), partition)
        published = [record.value async for record in read.records(way, allocations, 0)]
        journal = read.records(way, TopicPartition(topics.topic("journal"), partition), 0)
        total += await audits.verify(partition, journal, published, portfolio, None if partition else observe)
    return total


def told(verdict: Verdict) -> str:
    """Return a verdict in one line."""
    if verdict.ok:
        return f"verified: {verdict.checked} allocations computed again from the journal, every byte the same"
    return (
        f"NOT verified: of {verdict.checked} allocations {verdict.mismatched} differ, "
        f"{verdict.chain_broken} break the chain; first: {verdict.first_mismatch}"
    )
