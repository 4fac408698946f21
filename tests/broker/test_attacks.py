"""Attacks on a running worker and on who looks at it: junk orders, silent sockets, planted secrets, hostile text."""

import asyncio
import json
import resource
import time
import unicodedata
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
import orjson
import pytest
from broker.cluster import PARTITIONS, PATIENCE_S, Cluster
from policies import http, listening
from worlds import signal as a_signal

from config.settings import Settings
from streams.journal.topics import TOPICS
from streams.kafka.broker import free_port
from streams.processing.partitioner import partition_of
from streams.stages.control import trading_order

pytestmark = [pytest.mark.broker, pytest.mark.long]

SECRET = "planted-SECRET-0123456789abcdef"
"""It is sent, echoed and mistyped; nothing that is printed, logged, answered or journaled may hold it."""
HOSTILE = "ops\nFORGED line\x1b[2J\x1b]0;x\x07\u202eEVITCA\u2066\u200b\x9b31m\rFORGED\u2028FORGED\ufeff\U000e0041"
FILES_MAX = 1_024
LOG_BYTES_MAX = 4_096
"""What an attack of any length may add to a worker's log within a minute."""


class Attacked(Cluster):
    """A cluster whose worker listens on known ports, and writes what it says to a file."""

    def __init__(self, connection, names, folder):
        super().__init__(connection, names, folder)
        self.ports = {"web_port": free_port(), "metrics_port": free_port()}
        self.said = folder / "said"
        self.configure()

    def configure(self, **sections):
        tree = self.settings.model_dump(exclude_defaults=True) | sections
        tree["monitoring"] = {
            **tree["monitoring"],
            **self.ports,
            "log_level": "DEBUG",
            **sections.get("monitoring", {}),
        }
        self.settings = Settings.model_validate(tree)
        self.config.write_text(json.dumps(tree))

    @asynccontextmanager
    async def attacked(self, files_max=FILES_MAX, **variables):
        """Run a worker that may open so many files; ready when it says so."""
        with self.said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command("worker"),
                stdout=log,
                stderr=log,
                env=self._environment() | variables,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, files_max), files_max)),
            )
        try:
            async with asyncio.timeout(PATIENCE_S):
                while b"worker ready" not in self.said.read_bytes():
                    assert process.returncode is None, self.said.read_text()
                    await asyncio.sleep(0.1)
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), PATIENCE_S)

    async def sized(self, name):
        await self.publish("signals", [a_signal(time.time_ns(), signal_id=name)])
        return await self.answered([name])


@pytest.fixture
def cluster(embedded_broker, names, tmp_path):
    return Attacked(embedded_broker, names, tmp_path)


# -- sockets and descriptors -----------------------------------------------------------------------------------------
@contextmanager
def many_files(most: int) -> Iterator[None]:
    """Let this process open more files, as an attacker can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, most)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def sockets_of(process) -> int:
    """Return how many of a process's files are sockets."""
    found = 0
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(file.readlink()).startswith("socket:")
    return found


async def closed(writers):
    """Close connections that the other side may have broken off."""
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def test_silent_connections_take_neither_files_nor_answers_from_a_worker(cluster):
    await cluster.lay()
    held = []
    with many_files(4_096):
        async with cluster.attacked() as process:
            before, said = sockets_of(process), cluster.said.stat().st_size
            try:
                for number in range(1_500):
                    port = cluster.ports["web_port" if number % 2 else "metrics_port"]
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    held.append(writer)
                    writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\nX-Slow: " if number % 3 else b"")
                assert sockets_of(process) <= before + 2 * (64 + 16) + 8
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
                    for page in ("live", "ready", "state"):
                        async with session.get(f"http://127.0.0.1:{cluster.ports['web_port']}/{page}") as answer:
                            assert (answer.status, answer.headers["Connection"]) == (200, "close")
                await cluster.sized("s-1")
                async with asyncio.timeout(20):
                    while sockets_of(process) > before + 8:
                        await asyncio.sleep(0.1)
            finally:
                await closed(held)
            assert cluster.said.stat().st_size - said < LOG_BYTES_MAX, cluster.said.read_text()
            assert process.returncode is None
    assert process.returncode == 0, cluster.said.read_text()


