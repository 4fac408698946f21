"""`himari portfolio`: the current state of a portfolio."""

import asyncio

import click

from streams.cli.common import clock, common, connection, loaded, names
from streams.cli.terminal import say_all, say_json
from streams.kafka.allocations import AllocationFields, newest
from streams.kafka.state_snapshot import folded
from streams.reports.portfolio import render, view


@click.group()
def portfolio() -> None:
    """Show a portfolio's targets, budgets and trading states."""


@portfolio.command()
@click.argument("portfolio_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def show(portfolio_id: str, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Show a portfolio's newest allocation, budget use, trading states and data ages."""
    settings = loaded(config, bootstrap).settings

    async def work() -> AllocationFields:
        allocation = await newest(connection(settings), names(settings), portfolio_id)
        state = await folded(connection(settings), names(settings), allocation["journal"]["partition"])
        return view(allocation, state, clock().now_ns())

    shown = asyncio.run(work())
    if as_json:
        say_json(shown)
        return
    say_all(render(shown))
