"""The page of a running worker and of a dashboard, over HTTP: values, bad input, slow readers, tokens."""

import asyncio
import hashlib
import os
import re
import signal as signals
import socket
import sys
import time
from contextlib import asynccontextmanager

import aiohttp
import jsonschema
import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from broker.cluster import PARTITIONS, PATIENCE_S, ROOT, Cluster
from broker.guarded import member, mutual, rights_of
from worlds import last, priced, targets
from worlds import signal as a_signal
from yarl import URL

from streams.demo.host import PAGE
from streams.kafka.append import OutgoingRecord, append
from streams.monitoring.connections import CONNECTIONS_MAX, STREAMS_MAX
from streams.page.feed import BACK_WINDOW, WINDOW, PageFeeds
from streams.page.model import DECISIONS_MAX, PageModel
from streams.page.routes import STATIC
from streams.page.sections import SECTIONS

pytestmark = [pytest.mark.broker]

HOSTILE = '<img src=x onerror=alert(1)>"} or up{'
SECRET = "a-token-of-some-length"


@pytest.fixture
def cluster(embedded_broker, names, tmp_path):
    return Cluster(embedded_broker, names, tmp_path)


@asynccontextmanager
async def worked(cluster):
    """Run a worker that has sized signals of three portfolios; yield a session at its page."""
    await cluster.lay()
    async with cluster.worker():
        for symbol, price in (("BTC-USD", 43_500.0), ("ETH-USD", 2_280.0)):
            await cluster.price(symbol, price)
        async with asyncio.timeout(PATIENCE_S):
            while not [record for record in await cluster.records("journal") if b'"kind":"step"' in record.value]:
                await asyncio.sleep(0.1)
        await cluster.publish("signals", sent("s", ("main", "alpha", "beta")))
        await cluster.answered([f"s-{number}" for number in range(3)])
        async with aiohttp.ClientSession(cluster.page_url) as session:
            yield session


def sent(prefix, portfolios, **given):
    now = time.time_ns()
    return [
        a_signal(now, signal_id=f"{prefix}-{number}", portfolio_id=name, valid_for_s=3600, **given)
        for number, name in enumerate(portfolios)
    ]


async def section(session, name, **query):
    async with session.get(f"/api/v1/{name}", params=query) as answer:
        assert answer.status == 200, await answer.text()
        return orjson.loads(await answer.read())


async def newest(cluster):
    """Return the newest allocation of each portfolio, as the topic has it."""
    found = {}
    for record in await cluster.records("allocations"):
        fields = orjson.loads(record.value)
        found[fields["portfolio_id"]] = max(found.get(fields["portfolio_id"], fields), fields, key=sequence)
    return found


async def deciding(session):
    """Return the verdict once the worker decides in time; a machine with other work may make it late for a while."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await section(session, "verdict"))["verdict"] != "deciding":
            await asyncio.sleep(0.2)
    return found


def sequence(fields):
    return fields["sequence"]


async def shown_as(session, portfolio, wanted):
    """Return the view once it has come to a sequence of a portfolio."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = await section(session, "view")
            if any((e["portfolio_id"], e["sequence"]) == (portfolio, wanted) for e in view["portfolios"]):
                return view
            await asyncio.sleep(0.1)


def assert_equal(view, published):
    """Hold each value of a view against the newest allocations."""
    assert [each["portfolio_id"] for each in view["portfolios"]] == sorted(published)
    for each in view["portfolios"]:
        fields = published[each["portfolio_id"]]
        assert (each["sequence"], each["decision_id"], each["chain"]) == (
            fields["sequence"],
            fields["decision_id"],
            "intact",
        )
        assert (each["value_usd"], each["gross_usd"], each["net_usd"]) == (
            fields["portfolio_value"],
            fields["totals"]["gross_usd"],
            fields["totals"]["net_usd"],
        )
    rows = {(row["portfolio_id"], row["symbol"]): row for row in view["rows"]}
    assert rows.keys() == {(name, symbol) for name, fields in published.items() for symbol in fields["targets"]}
    for (portfolio, symbol), row in rows.items():
        target = published[portfolio]["targets"][symbol]
        assert (row["target_usd"], row["quantity"], row["weight_ratio"]) == (
            target["notional_usd"],
            target["quantity"],
            target["weight"],
        )


