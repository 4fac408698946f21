"""`himari worker`: one process of the group."""

import asyncio
import logging
import os
from typing import NoReturn

import click
import uvloop

from config.load import Loaded
from config.watch import Watch
from streams.cli.settings import common, connection, loaded
from streams.clock import ENVIRONMENT, Clock
from streams.live.serve import leave
from streams.live.worker import prepare


@click.command()
@common
def worker(config: str | None, bootstrap: str | None) -> None:
    """Run a worker until it is interrupted; health on 6066, metrics on 9090, on this machine alone by default."""
    found = loaded(config, bootstrap)
    logging.basicConfig(
        level=found.settings.monitoring.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop.run(_run(found, config or (click.get_current_context().obj or {}).get("config")))


async def _run(found: Loaded, path: str | None) -> NoReturn:
    settings = found.settings
    text = os.environ.get(ENVIRONMENT)
    clock = Clock.parse(text) if text else Clock()
    overrides = {"kafka.bootstrap_servers": settings.kafka.bootstrap_servers}
    watch = Watch(path, os.environ, overrides) if path else None
    ready = await prepare(settings, connection(settings), clock.now_ns, watch)
    announce = asyncio.create_task(_announce(ready.not_ready))
    code = await ready.run()
    announce.cancel()
    leave(code)


async def _announce(not_ready: object) -> None:
    """Say on stderr when decisions begin."""
    while callable(not_ready) and not_ready():
        await asyncio.sleep(0.1)
    click.echo("himari: worker ready", err=True)
