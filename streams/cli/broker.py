"""`himari broker`: a local broker in the foreground, for development."""

import asyncio
import tempfile
from pathlib import Path

import click

from streams.cli.terminal import say
from streams.kafka.apache_kafka import apache_kafka
from streams.kafka.broker import embedded, running


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=9092, show_default=True, help="Port to listen on.")
@click.option(
    "--kafka", is_flag=True, help="Run a one-node Apache Kafka (needs Java 17) instead of the embedded broker."
)
def broker(port: int, *, kafka: bool) -> None:
    """Run a local broker on 127.0.0.1 until interrupted. For development, not for production."""
    with tempfile.TemporaryDirectory(prefix="himari-broker-") as folder:
        process = (apache_kafka if kafka else embedded)(Path(folder), port)
        with running(process) as started:
            say(f"{started.name} on 127.0.0.1:{port}", err=True)
            try:
                asyncio.run(_until_it_ends(started.alive))
            except KeyboardInterrupt:
                say("stopped", err=True)


async def _until_it_ends(alive: object) -> None:
    while callable(alive) and alive():
        await asyncio.sleep(0.2)