async def test_the_soft_limit_is_raised_and_a_hard_one_that_is_too_low_is_refused_in_a_line(cluster):
    await cluster.lay()
    async with cluster.attacked() as process:
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (1_024, 1_024), "it was started with 256"
    with pytest.raises(AssertionError, match="RLIMIT_NOFILE"):
        async with cluster.attacked(files_max=512):
            pass
    (line,) = cluster.said.read_text().splitlines()
    assert line.startswith("himari: environment: RLIMIT_NOFILE: must allow ")
    assert "was 512 (hard limit)" in line


# -- secrets ---------------------------------------------------------------------------------------------------------
BAD_REQUESTS = (
    f"GET /state HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\x01\r\n\r\n",
    f"GET /state HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {SECRET}\r\n\r\n",
    f"GET /state HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n Bearer {SECRET}\r\n\r\n",
    f"GET /state?{SECRET} HTTP/9.9\r\nHost: x\r\n\r\n",
    f"GET /{SECRET} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n\r\n",
    f"{SECRET} /state HTTP/1.1\r\nHost: x\r\n\r\n",
    f"{SECRET}\r\n\r\n",
    f"GET /state HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {SECRET}\r\n\r\n",
    f"GET /state HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}{'x' * 9_000}\r\n\r\n",
    f"GET /state HTTP/1.1\r\nHost: x\r\nContent-Length: {SECRET}\r\n\r\n",
    f"GET /state HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {SECRET}\r\n\r\n",
)


async def said_to(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode("latin-1"))
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        await closed([writer])


def escaped(text):
    """JSON may write any character as an escape; the bytes do not hold the text then."""
    return "".join(f"\\u{ord(each):04x}" for each in text)


