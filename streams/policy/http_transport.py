"""The way to an endpoint: one connection pool, no redirects, a bounded reply, and a deadline over all of it."""

import asyncio
import ssl
from typing import Final, NamedTuple

import aiohttp

from streams.policy.answer import REPLY_BYTES_MAX, NoAnswer

OK: Final = 200
PIECE_BYTES: Final = 16_384
KEEPALIVE_S: Final = 4.0
"""Idle connections are given up before most servers give them up: an answer must not be lost to that race."""


class Reply(NamedTuple):
    """What came back with status 200."""

    raw: bytes
    place: str
    """What an error about it names."""


class Link:
    """A pool of connections to one endpoint. It is made without a loop, and belongs to the loop of its first call."""

    def __init__(self, endpoint: str, *, connections: int = 128, token: str | None = None) -> None:
        """Ask at `endpoint` (a URL) over so many connections at most; `token` goes as a bearer token."""
        self.endpoint = endpoint
        self._connections = connections
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def call(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Reply:
        """Send one request; return the whole reply, if it came within `timeout_s` and has a status of 200.

        Raises:
            NoAnswer: timeout, refused (no connection, one that broke, another status) or invalid (too large, encoded).
        """
        place = f"{method} {path or '/'}"
        try:
            async with asyncio.timeout(timeout_s):
                return Reply(await self._read(method, path, body, place), place)
        except TimeoutError:
            raise NoAnswer("timeout", f"{place}: must answer whole within {timeout_s:.3f} s, did not") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            raise NoAnswer("refused", f"{place}: {_told(error)}") from None

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
                response.close()  # what is left of it must not be waited for
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
    """Return a reply's body; at most a piece beyond the limit is ever read."""
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


def _told(error: Exception) -> str:
    """Return what broke, without what was sent: no header, no token."""
    return f"{type(error).__name__}: {str(error)[:200]}"
