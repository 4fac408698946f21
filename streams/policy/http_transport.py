"""HTTP transport to a policy endpoint: one connection pool, no redirects, bounded replies, one overall deadline."""

import asyncio
import errno
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import aiohttp
import orjson

from streams.policy.answer import REPLY_BYTES_MAX, NoAnswer

OK: Final = 200
PIECE_BYTES: Final = 16_384
REPEATED: Final = "the reply must not repeat the token that was sent (neither is shown)"
KEEPALIVE_S: Final = 4.0
"""Idle connections are closed before most servers close them, so that no request is lost to that race."""


class Reply(NamedTuple):
    """The body of a response with status 200."""

    raw: bytes
    place: str
    """Place for error texts."""


class ConnectionUse:
    """How one request got its connection."""

    reused: bool = False


def tracing() -> aiohttp.TraceConfig:
    """Return a trace configuration that fills in each request's `ConnectionUse`."""

    async def reused(_session: object, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.reused = True

    async def created(_session: object, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.reused = False

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(reused)
    trace.on_connection_create_end.append(created)
    return trace


class Link:
    """A connection pool to one endpoint. Belongs to the event loop of its first call; construction needs no loop."""

    def __init__(
        self, endpoint: str, *, connections: int = 128, token: str | None = None, proxy: str | None = None
    ) -> None:
        """Connect to `endpoint` (a URL) with at most `connections` connections; `token` is sent as a bearer token.

        `proxy`: URL of an HTTP proxy. None: none; proxy variables of the environment are ignored.
        """
        self.endpoint = endpoint
        self._connections = connections
        self._token = token
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def call(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Reply:
        """Send one request; return the reply if it arrives within `timeout_s` with status 200.

        Raises:
            NoAnswer: timeout; refused (no or broken connection, other status); or invalid (too large, encoded).
        """
        place = f"{method} {path or '/'}"
        try:
            async with asyncio.timeout(timeout_s):
                return Reply(await self._read(method, path, body, place), place)
        except TimeoutError:
            raise NoAnswer("timeout", f"{place}: no complete answer within {timeout_s:.3f} s") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            raise NoAnswer("refused", f"{place}: {_described(error)}") from None

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()

    async def _read(self, method: str, path: str, body: bytes | None, place: str) -> bytes:
        """Send the request; retry once on a new connection if a reused one was closed before any byte of an answer.

        Such a close races with the request and does not indicate a failure of the endpoint.
        """
        self._session = self._session or self._pool(kept=True)
        connection = ConnectionUse()
        try:
            return await self._ask(self._session, method, path, body, place, connection)
        except aiohttp.ClientConnectionError as error:
            if not (connection.reused and _unanswered(error)):
                raise
        self._fresh = self._fresh or self._pool(kept=False)
        return await self._ask(self._fresh, method, path, body, place, connection)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None,
        place: str,
        connection: ConnectionUse,
    ) -> bytes:
        async with session.request(
            method,
            self.endpoint + path,
            data=body,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"},
            allow_redirects=False,
            trace_request_ctx=connection,
        ) as response:
            try:
                _check_headers(response, self._token, place)
                return _unless_repeated(await _body(response, place), self._token, place)
            except BaseException:
                response.close()  # do not wait for the rest of the body
                raise

    def _pool(self, *, kept: bool) -> aiohttp.ClientSession:
        """Return a pool that keeps connections alive, or one that opens a new connection for each request."""
        connector = (
            aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_S)
            if kept
            else aiohttp.TCPConnector(limit=self._connections, force_close=True)
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            read_bufsize=REPLY_BYTES_MAX,
            proxy=self._proxy,
            trace_configs=[tracing()],
        )


def _check_headers(response: aiohttp.ClientResponse, token: str | None, place: str) -> None:
    """Refuse a response whose headers repeat our token. Raises: NoAnswer."""
    if token is not None and any(token in value for value in response.headers.values()):
        raise NoAnswer("invalid", f"{place}: {REPEATED}")


def _unless_repeated(raw: bytes, token: str | None, place: str) -> bytes:
    """Return a reply that does not repeat our token: replies are shown, logged and journaled.

    Raises:
        NoAnswer: it does, as servers that are made to debug with do.
    """
    if token is not None and any(token in text for text in _texts(raw)):
        raise NoAnswer("invalid", f"{place}: {REPEATED}")
    return raw


def _texts(raw: bytes) -> Iterator[str]:
    """Yield a reply as it came and, where JSON may have escaped characters, each text in it."""
    yield raw.decode(errors="replace")
    if b"\\" not in raw:
        return
    try:
        left: list[Any] = [orjson.loads(raw)]
    except orjson.JSONDecodeError:
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            left += value


async def _body(response: aiohttp.ClientResponse, place: str) -> bytes:
    """Return a reply's body; reads at most `PIECE_BYTES` beyond the limit."""
    if response.status != OK:
        raise NoAnswer("refused", f"{place}: status must be {OK}, was {response.status}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise NoAnswer("invalid", f"{place}: Content-Encoding must be identity, was {encoding[:32]!r}")
    announced = response.content_length
    if announced is not None and announced > REPLY_BYTES_MAX:
        raise NoAnswer("invalid", f"{place}: reply must have at most {REPLY_BYTES_MAX} bytes, was {announced}")
    raw = bytearray()
    while piece := await response.content.read(PIECE_BYTES):
        raw += piece
        if len(raw) > REPLY_BYTES_MAX:
            raise NoAnswer("invalid", f"{place}: reply must have at most {REPLY_BYTES_MAX} bytes, was more")
    return bytes(raw)


def _unanswered(error: aiohttp.ClientConnectionError) -> bool:
    """Return whether a connection ended before any byte of an answer, as far as the client can tell.

    `ServerDisconnectedError.message` is the part of the head that was received, or a text if nothing was. After a
    reset it is unknown whether a part of the head was received.
    """
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    broken = isinstance(error, ConnectionError) or isinstance(error.__cause__, ConnectionError)
    return broken or getattr(error, "errno", None) in {errno.ECONNRESET, errno.EPIPE}


def _described(error: Exception) -> str:
    """Return the error's class, and what the operating system or TLS says of it: never what the other side sent."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    text = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else getattr(cause, "strerror", None)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
