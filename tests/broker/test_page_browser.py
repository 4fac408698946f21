"""The page in Chromium: its values, each of its states, keyboard, themes, widths, and what axe finds."""

import asyncio
import json
import signal as signals
import time

import orjson
import pytest
from aiokafka import TopicPartition
from broker.browser import browser, tab
from broker.cluster import PATIENCE_S, Cluster
from broker.test_page import HOSTILE, SECRET, append_to, dashboard, newest, sent

pytestmark = [pytest.mark.broker, pytest.mark.long]

SYMBOLS = {"BTC-USD": 43_500.0, "ETH-USD": 2_280.0, "SOL-USD": 98.0, "ADA-USD": 0.42, "BNB-USD": 310.0}
ROWS = """() => [...document.querySelectorAll("#targets tbody tr")].map(
    (row) => [...row.cells].map((cell) => cell.textContent))"""
NOT_HIDDEN = """() => [...document.querySelectorAll("main *")].filter((node) =>
    node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).overflowX === "hidden"
    && node.classList.contains("n")).length"""


@pytest.fixture
def cluster(embedded_broker, names, tmp_path):
    return Cluster(embedded_broker, names, tmp_path)


async def market(cluster):
    """Publish a price of every symbol, and wait until it is journaled."""
    for symbol, price in SYMBOLS.items():
        await cluster.price(symbol, price)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            steps = [record.value for record in await cluster.records("journal") if b'"kind":"step"' in record.value]
            if all(any(symbol.encode() in step for step in steps) for symbol in SYMBOLS):
                return
            await asyncio.sleep(0.1)


async def trade(cluster):
    """Size signals of three portfolios on all symbols."""
    await market(cluster)
    for number, symbol in enumerate(SYMBOLS):
        side = ("buy", "sell")[number % 2]
        await cluster.publish("signals", sent(symbol, ("main", "alpha", "beta"), symbol=symbol, action=side))
        other = sent(f"{symbol}-c", ("main",), symbol=symbol, action=side, strategy_id="carry")
        await cluster.publish("signals", other)
        await cluster.answered([f"{symbol}-{each}" for each in range(3)] + [f"{symbol}-c-0"])


def usd(value):
    return f"{value:,.2f}".replace("-", "−")


def signed(value):
    return ("+" if value > 0 else "") + usd(value)


async def shows(opened, published):
    """Wait until the page shows the newest sequence of every portfolio."""
    wanted = [f"{name} allocation {fields['sequence']}" for name, fields in published.items()]
    script = """([wanted]) => { const shown = [...document.querySelectorAll(".budget")].map((box) =>
        `${box.querySelector(".name").textContent} ${box.textContent}`);
        return wanted.every((each) => { const [name, ...rest] = each.split(" ");
            return shown.some((text) => text.startsWith(`${name} `) && text.includes(rest.join(" "))); }); }"""
    await opened.until(script, wanted)


async def test_every_value_on_the_page_is_that_of_the_newest_allocation(cluster):
    await cluster.lay()
    async with cluster.worker(), browser() as chromium:
        await trade(cluster)
        published = await newest(cluster)
        async with tab(chromium, cluster.page_url) as opened:
            await opened.state("live")
            await shows(opened, published)
            await opened.until("() => document.querySelector('#verdict').textContent.includes('Deciding')")
            rows = await opened.page.evaluate(ROWS)
            assert {(row[0], row[1]) for row in rows} == {
                (name, symbol) for name, fields in published.items() for symbol in fields["targets"]
            }
            for row in rows:
                target = published[row[0]]["targets"][row[1]]
                assert row[3] == signed(target["notional_usd"])
                assert float(row[4].replace(",", "").replace("−", "-")) == target["quantity"]
                assert row[5] == f"{100 * target['weight']:.1f} %".replace("-", "−")
            for name, fields in published.items():
                box = opened.page.locator(".budget", has=opened.page.locator(f"text='{name}'"))
                assert f"{usd(fields['portfolio_value'])} USD" in await box.inner_text()
            assert await opened.page.evaluate(NOT_HIDDEN) == 0, "no number is cut off"
            await opened.shot("live-dark", whole=True)
            assert opened.complaints == []
            await halt_and_look(cluster, opened)
        await looks(cluster, chromium)


async def halt_and_look(cluster, opened):
    """Halt a scope; the page names it, who ordered it and why, and the command that ends it."""
    code, _, err = await cluster.himari(
        "control", "halt", "--scope", "symbol:BTC-USD", "--reason", "exchange is down", "--by", "ops"
    )
    assert code == 0, err
    await opened.until("() => document.querySelector('#attention-items')?.textContent.includes('symbol:BTC-USD')")
    item = opened.page.locator("#attention-items li", has_text="symbol:BTC-USD")
    text = await item.inner_text()
    for word in ("HALTED", "ops: exchange is down", "himari control resume --scope symbol:BTC-USD --reason WHY"):
        assert word in text
    await shows(opened, await newest(cluster))
    rows = await opened.page.evaluate(ROWS)
    assert all(row[3] == "0.00" for row in rows if row[1] == "BTC-USD")
    await opened.shot("halted-dark", whole=True)


