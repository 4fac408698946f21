"""`himari portfolio`: how a portfolio stands."""

import asyncio
import sys

import click
import orjson

from streams.cli.common import clock, common, connection, loaded, names
from streams.kafka.allocations import AllocationFields, newest
from streams.kafka.state_snapshot import folded
from streams.reports.portfolio import told, view


@click.group()
def portfolio() -> None:
    """Look at portfolios."""


@portfolio.command()
@click.argument("portfolio_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def show(portfolio_id: str, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Show a portfolio's newest allocation, how full its budgets are, its trading states, and how fresh it all is."""
    settings = loaded(config, bootstrap).settings

    async def work() -> AllocationFields:
        allocation = await newest(connection(settings), names(settings), portfolio_id)
        state = await folded(connection(settings), names(settings), allocation["journal"]["partition"])
        return view(allocation, state, clock().now_ns())

    shown = asyncio.run(work())
    if as_json:
        sys.stdout.write(orjson.dumps(shown).decode() + "\n")
        return
    for line in told(shown):
        click.echo(line)
