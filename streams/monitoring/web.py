"""HTTP pages of a worker: `/live`, `/ready`, `/state` and the page on one port, `/metrics` on another.

They may be served from a separate thread: `Views.ask` then runs each question in the worker's event loop, and a loop
that does not answer in time is reported as such. They listen on 127.0.0.1 and accept only host names of this machine.
On any other address every request needs the bearer token in `HIMARI_WEB_TOKEN`, and they do not start without one.
"""

import errno
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from config.addresses import is_loopback
from schemas.errors import ConfigurationException, PortTaken, SizingError
from streams.monitoring.connections import Connections, Listener, refusal

TOKEN = "HIMARI_WEB_TOKEN"  # noqa: S105 (the variable's name)
TOKEN_LENGTH = 16
"""Smallest length of a token, in characters."""
TOKEN_DIFFERENT = 8
"""Smallest number of different characters in a token."""
LOOPBACK = "127.0.0.1"
PLACE = "environment"

Problem = Callable[[], str]
"""Returns the problem, "" if there is none."""
Problems = Callable[[], Mapping[str, str]]
"""Returns the problems by part; empty if there are none."""
Ask = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a question in the worker's event loop. Raises: TimeoutError if the loop does not answer."""

HANGS = "the event loop does not answer"


async def directly(question: Callable[[], Any]) -> Any:
    """Run the question in this event loop."""
    return question()


def nothing_open(_path: str) -> bool:
    """Return False: every path needs the token, if there is one."""
    return False


class Views(NamedTuple):
    """Data sources of the pages, called at each request in the worker's event loop, except `not_alive`."""

    registry: CollectorRegistry
    state: Callable[[], Mapping[str, Any]]
    """Partitions owned, offsets, lag, settings, books: plain JSON values."""
    not_ready: Problems
    """Why the worker is not ready, by part."""
    not_alive: Problem = str
    """Why the worker should be restarted; called in the event loop of the pages."""
    ask: Ask = directly
    mount: Callable[[web.Application, Connections], None] | None = None
    """Adds the routes of the page for browsers; None: there is none."""
    is_shell: Callable[[str], bool] = nothing_open
    """Whether a path holds no data and needs no token."""


class ListenAddress(NamedTuple):
    """Address of one listener."""

    host: str
    port: int
    """0: any free port."""


