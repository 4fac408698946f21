"""HTTP transport to a policy endpoint: one connection pool, no redirects, bounded replies, one overall deadline."""

import asyncio
import ssl
from typing import Final, NamedTuple

import aiohttp

from streams.policy.answer import REPLY_BYTES_MAX, NoAnswer

OK: Final = 200
PIECE_BYTES: Final = 16_384
KEEPALIVE_S: Final = 4.0
"""Idle connections are closed before most servers close them, so that no request is lost to that race."""


class Reply(NamedTuple):
    """The body of a response with status 200."""

    raw: bytes
    place: str
    """Place for error texts."""


class Link:
    """A connection pool to one endpoint. Belongs to the event loop of its first call; construction needs no loop."""

    def __init__(self, endpoint: str, *, connections: int = 128, token: str | None = None) -> None:
        """Connect to `endpoint` (a URL) with at most `connections` connections; `token` is sent as a bearer token."""
        self.endpoint = endpoint
        self._connections = connections
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

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
        if self._session is not None:
            await self._session.close()

    async def _read(self, method: str, path: str, body: bytes | None, place: str) -> bytes:
        async with self._pool().request(
            method,
            self.endpoint + path,
            data=body,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            try:
                return await _body(response, place)
            except BaseException:
                response.close()  # do not wait for the rest of the body
                raise

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                read_bufsize=REPLY_BYTES_MAX,
            )
        return self._session


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


def _described(error: Exception) -> str:
    """Return the error without request data: no headers, no token."""
    return f"{type(error).__name__}: {str(error)[:200]}"
