"""HTTP routes of the page: the shell and its files, the API, and the stream."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from streams.monitoring.connections import Connections
from streams.page.decisions import detail
from streams.page.openapi import PORTFOLIO_CHARS, ROOT, document
from streams.page.sections import BY_PORTFOLIO, SECTIONS
from streams.page.service import Page

STATIC: Final = Path(__file__).with_name("static")
TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
WRITE_S: Final = 60.0
"""A stream whose client reads nothing for this long is closed."""


def add(app: web.Application, page: Page, connections: Connections) -> None:
    """Add the routes of a page to an application, whose end stops the page."""
    for path in sorted(STATIC.iterdir()):
        route = "/" if path.name == "index.html" else f"/static/{path.name}"
        app.router.add_get(route, _file(path))
    for name in SECTIONS:
        app.router.add_get(f"{ROOT}/{name}", _section(page, name))
    app.router.add_get(f"{ROOT}/decisions/{{decision_id:.+}}", _decision(page))
    app.router.add_get(f"{ROOT}/stream", _stream(page, connections))
    app.router.add_get(f"{ROOT}/openapi.json", _openapi)

    async def stop(_app: web.Application) -> None:
        await page.stop()

    app.on_shutdown.append(stop)


def is_shell(path: str) -> bool:
    """Return whether a path is the shell or one of its files, which hold no data and need no token."""
    return path == "/" or path.startswith("/static/")


RequestAnswer = Callable[[web.Request], Any]


def _file(path: Path) -> RequestAnswer:
    body, kind = path.read_bytes(), TYPES[path.suffix]

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)

    return answer


def _section(page: Page, name: str) -> RequestAnswer:
    async def answer(request: web.Request) -> web.Response:
        asked = dict(request.query)
        if name not in BY_PORTFOLIO and asked:
            return _refused(f"{name} takes no parameters")
        if len(request.query) > 1 or not asked.keys() <= {"portfolio"}:
            return _refused(f"{name} takes portfolio alone, once")
        portfolio = asked.get("portfolio")
        if portfolio is not None and not 1 <= len(portfolio) <= PORTFOLIO_CHARS:
            return _refused(f"portfolio must have 1 to {PORTFOLIO_CHARS} characters, had {len(portfolio)}")
        await page.ready()
        scene = page.scene()
        return _json(SECTIONS[name](scene) if portfolio is None else BY_PORTFOLIO[name](scene, portfolio))

    return answer


def _decision(page: Page) -> RequestAnswer:
    async def answer(request: web.Request) -> web.Response:
        await page.ready()
        found = page.model.decision(request.match_info["decision_id"])
        if found is None:
            text = "not among the decisions kept here: himari audit explain DECISION_ID finds older ones"
            return _json({"error": text}, HTTPStatus.NOT_FOUND)
        return _json(detail(found))

    return answer


def _stream(page: Page, connections: Connections) -> RequestAnswer:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not connections.streams(request.protocol):
            refused = _json({"error": "too many open streams"}, HTTPStatus.SERVICE_UNAVAILABLE)
            refused.headers["Retry-After"] = "5"
            return refused
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.force_close()
        await response.prepare(request)
        async with aclosing(page.events()) as events:
            async for event in events:
                try:
                    await asyncio.wait_for(response.write(event), WRITE_S)
                except (ConnectionError, TimeoutError):
                    break
        return response

    return answer


async def _openapi(_request: web.Request) -> web.Response:
    return _json(document())


def _refused(text: str) -> web.Response:
    return _json({"error": text}, HTTPStatus.BAD_REQUEST)


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