async def looks(cluster, chromium):
    """Look at the page in each theme and width: axe finds nothing, and the page itself does not scroll sideways."""
    for name, given in {
        "dark": {},
        "light": {"theme": "light"},
        "narrow": {"theme": "light", "width": 390, "height": 844},
        "narrow-dark": {"width": 390, "height": 844, "motion": "reduce"},
    }.items():
        async with tab(chromium, cluster.page_url, **given) as opened:
            await opened.state("live")
            await opened.until("() => document.querySelectorAll('#targets tbody tr').length > 0")
            await opened.shot(f"look-{name}", whole=True)
            assert await opened.findings() == [], name
            wide = await opened.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, name
            if given.get("motion") == "reduce":
                moving = "getComputedStyle(document.querySelector('.meter span')).transitionDuration"
                assert await opened.page.evaluate(moving) == "0s"


async def test_the_keyboard_alone_reaches_a_decision_and_a_pair_of_symbols(cluster):
    await cluster.lay()
    async with cluster.worker(), browser() as chromium:
        await trade(cluster)
        async with tab(chromium, cluster.page_url) as opened:
            await opened.until("() => document.querySelectorAll('#decision-table tbody tr').length > 3")
            press = opened.page.keyboard.press
            await opened.page.locator("#decision-table tbody tr").first.focus()
            await press("ArrowDown")
            chosen = await opened.page.evaluate("document.activeElement.dataset.id")
            await press("Enter")
            await opened.until("([id]) => document.querySelector('#drawer-body').textContent.includes(id)", chosen)
            published = {each["decision_id"]: each for each in await decided(cluster)}
            steps = await opened.page.evaluate(
                "[...document.querySelectorAll('#drawer-body .waterfall')][0].querySelectorAll('tbody tr').length"
            )
            assert steps == len(published[chosen]["waterfall"])
            assert f"himari audit explain {chosen}" in await opened.text("#drawer-body")
            await opened.page.wait_for_timeout(300)
            await opened.shot("drawer-dark")
            assert await opened.findings() == []
            await press("Escape")
            assert not await opened.page.evaluate("document.querySelector('#drawer').open")
            assert await opened.page.evaluate("document.activeElement.dataset.id") == chosen
            await walk_the_page(opened)


async def decided(cluster):
    return [orjson.loads(record.value) for record in await cluster.records("allocations")]


async def walk_the_page(opened):
    """Go through the page with Tab: every stop is visible, has a name, and the end is reached."""
    await opened.page.evaluate("document.querySelector('.skip').focus()")
    stops = []
    for _ in range(120):
        await opened.page.keyboard.press("Tab")
        stop = await opened.page.evaluate(
            """() => { const node = document.activeElement; const box = node.getBoundingClientRect();
            return [node.tagName, node.id, box.width > 0 && box.height > 0, getComputedStyle(node).outlineStyle]; }"""
        )
        if stop[0] == "BODY":
            break
        stops.append(stop)
    assert stops[-1] != stops[0]
    assert {"theme", "portfolio", "filter", "csv"} <= {stop[1] for stop in stops}
    assert all(stop[2] for stop in stops), "a stop cannot be seen"
    assert all(stop[3] != "none" for stop in stops), "a stop has no outline"