class Web:
    """The two listeners of one worker; `metrics_port` None: only the first; `metrics_host` None: both on `host`.

    Raises:
        ConfigurationException: a host is not a loopback address, and there is no valid token.
    """

    def __init__(
        self,
        views: Views,
        *,
        host: str = LOOPBACK,
        port: int = 6066,
        metrics_port: int | None = 9090,
        metrics_host: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._views, self._environment = views, environment
        self.places = {"web": ListenAddress(host, port)}
        if metrics_port is not None:
            self.places["metrics"] = ListenAddress(host if metrics_host is None else metrics_host, metrics_port)
        for place in self.places.values():
            _token(place.host, environment)
        self._listening: dict[str, ListenAddress] = {}
        self._runners: dict[str, web.AppRunner] = {}

    async def start(self) -> None:
        """Listen on both ports, or on none.

        Raises:
            PortTaken: a port is in use.
            SizingError: the operating system refuses to listen on an address.
        """
        try:
            await self._become(self.places)
        except BaseException:
            await self.stop()
            raise

    async def move(self, to: "Web") -> None:
        """Move to the addresses of `to`. Unchanged listeners are not touched; if one cannot move, both stay.

        Raises:
            PortTaken, SizingError: as in `start`.
        """
        before, self.places = self.places, to.places
        try:
            await self._become(self.places)
        except SizingError:
            self.places = before
            await self._become(before)
            raise

    async def stop(self) -> None:
        """Stop listening; does nothing if not started."""
        await self._become({})

    @property
    def ports(self) -> dict[str, int]:
        """The ports in use: `web` and `metrics`; for port 0, the one chosen by the operating system."""
        return {name: runner.addresses[0][1] for name, runner in self._runners.items() if runner.addresses}

    @property
    def url(self) -> str:
        """Address of the page for browsers; "" while it is not served."""
        port = self.ports.get("web")
        return "" if port is None else f"http://{_written(self.places['web'].host)}:{port}/"

    async def _become(self, wanted: Mapping[str, ListenAddress]) -> None:
        """Close listeners whose address changes, then open the missing ones, so that a port can pass between them."""
        for name in [name for name, place in self._listening.items() if wanted.get(name) != place]:
            del self._listening[name]
            await self._runners.pop(name).cleanup()
        for name, place in wanted.items():
            if name not in self._listening:
                await self._listen(name, place)

    async def _listen(self, name: str, place: ListenAddress) -> None:
        connections = Connections()
        guard = _guard(_token(place.host, self._environment), connections, self._views.is_shell)
        app = PAGES[name](self._views, guard)
        if name == "web" and self._views.mount is not None:
            self._views.mount(app, connections)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await Listener(runner, place.host, place.port, connections).start()
        except OSError as error:
            await runner.cleanup()
            _refuse(error, name, *place)
        self._listening[name], self._runners[name] = place, runner


def pages(views: Views, guard: Middleware) -> web.Application:
    """Return the application with `/live`, `/ready` and `/state`."""

    async def live(_request: web.Request) -> web.Response:
        return _verdict("live", views.not_alive() or await views.ask(str))

    async def ready(_request: web.Request) -> web.Response:
        dead = views.not_alive()
        return _verdict("ready", dead, {} if dead else await views.ask(views.not_ready))

    async def state(_request: web.Request) -> web.Response:
        return _json(await views.ask(views.state))

    app = web.Application(middlewares=[guard])
    app.router.add_get("/live", live)
    app.router.add_get("/ready", ready)
    app.router.add_get("/state", state)
    return app


def metrics_page(views: Views, guard: Middleware) -> web.Application:
    """Return the application with `/metrics`, in the format that the request accepts."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await views.ask(lambda: encode(views.registry))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application(middlewares=[guard])
    app.router.add_get("/metrics", metrics)
    return app


PAGES = {"web": pages, "metrics": metrics_page}
"""Application of each listener."""


def _token(host: str, environment: Mapping[str, str]) -> str | None:
    if is_loopback(host):
        return None
    token = environment.get(TOKEN, "")
    different = len(dict.fromkeys(token))
    if len(token) < TOKEN_LENGTH or different < TOKEN_DIFFERENT or any(each.isspace() for each in token):
        rule = (
            f"must hold a token of at least {TOKEN_LENGTH} characters, {TOKEN_DIFFERENT} of them different and none "
            f"blank, to listen on {host}, had {len(token)}, {different} of them different"
        )
        raise ConfigurationException(PLACE, TOKEN, rule)
    return token


def _guard(token: str | None, connections: Connections, is_shell: Callable[[str], bool]) -> Middleware:
    """Return the middleware that checks the token or, if none is needed, that the host name is a loopback name.

    The host check prevents DNS rebinding: web pages whose own name resolves to 127.0.0.1.
    """

    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is None and not is_loopback(_name(request.host)):
            return _json({"error": "host must be 127.0.0.1 or localhost"}, HTTPStatus.FORBIDDEN)
        if token is not None and not is_shell(request.path) and not _bears(request, token):
            answer = _json({"error": "a bearer token is required"}, HTTPStatus.UNAUTHORIZED)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        try:
            return await handler(request)
        except TimeoutError:
            return _verdict(request.path.strip("/"), HANGS)
        except web.HTTPException as error:
            return refusal(HTTPStatus(error.status))

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.asked(request.protocol)
        answer = await answered(request, handler)
        answer.force_close()
        return answer

    return guard


def _bears(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    same = hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode(errors="surrogateescape"))
    return same and scheme.lower() == "bearer"


def _name(host: str) -> str:
    """Return a Host header without its port: `[::1]:80` → `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _written(host: str) -> str:
    """Return a host as a URL has it: `::1` → `[::1]`; an address of all interfaces becomes that of this machine."""
    named = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 only compared
    return f"[{named}]" if ":" in named else named


def _verdict(question: str, problem: str, parts: Mapping[str, str] | None = None) -> web.Response:
    """Return 200, or 503 with the reason: of the whole, or by part."""
    reason = problem or "; ".join(f"{name}: {each}" for name, each in (parts or {}).items())
    if reason:
        return _json({question: False, "reason": reason, "reasons": parts or {}}, HTTPStatus.SERVICE_UNAVAILABLE)
    return _json({question: True})


def _json(value: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2, default=tuple)
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _refuse(error: OSError, name: str, host: str, port: int) -> NoReturn:
    if error.errno == errno.EADDRINUSE:
        msg = f"{name} port {port} on {host} is in use: stop the other process, or set another port under monitoring"
        raise PortTaken(msg) from error
    msg = f"{name} port {port} on {host} cannot be listened on: {os.strerror(error.errno or 0)}"
    raise SizingError(msg) from error