async def test_a_workers_page_shows_the_newest_allocation_of_every_portfolio(cluster):
    async with worked(cluster) as session:
        published = await newest(cluster)
        assert_equal(await shown_as(session, "main", published["main"]["sequence"]), published)
        await cluster.publish(
            "signals", sent("t", ("main", "beta"), symbol="ETH-USD", action="sell", strategy_id="carry")
        )
        await cluster.answered(["t-0", "t-1"])
        published = await newest(cluster)
        view = await shown_as(session, "main", published["main"]["sequence"])
        view = await shown_as(session, "beta", published["beta"]["sequence"])
        assert_equal(view, published)
        verdict = await deciding(session)
        assert (verdict["owned"], verdict["partitions"]) == ([0, 1], PARTITIONS)
        detail = await section(session, f"decisions/{published['main']['decision_id']}")
        assert detail["waterfall"] == published["main"]["waterfall"]
        pipeline = await section(session, "pipeline")
        assert [row["owner"] for row in pipeline["partitions"]] == ["here", "here"]
        assert {row["symbol"] for row in (await section(session, "markets"))["rows"]} == {"BTC-USD", "ETH-USD"}


async def test_a_dashboard_shows_the_same_without_a_worker_and_says_what_it_cannot_know(cluster):
    async with worked(cluster):
        await asyncio.sleep(0.0)
    published = await newest(cluster)
    async with dashboard(cluster) as url, aiohttp.ClientSession(url) as session:
        view = await shown_as(session, "main", published["main"]["sequence"])
        assert_equal(view, published)
        assert (await section(session, "verdict"))["verdict"] == "following"
        assert all(each["budgets"] is not None for each in view["portfolios"]), "its settings are those in force"
        assert (await section(session, "correlations"))["missing"]
        assert {each["owner"] for each in (await section(session, "pipeline"))["partitions"]} == {None}


