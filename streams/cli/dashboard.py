"""`himari dashboard`: the page in a process of its own."""

import asyncio
import signal
import webbrowser
from collections.abc import Callable

import click
import uvloop

from config.settings import Settings
from streams.cli.common import clock, common, connection, loaded
from streams.cli.terminal import say, say_json
from streams.page.dashboard import serve

PORT = 6067
"""Beside the worker's 6066, so that both run on one machine."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0: any free one.")
@click.option("--host", help="Address to listen on; beyond this machine it needs HIMARI_WEB_TOKEN. [default: settings]")
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON object.")
@common
def dashboard(
    port: int, host: str | None, config: str | None, bootstrap: str | None, *, open_page: bool, as_json: bool
) -> None:
    """Serve the page of all portfolios until interrupted. It reads allocations and alerts, and orders nothing."""
    settings = loaded(config, bootstrap).settings

    def started(url: str) -> None:
        if as_json:
            say_json({"dashboard_url": url})
        else:
            say(f"himari: page {url}", err=True)
        if open_page:
            webbrowser.open(url)

    uvloop.run(_run(settings, host or settings.monitoring.web_host, port, started))


async def _run(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, connection(settings), clock().now_ns, host=host, port=port, started=started, stop=stop)
