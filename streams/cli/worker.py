"""`himari worker`: one process of the group."""

import asyncio
import logging
import os
from typing import NoReturn

import click
import uvloop

from config.load import Loaded
from config.watch import FileWatch
from streams.cli.common import clock, common, connection, loaded
from streams.worker.drain import drain_all
from streams.worker.run import leave
from streams.worker.worker import prepare


@click.command()
@click.option("--drain", is_flag=True, help="Fold all there is, hand the journal over to another version, and stop.")
@click.option("--to", "to_version", type=click.IntRange(min=1), help="Decision version to hand over to; the next one.")
@common
def worker(config: str | None, bootstrap: str | None, to_version: int | None, *, drain: bool) -> None:
    """Run a worker until it is interrupted; health on 6066, metrics on 9090, on this machine alone by default."""
    if to_version is not None and not drain:
        msg = "--to goes with --drain"
        raise click.UsageError(msg)
    found = loaded(config, bootstrap)
    logging.basicConfig(
        level=found.settings.monitoring.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if drain:
        work = drain_all(found.settings, connection(found.settings), to_version, clock().now_ns, _handed_over)
        uvloop.run(work)
        return
    uvloop.run(_run(found, config or (click.get_current_context().obj or {}).get("config")))


def _handed_over(partition: int, version: int, entry: int) -> None:
    click.echo(f"journal partition {partition}: handed over to decision version {version} at entry {entry}", err=True)


async def _run(found: Loaded, path: str | None) -> NoReturn:
    settings = found.settings
    overrides = {"kafka.bootstrap_servers": settings.kafka.bootstrap_servers}
    watch = FileWatch(path, os.environ, overrides) if path else None
    ready = await prepare(settings, connection(settings), clock().now_ns, watch)
    announce = asyncio.create_task(_announce(ready.not_ready))
    code = await ready.run()
    announce.cancel()
    leave(code)


async def _announce(not_ready: object) -> None:
    """Say on stderr when decisions begin."""
    while callable(not_ready) and not_ready():
        await asyncio.sleep(0.1)
    click.echo("himari: worker ready", err=True)
