"""Policy endpoints for tests: real HTTP servers on loopback, well and ill, and questions to ask them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from engines.handlers.policy_request import FEATURES
from schemas.rl import RlRequest

NOW = 1_735_689_600_000_000_000
GOOD = {
    "position_pct": 0.12,
    "confidence": 0.8,
    "predicted_return": 0.01,
    "predicted_volatility": 0.02,
    "model_version": "m-1",
}
STATE = [0.25] * len(FEATURES)
QUESTION = {
    "decision_id": "POLICY22-0-17-main",
    "portfolio_id": "main",
    "strategy_id": "momentum",
    "symbol": "BTC-USD",
    "w_base": 0.1,
    "action": "buy",
    "confidence": 0.7,
    "risk_score": 0.2,
    "regime": "ranging",
    "expected_return": 0.01,
    "predicted_volatility": 0.02,
    "horizon_s": 3600.0,
    "price": 43_500.0,
    "portfolio_value": 100_000.0,
    "state": STATE,
    "deadline_ns": NOW + 5_000_000_000,
}
METADATA = {
    "name": "policy",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "state", "datatype": "FP64", "shape": [1, len(FEATURES)]}],
    "outputs": [
        {"name": "nudge", "datatype": "FP64", "shape": [1]},
        {"name": "confidence", "datatype": "FP64", "shape": [1]},
    ],
}
INFERRED = {
    "model_name": "policy",
    "model_version": "1",
    "id": QUESTION["decision_id"],
    "outputs": [
        {"name": "nudge", "datatype": "FP64", "shape": [1], "data": [0.2]},
        {"name": "confidence", "datatype": "FP64", "shape": [1], "data": [0.8]},
    ],
}

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def question(number: int = 17, **fields) -> RlRequest:
    return RlRequest(**QUESTION | {"decision_id": f"POLICY22-0-{number}-main"} | fields)


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP/1.1 response, after which the connection ends."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


async def heard(reader: asyncio.StreamReader) -> bytes:
    """Read one request whole; return its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return await reader.readexactly(int(lengths[0])) if lengths else b""


def says(response: bytes) -> Handle:
    """Hear a request, then say this."""

    async def handle(reader, writer):
        await heard(reader)
        writer.write(response)
        await writer.drain()

    return handle


def says_json(body: object) -> Handle:
    return says(http(json.dumps(body).encode()))


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[str]:
    """A server on loopback that treats every connection with `handle`; yields its URL."""
    busy: set[asyncio.Task] = set()

    async def connected(reader, writer):
        busy.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            busy.discard(asyncio.current_task())

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(busy):
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        await server.wait_closed()


# -- ill ones ----------------------------------------------------------------------------------------------------------
async def silent(reader, _writer):
    await heard(reader)
    await asyncio.Event().wait()


async def deaf(_reader, _writer):
    await asyncio.Event().wait()


async def resets(reader, writer):
    await heard(reader)
    writer.transport.abort()


async def hangs_up(reader, writer):
    await heard(reader)
    writer.write_eof()


async def half_closed(reader, writer):
    """Say half of what was announced, then close our side."""
    await heard(reader)
    writer.write(http(json.dumps(GOOD).encode())[:-20])
    writer.write_eof()
    await reader.read()


async def slow_headers(reader, writer):
    await heard(reader)
    for byte in http(json.dumps(GOOD).encode()):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def trickles(reader, writer):
    """Headers at once, then a byte at a time."""
    await heard(reader)
    head, _, body = http(json.dumps(GOOD).encode()).partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    for byte in body:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def floods(reader, writer):
    """Ten megabytes of JSON, chunked, so that nothing announces them."""
    await heard(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"2\r\n[1\r\n")
    for _ in range(160):
        writer.write(b"10000\r\n" + b",1" * 0x8000 + b"\r\n")
        await writer.drain()
    writer.write(b"1\r\n]\r\n0\r\n\r\n")
    await writer.drain()


def with_(**fields) -> bytes:
    return json.dumps(GOOD | fields).encode()


HTML = b"<html><body>It works!</body></html>"
ILL: dict[str, tuple[Handle, str, str]] = {
    "times out": (silent, "timeout", "no complete answer within"),
    "hears nothing": (deaf, "timeout", "no complete answer within"),
    "resets": (resets, "refused", "POST /: "),
    "hangs up without a word": (hangs_up, "refused", "POST /: "),
    "half-closed in the middle": (half_closed, "refused", "POST /: ClientPayloadError"),
    "slow headers": (slow_headers, "timeout", "no complete answer within"),
    "trickles bytes": (trickles, "timeout", "no complete answer within"),
    "answers 500": (says(http(with_(), "500 Oops")), "refused", "status must be 200, was 500"),
    "answers 204": (says(b"HTTP/1.1 204 None\r\n\r\n"), "refused", "status must be 200, was 204"),
    "redirects": (
        says(http(b"", "307 Temporary", "Location: /elsewhere\r\n")),
        "refused",
        "status must be 200, was 307",
    ),
    "speaks no HTTP": (says(b"220 smtp ready\r\n"), "refused", "POST /: "),
    "200 with nothing": (says(http(b"")), "invalid", "POST /: record must hold a value, was empty"),
    "200 with NaN": (
        says(http(with_().replace(b"0.12", b"NaN"))),
        "invalid",
        "POST /: position_pct must be finite, was 'NaN'",
    ),
    "200 with infinity": (
        says(http(with_().replace(b"0.12", b"1e999"))),
        "invalid",
        "POST /: position_pct must be finite, was '1e999'",
    ),
    "200 with a position of 400 %": (
        says(http(with_(position_pct=4.0))),
        "invalid",
        "POST /: position_pct must be at most 1, was 4.0",
    ),
    "200 without a confidence": (
        says(http(json.dumps({k: v for k, v in GOOD.items() if k != "confidence"}).encode())),
        "invalid",
        "POST /: confidence must be given",
    ),
    "200 with a word for a number": (says(http(with_(confidence="0.8"))), "invalid", "POST /: confidence must be"),
    "200 with a key twice": (
        says(http(with_()[:-1] + b',"confidence":0.1}')),
        "invalid",
        "POST /: confidence must be given once, was given twice",
    ),
    "200 with 10 MB of JSON": (floods, "invalid", "reply must have at most 65536 bytes, was more"),
    "200 with 10 MB announced": (
        says(http(b"[" + b"1," * 5_000_000 + b"1]")),
        "invalid",
        "reply must have at most 65536 bytes, was 10000003",
    ),
    "200 with HTML": (says(http(HTML)), "invalid", "POST /: record must be JSON, was '<html>"),
    "200 in gzip": (
        says(http(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip\r\n")),
        "invalid",
        "POST /: Content-Encoding must be identity, was 'gzip'",
    ),
}
"""What an endpoint does → how, the reason that is journaled, and what its detail says."""
