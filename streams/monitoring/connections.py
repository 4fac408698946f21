"""The connections of a page's listener: a bounded number, each with one request and little time.

A worker shares its file descriptors with its pages. Any client that reaches a port can open connections and stay
silent, so silent ones are closed first: a new connection replaces the oldest that has not sent its request.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from streams.monitoring.rare_log import RareLog

CONNECTIONS_MAX: Final = 64
"""Open connections of one listener."""
STREAMS_MAX: Final = 40
"""Of these, connections that stream; the others always find room beside them."""
BACKLOG: Final = 16
"""Connections that wait to be accepted; all of them are accepted at once, beyond the maximum for a moment."""
HEAD_S: Final = 5.0
"""Time from the connection to the end of the request's headers."""
ANSWER_S: Final = 60.0
"""Time from there to the last byte of the answer, which the client has to read."""

logger = logging.getLogger(__name__)


class Connections:
    """The open connections of one listener, oldest first."""

    def __init__(self) -> None:
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        """Without a complete request, and when they are closed."""
        self._asking: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._streaming: dict[web.RequestHandler, None] = {}
        """Whose answer has no end; they have no time limit, and never make room."""
        self.refused = RareLog(logger)

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._silent) + len(self._asking) + len(self._streaming)

    def opened(self, connection: web.RequestHandler) -> None:
        """Take a new connection; the oldest silent one, or else the oldest, has to make room for it."""
        if len(self) >= CONNECTIONS_MAX:
            oldest = next(iter(self._silent or self._asking))
            self.closed(oldest)
            _abort(oldest)
        self._silent[connection] = _later(HEAD_S, connection)

    def asked(self, connection: web.RequestHandler) -> None:
        """Note that the request of a connection is complete."""
        timer = self._silent.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self._asking[connection] = _later(ANSWER_S, connection)

    def streams(self, connection: web.RequestHandler) -> bool:
        """Let a connection that has asked stream without a time limit; False if too many do."""
        if len(self._streaming) >= STREAMS_MAX or connection not in self._asking:
            return False
        self._asking.pop(connection).cancel()
        self._streaming[connection] = None
        return True

    def closed(self, connection: web.RequestHandler) -> None:
        """Forget a connection."""
        self._streaming.pop(connection, None)
        timer = self._silent.pop(connection, None) or self._asking.pop(connection, None)
        if timer is not None:
            timer.cancel()


def _later(delay_s: float, connection: web.RequestHandler) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, _abort, connection)


def _abort(connection: web.RequestHandler) -> None:
    if connection.transport is not None:
        connection.transport.abort()


class Listener(web.TCPSite):
    """A TCP site whose connections are bounded."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, connections: Connections) -> None:
        super().__init__(runner, host, port, backlog=BACKLOG)
        self._listens_at, self._connections = (host, port), connections

    async def start(self) -> None:
        """Listen."""
        await web.BaseSite.start(self)
        server, loop = self._runner.server, asyncio.get_running_loop()
        connections = self._connections

        def connection() -> OneRequest:
            return OneRequest(server, connections, loop)

        self._server = await loop.create_server(connection, *self._listens_at, backlog=BACKLOG)


class OneRequest(web.RequestHandler):
    """A connection that serves one request. Errors are logged by class only, because their text may quote a token."""

    __slots__ = ("_connections",)

    def __init__(self, server: Any, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, access_log=None, auto_decompress=False, lingering_time=1.0)  # type: ignore[arg-type]
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enter the connection."""
        super().connection_made(transport)
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._connections.closed(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 it may quote the request
    ) -> web.StreamResponse:
        """Return an answer without a word of the request."""
        self.log_exception(exc_info=exc)
        if request.writer.output_size > 0:
            msg = "the answer has begun"
            raise ConnectionError(msg)
        return refusal(HTTPStatus(status))

    def log_exception(self, *_args: Any, **details: Any) -> None:
        """Log the exception's class and the line that raised it, at a limited rate."""
        self._connections.refused.tell("a request of the pages failed: %s", described(details.get("exc_info")))


def refusal(status: HTTPStatus) -> web.Response:
    """Return the fixed answer of a status, which closes the connection."""
    answer = web.json_response({"error": status.phrase.lower()}, status=status)
    answer.force_close()
    return answer


def described(error: object) -> str:
    """Return an exception's class and the line that raised it, without its text."""
    if not isinstance(error, BaseException):
        return "no reason given"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def loop_errors(tell: Callable[..., None]) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return an exception handler of an event loop that tells no more than the kind of error."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        tell("%s: %s", context["message"], described(context.get("exception")))

    return handle