async def echoes(reader, writer):
    """A policy endpoint made to debug with: it answers with the headers that it got, each time in another way."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [line.split(":")[1] for line in head.lower().split("\r\n") if line.startswith("content-length")]
    await reader.readexactly(int(lengths[0]) if lengths else 0)
    token = head.partition("Bearer ")[2].partition("\r")[0]
    at = echoes.asked % 6
    echoes.asked += 1
    reply = {"position_pct": 0.1, "confidence": 0.5, "predicted_return": 0.0, "predicted_volatility": 0.02}
    plain = json.dumps(reply | {"model_version": f"v {token}"})
    writer.write(
        (
            http(plain.encode()),
            http(plain.replace(token, escaped(token)).encode()),
            http(json.dumps(reply | {"model_version": "1", token: 1}).encode(), headers=f"X-Echo: {token}\r\n"),
            http(b"{}", headers=f"Content-Encoding: {token}\r\n"),
            http(head.encode(), status=f"400 {token}"),
            f"HTTP/1.1 200 OK\r\nX-{token}\x01: 1\r\n{token}\r\n\r\n".encode(),
        )[at]
    )
    await writer.drain()


async def test_no_secret_comes_out_of_a_worker_its_pages_its_topics_or_a_check(cluster):
    echoes.asked = 0
    async with listening(echoes) as url:
        policy = {"enabled": True, "endpoint": f"{url}/predict", "protocol": "predict", "token_env": "POLICY_TOKEN"}
        cluster.configure(rl=policy, monitoring={"web_host": "0.0.0.0", "metrics_host": "0.0.0.0"})
        await cluster.lay()
        got = []
        tokens = {"HIMARI_WEB_TOKEN": f"web-{SECRET}", "POLICY_TOKEN": SECRET}
        async with cluster.attacked(**tokens) as process:
            await cluster.price("BTC-USD", 43_500.0)
            while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
                await asyncio.sleep(0.1)
            for number in range(8):
                await cluster.sized(f"s-{number}")
            before, kept = cluster.said.stat().st_size, 0
            for request in BAD_REQUESTS:
                for port in cluster.ports.values():
                    answer = await said_to(port, request)
                    got.append(answer)
                    kept += answer.split(b" ")[1:2] in ([b"400"], [b"401"], [b"404"])
            assert kept >= len(BAD_REQUESTS), got
            for number in range(2_000):
                await said_to(cluster.ports["web_port"], BAD_REQUESTS[number % 3])
            assert cluster.said.stat().st_size - before < LOG_BYTES_MAX, cluster.said.read_text()[-4_000:]
            async with asyncio.timeout(30):
                while b'"no_advice"' not in b"".join(record.value for record in await cluster.records("journal")):
                    await asyncio.sleep(0.1)
        assert process.returncode == 0, cluster.said.read_text()
        told = []
        for arguments in ((), ("--json",)) * 6:
            check = ("rl", "check", "--url", f"{url}/predict", "--token-env", "POLICY_TOKEN", "--count", "1")
            cluster.environment = tokens
            told.append(await cluster.himari(*check, *arguments))
        assert {code for code, _, _ in told} <= {1, 6}
        assert any("must not repeat the token" in out for _, out, _ in told), told
        told.append(await cluster.himari("rl", "check", "--url", f"http://u:{SECRET}@127.0.0.1:1"))
        told.append(await cluster.himari("rl", "check", "--url", url, "--proxy", f"http://u:{SECRET}@127.0.0.1:1"))
        assert [code for code, _, _ in told[-2:]] == [2, 2]
    topics = [topic.name for topic in TOPICS]
    stored = [record.value or b"" for topic in topics for record in await cluster.records(topic)]
    everything = b"".join([cluster.said.read_bytes(), *got, *stored, *(f"{each}".encode() for each in told)])
    assert len(stored) > 10
    assert b"refused" in everything
    for part in (SECRET, SECRET[:12], escaped(SECRET)):
        assert part.encode() not in everything


# -- terminals -------------------------------------------------------------------------------------------------------
def obeyed(text):
    """Return what acts on a terminal or is not seen, but for the ends of lines."""
    hidden = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN", "B", "S"}
    return [
        each
        for each in text.replace("\n", "")
        if unicodedata.category(each)[0] == "C" or unicodedata.bidirectional(each) in hidden
    ]


@pytest.mark.long
async def test_no_command_prints_what_a_record_tells_a_terminal_to_do(cluster):
    await cluster.lay()
    hostile = HOSTILE.encode()
    async with cluster.attacked():
        await cluster.price("BTC-USD", 43_500.0)
        await cluster.sized("s-1")
        halt = trading_order("halt", "strategy:momentum", HOSTILE, HOSTILE, time.time_ns())
        await cluster.publish("control", [halt, orjson.dumps(halt | {"kind": HOSTILE}), hostile])
        for topic in ("signals", "outcomes", "positions", "cascade-indicators", "prices"):
            await cluster.publish(topic, [hostile, orjson.dumps({HOSTILE: HOSTILE, "symbol": HOSTILE}, option=2)])
        await cluster.until("alerts", 2)
        await cluster.until("signals.dlq", 2)
        await cluster.until("control.dlq", 2)
        found = await cluster.sized("s-2")
    ours = next(each["decision_id"] for each in found if each["trigger"]["id"] == "s-2")
    topics = [topic.name for topic in TOPICS]
    counts = {topic: len(await cluster.records(topic)) for topic in topics}
    tails = [("tail", topic, "--from-beginning", "--max", str(count)) for topic, count in counts.items() if count]
    letters = [
        ("dlq", "show", "control", str(each.partition), str(each.offset))
        for each in await cluster.records("control.dlq")
    ]
    commands = [
        ("control", "list"),
        ("control", "list", "--history"),
        ("control", "halt", "--scope", "strategy:x", "--reason", HOSTILE, "--by", HOSTILE, "--no-wait"),
        ("control", "halt", "--scope", HOSTILE, "--reason", "x"),
        ("dlq", "list"),
        *letters,
        ("dlq", "replay", "control", "--dry-run"),
        ("audit", "explain", ours),
        ("audit", "explain", HOSTILE),
        ("audit", "verify"),
        ("portfolio", "show", "main"),
        ("portfolio", "show", HOSTILE),
        ("export", "decisions"),
        ("rl", "report"),
        *tails,
    ]
    seen = ""
    for command in commands:
        forms = ((), ("--json",)) if command[0] != "export" else ((),)
        for form in forms:
            code, out, err = await cluster.himari(*command, *form)
            shown = out.replace("\r\n", "\n") if command[0] == "export" else out  # CSV ends its lines so
            assert obeyed(shown + err) == [], (command, form)
            lines = (out + err).split("\n")
            assert not [line for line in lines if line.startswith(("FORGED", "EVITCA"))], (command, form)
            if form and not code and command[:1] != ("tail",):
                list(map(json.loads, filter(None, out.split("\n"))))
            seen += out
    assert seen.count("ops\\nFORGED line\\x1b[2J") >= 4, "control list and its history, dead letters, tail"
    assert "\\u202eEVITCA" in seen
    listed = (await cluster.himari("control", "list", "--json"))[1]
    assert {row["reason"] for row in map(json.loads, listed.splitlines())} == {HOSTILE}, "it means what it meant"


# -- orders ----------------------------------------------------------------------------------------------------------
ORDERS = 5_000
WITHIN_S = 15.0
"""The command itself takes a second; the default wait is 30 s."""


def scopes(number, now_ns):
    kind = ("portfolio", "strategy", "symbol")[number % 3]
    return trading_order("halt", f"{kind}:junk-{number}", "an automaton" * 30, "x", now_ns)


def resumes(_number, now_ns):
    return trading_order("resume", "all", "a loop without an end", "x", now_ns)


def trees(number, now_ns):
    tree = {"junk": "x" * (900_000 if number % 50 == 0 else 1_000)}
    payload = {"base_hash": "0" * 64, "hash": "1" * 64, "tree": tree}
    order = {"control_id": f"c-{number}", "kind": "settings", "payload": payload, "reason": "r", "by": "b"}
    return order | {"timestamp_ns": now_ns}


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.parametrize("junk", [scopes, resumes, trees])
async def test_a_halt_behind_thousands_of_junk_orders_is_soon_in_force(kafka_broker, names, tmp_path, junk):
    cluster = Attacked(kafka_broker, names, tmp_path)
    await cluster.lay()
    async with cluster.attacked() as process:
        await cluster.price("BTC-USD", 43_500.0)
        now_ns = time.time_ns()
        portfolios = [f"p-{number}" for number in range(30)]
        signals = [a_signal(now_ns, signal_id=name, portfolio_id=name, valid_for_s=3_600) for name in portfolios]
        await cluster.publish("signals", signals)
        await cluster.answered(portfolios)
        behind = partition_of(b"trading_state", PARTITIONS)
        await cluster.publish("control", [junk(number, now_ns) for number in range(ORDERS)], behind)
        begun = time.monotonic()
        halt = ("control", "halt", "--scope", "all", "--reason", "real", "--json")
        code, out, err = await cluster.himari(*halt)
        took_s = time.monotonic() - begun
        assert (code, err) == (0, ""), (took_s, err, cluster.said.read_text()[-2_000:])
        assert orjson.loads(out)["answers"] == {"0": "applied", "1": "applied"}
        assert took_s < WITHIN_S
        assert process.returncode is None
    assert (await cluster.verify()).ok


async def test_a_resume_of_everything_ends_what_narrower_scopes_were_ordered(cluster):
    await cluster.lay()
    async with cluster.attacked():
        for word, scope in (("halt", "all"), ("halt", "symbol:BTC-USD"), ("reduce", "portfolio:main")):
            code, _, err = await cluster.himari("control", word, "--scope", scope, "--reason", "x")
            assert code == 0, err
        resume = ("control", "resume", "--scope", "all", "--reason", "x", "--wait")
        assert (await cluster.himari(*resume))[0] == 0
        listed = await cluster.himari("control", "list")
        assert ("symbol:BTC-USD" in listed[1], "portfolio:main" in listed[1]) == (True, True)
        code, out, err = await cluster.himari(*resume, "--everything")
        assert (code, out.count(": applied"), err) == (0, 2, "")
        assert await cluster.himari("control", "list") == (0, "", "all ACTIVE\n")
        code, out, _ = await cluster.himari(*resume, "--everything")
        assert (code, out.count(": no_op")) == (0, 2)
    code, _, err = await cluster.himari("control", "resume", "--scope", "symbol:X", "--everything", "--reason", "x")
    assert (code, "payload.everything must stand with scope all" in err) == (5, True)
