"""Serves the page in a process of its own, which only reads."""

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from config.settings import Settings
from engines.pipeline import cache
from engines.state.partition import State
from streams.journal.topics import Names
from streams.kafka import read
from streams.kafka.connection import Connection
from streams.monitoring.web import Views, Web
from streams.page import routes
from streams.page.service import Page


async def serve(
    settings: Settings,
    connection: Connection,
    clock: Callable[[], int],
    *,
    host: str,
    port: int,
    started: Callable[[str], Any],
    stop: asyncio.Event,
) -> None:
    """Serve the page until `stop`; `started` is called with its address.

    Raises:
        BrokerUnreachable, TopicsUnfit, LoginRefused, BrokerUntrusted: the broker cannot be used.
        PortTaken, ConfigurationException: the address cannot be listened on, or needs a token.
    """
    names = Names(settings.topics.prefix)
    await read.places(connection, names.topic("allocations"))
    state = State(0)
    state.use(settings.decision())
    page = Page(connection, names, clock, role="dashboard", limits={state.settings_hash: cache.limits(state)})

    def not_ready() -> dict[str, str]:
        problem = page.problem()
        return {"allocations": problem} if problem else {}

    views = Views(
        CollectorRegistry(),
        lambda: {"role": "dashboard", "portfolios": len(page.model.portfolios), "feeds": page.feeds.problems},
        not_ready,
        mount=lambda app, connections: routes.add(app, page, connections),
        is_shell=routes.is_shell,
    )
    web = Web(views, host=host, port=port, metrics_port=None)
    await web.start()
    try:
        started(web.url)
        await stop.wait()
    finally:
        await web.stop()