async def test_a_silent_worker_is_shown_as_stale_then_as_disconnected_and_a_new_one_as_live(cluster):
    await cluster.lay()
    async with browser() as chromium:
        process = await cluster.start_worker()
        await trade(cluster)
        async with tab(chromium, cluster.page_url) as opened:
            await opened.until("() => document.querySelectorAll('#targets tbody tr').length > 3")
            process.send_signal(signals.SIGSTOP)
            await opened.state("stale")
            assert "as of" in await opened.text("#as-of")
            assert "UTC" in await opened.text("#as-of")
            await opened.shot("stale-dark")
            hatched = "getComputedStyle(document.querySelector('.panel')).backgroundImage"
            assert "repeating-linear-gradient" in await opened.page.evaluate(hatched)
            await opened.state("disconnected")
            assert "Disconnected" in await opened.text("#verdict")
            assert "Disconnected" in await opened.page.locator("#announce").text_content()
            await opened.shot("disconnected-dark")
            assert await opened.findings() == []
            process.send_signal(signals.SIGCONT)
            await opened.state("live")
            assert await opened.page.locator("#as-of").is_hidden()
        process.send_signal(signals.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def test_without_data_the_page_says_so_and_what_to_try(cluster):
    await cluster.lay()
    async with dashboard(cluster) as url, browser() as chromium, tab(chromium, url, theme="light") as opened:
        await opened.state("live")
        await opened.until("() => !document.querySelector('#view-empty').hidden")
        assert "No allocation yet" in await opened.text("#view-empty")
        assert "himari publish signals" in await opened.text("#view-empty")
        await opened.until("() => document.querySelector('#verdict').textContent.includes('Following')")
        await opened.shot("empty-light", whole=True)
        assert await opened.findings() == []
        assert opened.complaints == []


async def test_hostile_names_are_text_and_forks_are_told(cluster):
    await cluster.lay()
    async with cluster.worker(), browser() as chromium:
        await trade(cluster)
        fields = (await newest(cluster))["main"]
        evil = {**fields, "portfolio_id": HOSTILE, "sequence": 1, "previous_hash": "", "strategy_id": HOSTILE}
        evil |= {"symbol": HOSTILE, "targets": {HOSTILE: fields["targets"]["BTC-USD"]}, "decision_id": HOSTILE}
        evil |= {"trigger": {"kind": "signal", "id": HOSTILE}, "bound": [f"symbol:{HOSTILE}"]}
        fork = {**fields, "previous_hash": "0" * 64, "sequence": fields["sequence"] + 1}
        place = TopicPartition(cluster.names.topic("allocations"), fields["journal"]["partition"])
        await append_to(cluster, place, [orjson.dumps(evil), orjson.dumps(fork)])
        alert = {"alert_id": "x", "kind": "drift", "severity": "warning", "subject": HOSTILE, "result": HOSTILE}
        alert |= {"timestamp_ns": time.time_ns(), "value": 0.5, "threshold": None, "journal": None}
        await append_to(cluster, TopicPartition(cluster.names.topic("alerts"), 0), [orjson.dumps(alert)])
        async with tab(chromium, cluster.page_url) as opened:
            alerted = []
            opened.page.on("dialog", lambda dialog: alerted.append(dialog.message))
            await opened.until("([name]) => document.querySelector('#targets').textContent.includes(name)", HOSTILE)
            await opened.until("() => document.querySelector('#chain').textContent.includes('FORK')")
            await opened.until(
                "([name]) => document.querySelector('#attention-items').textContent.includes(name)", HOSTILE
            )
            await opened.page.locator("#decision-table tbody tr", has_text=HOSTILE).first.click()
            await opened.until("([name]) => document.querySelector('#drawer-body').textContent.includes(name)", HOSTILE)
            assert await opened.page.evaluate("document.querySelectorAll('main img, main script').length") == 0
            await opened.shot("hostile-dark")
            assert (alerted, opened.complaints) == ([], [])


async def test_a_token_goes_into_a_form_and_a_wrong_one_is_refused(cluster):
    await cluster.lay()
    async with (
        dashboard(cluster, "--host", "0.0.0.0", HIMARI_WEB_TOKEN=SECRET) as url,
        browser() as chromium,
        tab(chromium, url) as opened,
    ):
        await opened.until("() => !document.querySelector('#gate').hidden")
        await opened.shot("token-dark")
        assert await opened.findings() == []
        await opened.page.fill("#token", "a-wrong-token-of-some-length")
        await opened.page.keyboard.press("Enter")
        await opened.until("() => document.querySelector('#gate-error').textContent.includes('not accepted')")
        await opened.page.fill("#token", SECRET)
        await opened.page.keyboard.press("Enter")
        await opened.state("live")
        assert await opened.page.context.cookies() == []
        kept = json.dumps(await opened.page.evaluate("[{...localStorage}, {...sessionStorage}, location.href]"))
        assert SECRET not in kept


async def test_a_hidden_tab_closes_its_stream_and_opens_it_again_with_a_whole_snapshot(cluster):
    await cluster.lay()
    async with cluster.worker(), browser() as chromium:
        await trade(cluster)
        async with tab(chromium, cluster.page_url) as opened:
            await opened.until("() => document.querySelectorAll('#targets tbody tr').length > 3")
            hide = """(word) => {
                Object.defineProperty(document, "hidden", { value: word === "hidden", configurable: true });
                document.dispatchEvent(new Event("visibilitychange")); }"""
            await opened.page.evaluate(hide, "hidden")
            await cluster.publish(
                "signals", sent("late", ("main",), symbol="SOL-USD", action="sell", strategy_id="late")
            )
            await cluster.answered(["late-0"])
            await opened.page.wait_for_timeout(1_000)
            sequence = (await newest(cluster))["main"]["sequence"]
            assert f"allocation {sequence}" not in await opened.text("#budget-list")
            await opened.page.evaluate(hide, "visible")
            await shows(opened, await newest(cluster))