@asynccontextmanager
async def dashboard(cluster, *more, **environment):
    command = [sys.executable, "-m", "streams", "--config", str(cluster.config), "dashboard", "--port", "0", "--json"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *more,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **cluster.environment, **environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        yield orjson.loads(line)["dashboard_url"]
    finally:
        process.send_signal(signals.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def test_a_partition_of_another_worker_names_its_owner_and_its_portfolios_are_shown_all_the_same(
    cluster, tmp_path
):
    home = tmp_path / "second"
    home.mkdir()
    second = Cluster(cluster.connection, cluster.names, home)
    await cluster.lay()
    async with cluster.worker(), second.worker():
        for symbol in ("BTC-USD", "ETH-USD"):
            await cluster.price(symbol, 100.0)
        names = ["main", "alpha", "beta", "gamma"]
        await cluster.publish("signals", sent("s", names))
        await cluster.answered([f"s-{number}" for number in range(len(names))])
        published = await newest(cluster)
        assert {fields["journal"]["partition"] for fields in published.values()} == {0, 1}
        owned = []
        for url in (cluster.page_url, second.page_url):
            async with aiohttp.ClientSession(url) as session:
                view = await shown_as(session, "main", published["main"]["sequence"])
                assert_equal(view, published)
                owned += await owned_by(session)
        assert sorted(owned) == [0, 1], "each partition is one worker's"


async def owned_by(session):
    """Return the partitions that a worker's page calls its own, once it names the owner of the other one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            owners = {row["partition"]: row["owner"] for row in (await section(session, "pipeline"))["partitions"]}
            here = [partition for partition, owner in owners.items() if owner == "here"]
            if len(here) == 1 and owners[1 - here[0]] is not None:
                assert owners[1 - here[0]].startswith("http://")
                missing = (await section(session, "view"))["missing"]
                assert missing == [{"partition": 1 - here[0], "owner": owners[1 - here[0]]}]
                return here
            await asyncio.sleep(0.2)


@pytest.mark.kafka
@pytest.mark.long
async def test_with_a_readers_rights_a_dashboard_shows_allocations_and_says_what_it_may_not_read(
    guarded_broker, names, tmp_path
):
    plain = Cluster(guarded_broker.plain, names, tmp_path)
    await plain.lay()
    driver = priced()
    driver.publish("signals", a_signal(driver.now_ns))
    driver.advance(1.0)
    place = TopicPartition(names.topic("allocations"), 0)
    await append_to(plain, place, [record.value for record in driver.read("allocations")])
    await guarded_broker.allow("reader", *rights_of(names, "reader"))
    reader = member(guarded_broker, mutual, "reader", names, tmp_path)
    async with dashboard(reader) as url, aiohttp.ClientSession(url) as session:
        view = await shown_as(session, "main", last(driver)["sequence"])
        assert {row["symbol"]: row["target_usd"] for row in view["rows"]} == targets(last(driver))
        assert "ACLs hide it" in (await section(session, "orders"))["problem"]
        assert "ACLs hide it" in (await section(session, "dead-letters"))["problem"]
        assert (await section(session, "verdict"))["verdict"] == "following"


async def test_a_broker_that_goes_and_comes_back_leaves_no_gap_in_what_was_read(cluster):
    """The feed is interrupted while more is published than it would read from the end."""
    await cluster.lay()
    place = TopicPartition(cluster.names.topic("allocations"), 0)
    values = chained(3 * WINDOW)
    model = PageModel()
    feeds = PageFeeds(cluster.connection, cluster.names, model)
    await append_to(cluster, place, values[:10])
    for end in (10, len(values)):
        await append_to(cluster, place, values[10:end])
        running = asyncio.create_task(feeds.run())
        async with asyncio.timeout(PATIENCE_S):
            while "main" not in model.portfolios or model.portfolios["main"].chain.last < end:
                await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert model.portfolios["main"].chain.word == "intact"
    assert len(model.decisions) == DECISIONS_MAX


def chained(count):
    values, previous = [], ""
    for number in range(1, count + 1):
        fields = {"portfolio_id": "main", "sequence": number, "previous_hash": previous, "targets": {}}
        values.append(orjson.dumps({**fields, "decision_id": f"d-{number}", "timestamp_ns": number}))
        previous = hashlib.sha256(values[-1]).hexdigest()
    return values


async def test_a_portfolio_that_has_not_decided_for_long_is_found_further_back(cluster):
    await cluster.lay()
    place = TopicPartition(cluster.names.topic("allocations"), 0)
    quiet = {**orjson.loads(chained(1)[0]), "portfolio_id": "quiet"}
    await append_to(cluster, place, [orjson.dumps(quiet), *chained(WINDOW + BACK_WINDOW)])
    model = PageModel()
    feeds = PageFeeds(cluster.connection, cluster.names, model)
    running = asyncio.create_task(feeds.run())
    async with asyncio.timeout(PATIENCE_S):
        while not feeds.complete:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert model.portfolios.keys() == {"main", "quiet"}


@pytest.mark.long
async def test_the_demo_says_the_address_of_its_page_and_serves_it():
    command = [sys.executable, "-m", "streams", "demo", "--seconds", "5", "--json", "--no-open"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    async with asyncio.timeout(PATIENCE_S):
        while not (line := await process.stderr.readline()).startswith(PAGE):
            assert line, "it ended without an address"
        url = line.removeprefix(PAGE).decode().strip()
        async with aiohttp.ClientSession(url) as session:
            assert (await section(session, "verdict"))["role"] == "worker"
        out, _ = await process.communicate()
    assert orjson.loads(out)["dashboard_url"] == url


async def test_a_hostile_record_is_shown_as_the_text_that_it_is_and_a_broken_one_is_counted(cluster):
    async with worked(cluster) as session:
        fields = (await newest(cluster))["main"]
        forged = {**fields, "portfolio_id": HOSTILE, "sequence": 1, "previous_hash": "", "strategy_id": HOSTILE}
        forged |= {"symbol": HOSTILE, "targets": {HOSTILE: fields["targets"]["BTC-USD"]}, "decision_id": f"x-{HOSTILE}"}
        place = TopicPartition(cluster.names.topic("allocations"), 0)
        await append_to(cluster, place, [orjson.dumps(forged), b'{"portfolio_id": "x"}', b"\xff"])
        view = await shown_as(session, HOSTILE, 1)
        (row,) = (row for row in view["rows"] if row["portfolio_id"] == HOSTILE)
        assert row["symbol"] == HOSTILE
        assert (await section(session, "decisions"))["unreadable"] == 2
        (mine,) = (await section(session, "view", portfolio=HOSTILE))["portfolios"]
        assert mine["commands"]["show"] == f"himari portfolio show '{HOSTILE}'"


async def append_to(cluster, place, values):
    producer = AIOKafkaProducer(**cluster.connection.options(), acks="all")
    await producer.start()
    try:
        await append(producer, place, [OutgoingRecord(b"x", value) for value in values])
    finally:
        await producer.stop()


REFUSED = [
    ("GET", "/api/v1/nothing", 404),
    ("GET", "/api/v2/view", 404),
    ("GET", "/static/../web.py", 404),
    ("GET", "/static/%2e%2e/model.py", 404),
    ("GET", "/static/", 404),
    ("GET", "/api/v1/decisions/none", 404),
    ("GET", f"/api/v1/decisions/{'x' * 3000}", 404),
    ("GET", f"/api/v1/view?portfolio={'x' * 5000}", 400),
    ("GET", "/api/v1/view?portfolio=", 400),
    ("GET", "/api/v1/view?portfolio=a&portfolio=b", 400),
    ("GET", "/api/v1/view?limit=1", 400),
    ("GET", "/api/v1/markets?portfolio=main", 400),
    ("GET", f"/api/v1/view?portfolio={'x' * 20000}", 400),
    ("POST", "/api/v1/orders", 405),
    ("PUT", "/api/v1/view", 405),
    ("DELETE", "/api/v1/dead-letters", 405),
    ("PATCH", "/", 405),
]
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"


async def test_what_is_not_asked_for_well_is_refused_and_nothing_can_be_changed(cluster):
    await cluster.lay()
    async with dashboard(cluster) as url, aiohttp.ClientSession() as session:
        for method, path, status in REFUSED:
            async with session.request(method, URL(url.rstrip("/") + path, encoded=True)) as answer:
                assert (path[:60], answer.status) == (path[:60], status)
                assert "error" in await answer.json()
        async with session.get(f"{url}api/v1/view") as answer:
            assert (await answer.json())["try"], "it still answers"


async def test_the_shell_holds_no_data_and_its_policy_lets_nothing_in(cluster):
    await cluster.lay()
    async with dashboard(cluster) as url, aiohttp.ClientSession(url) as session:
        names = ["/", *(f"/static/{path.name}" for path in STATIC.iterdir() if path.name != "index.html")]
        assert len(names) > 8
        for name in names:
            async with session.get(name) as answer:
                body = await answer.text()
                assert (answer.status, answer.headers["Content-Security-Policy"]) == (200, POLICY)
                assert (answer.headers["X-Content-Type-Options"], answer.headers["X-Frame-Options"]) == (
                    "nosniff",
                    "DENY",
                )
            for outside in ("http:", "https:", "innerHTML", "insertAdjacent", "document.write", "eval("):
                assert outside not in body, name
        async with session.get("/") as answer:
            shell = await answer.text()
        for inline in ("<style", " style=", " onclick", "javascript:"):
            assert inline not in shell


async def test_the_document_of_the_api_is_valid_and_every_answer_fits_it(cluster):
    async with worked(cluster) as session:
        found = await section(session, "openapi.json")
        for name in SECTIONS:
            answer, schema = await section(session, name), found["components"]["schemas"][name]
            jsonschema.validate(answer, schema)
            assert answer.keys() == schema["properties"].keys()


# -- streams ---------------------------------------------------------------------------------------------------------
async def test_a_stream_begins_with_all_sections_and_goes_on_with_what_changed(cluster):
    async with worked(cluster) as session, session.get("/api/v1/stream") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        first = await events(stream, set(SECTIONS))
        assert first.keys() == set(SECTIONS)
        await cluster.publish("signals", sent("u", ("main",), symbol="ETH-USD", strategy_id="carry"))
        await cluster.answered(["u-0"])
        wanted = (await newest(cluster))["main"]["sequence"]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await events(stream, {"verdict"})
                if "view" in found and any(each["sequence"] == wanted for each in found["view"]["portfolios"]):
                    break


async def events(stream, wanted):
    """Return the next events of a stream by name, until all that are wanted came."""
    found = {}
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= found.keys():
            name = (await stream.content.readline()).decode().removeprefix("event: ").strip()
            found[name] = orjson.loads((await stream.content.readline()).removeprefix(b"data: "))
            assert await stream.content.readline() == b"\n"
    return found


async def test_500_streams_get_a_clear_no_and_the_other_pages_still_answer(cluster):
    async with worked(cluster) as session:
        streams = await asyncio.gather(*(opened(cluster.page_url) for _ in range(500)))
        try:
            answers = [status for _, status in streams]
            assert answers.count(b"200") <= STREAMS_MAX < CONNECTIONS_MAX
            assert answers.count(b"200") > 0
            async with session.get("/ready") as answer:
                assert answer.status == 200
            await deciding(session)
        finally:
            for each, _ in streams:
                each.close()
        async with asyncio.timeout(PATIENCE_S):
            while (await opened_again(cluster.page_url)) != b"200":
                await asyncio.sleep(0.2)


async def opened(url):
    """Open a stream that is not read further; return its writer and status, b"" where the connection was closed."""
    place = URL(url)
    try:
        reader, writer = await asyncio.open_connection(place.host, place.port, limit=1024)
        writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
    except ConnectionError:
        return writer, b""
    return writer, line.split(b" ")[1] if line else b""


async def opened_again(url):
    writer, status = await opened(url)
    writer.close()
    return status


async def test_a_reader_that_is_behind_gets_the_newest_snapshot_and_not_what_it_missed(cluster):
    async with worked(cluster):
        place = URL(cluster.page_url)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect((place.host, place.port))
        slow.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        slow.settimeout(PATIENCE_S)
        for turn in range(30):
            names = [f"p{number}" for number in range(60)]
            await cluster.publish("signals", sent(f"v{turn}", names, strategy_id=f"s{turn % 3}"))
            await cluster.answered([f"v{turn}-{len(names) - 1}"])
        wanted = (await newest(cluster))["p7"]["sequence"]
        await asyncio.sleep(1.0)
        found = await asyncio.to_thread(read_until, slow, wanted)
        slow.close()
        sequences = [sequence for sequence in found if sequence is not None]
        assert sequences == sorted(sequences)
        assert sequences[-1] == wanted
        assert len(sequences) < 30, "it was sent what it missed"


def read_until(slow, wanted):
    """Return the sequence of portfolio p7 in each view that a slow reader is sent, up to the one wanted."""
    text, found = b"", []
    while not found or found[-1] != wanted:
        received = slow.recv(65_536)
        assert received, "the stream was closed"
        text += received.replace(b"\r", b"")
        while (end := text.find(b"\n\n")) >= 0:
            event, text = text[:end], text[end + 2 :]
            found += sequences_in(event)
    return found


def sequences_in(event):
    if b"event: view" not in event:
        return []
    mark = re.search(rb'"portfolio_id":"p7","sequence":(\d+)', event)
    return [None if mark is None else int(mark.group(1))]


# -- tokens ----------------------------------------------------------------------------------------------------------
async def test_beyond_this_machine_the_shell_is_open_and_all_data_needs_the_token(cluster):
    await cluster.lay()
    async with dashboard(cluster, "--host", "0.0.0.0", HIMARI_WEB_TOKEN=SECRET) as url:
        async with aiohttp.ClientSession(url) as session:
            for path in ("/", "/static/main.js", "/static/page.css"):
                async with session.get(path) as answer:
                    assert (path, answer.status) == (path, 200)
            for name in (*SECTIONS, "stream", "openapi.json", "decisions/x"):
                async with session.get(f"/api/v1/{name}") as answer:
                    assert (name, answer.status) == (name, 401)
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with aiohttp.ClientSession(url, headers=headers) as session:
            assert (await section(session, "verdict"))["verdict"] == "following"
