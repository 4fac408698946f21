"""`himari worker`: run one worker process of the consumer group."""

import asyncio
import logging
import os
from typing import NoReturn

import click
import uvloop

from config.load import Loaded
from config.watch import FileWatch
from streams.cli.common import clock, common, connection, loaded
from streams.cli.terminal import LogFormatter, say
from streams.worker import descriptors
from streams.worker.drain import drain_all
from streams.worker.run import leave
from streams.worker.worker import Worker, prepare


@click.command()
@click.option(
    "--drain", is_flag=True, help="Process the journal to its end, hand it over to another decision version, and stop."
)
@click.option(
    "--to",
    "to_version",
    type=click.IntRange(min=1),
    help="With --drain: decision version to hand over to (default: next).",
)
@common
def worker(config: str | None, bootstrap: str | None, to_version: int | None, *, drain: bool) -> None:
    """Run a worker until interrupted. Health on port 6066, metrics on port 9090, on localhost by default."""
    if to_version is not None and not drain:
        msg = "--to requires --drain"
        raise click.UsageError(msg)
    found = loaded(config, bootstrap)
    descriptors.require(found.settings)
    log = logging.StreamHandler()
    log.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=found.settings.monitoring.log_level, handlers=[log])
    if drain:
        work = drain_all(found.settings, connection(found.settings), to_version, clock().now_ns, _handed_over)
        uvloop.run(work)
        return
    uvloop.run(_run(found, config or (click.get_current_context().obj or {}).get("config")))


def _handed_over(partition: int, version: int, entry: int) -> None:
    say(f"journal partition {partition}: handed over to decision version {version} at entry {entry}", err=True)


async def _run(found: Loaded, path: str | None) -> NoReturn:
    settings = found.settings
    overrides = {"kafka.bootstrap_servers": settings.kafka.bootstrap_servers}
    watch = FileWatch(path, os.environ, overrides) if path else None
    ready = await prepare(settings, connection(settings), clock().now_ns, watch)
    announce = asyncio.create_task(_announce(ready))
    code = await ready.run()
    announce.cancel()
    leave(code)


async def _announce(started: Worker) -> None:
    """Print the address of the page on stderr once it is served, and a line when the worker starts to decide."""
    while not started.page_url:
        await asyncio.sleep(0.1)
    say(f"himari: page {started.page_url}", err=True)
    while started.not_ready():
        await asyncio.sleep(0.1)
    say("himari: worker ready", err=True)
