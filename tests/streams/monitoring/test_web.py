"""The worker's pages: what they show, whom they let in, and what a taken port says."""

import asyncio
import socket

import aiohttp
import orjson
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from config.addresses import is_loopback
from schemas.errors import ConfigurationException, PortTaken, SizingError
from streams.monitoring.web import TOKEN, Views, Web

SECRET = "a-token-of-some-length"


def views(**given):
    registry = CollectorRegistry()
    Gauge("himari_l3_kelly_fraction", "A gauge.", registry=registry).set(0.25)
    return Views(**{"registry": registry, "state": lambda: {"partitions": [0]}, "not_ready": dict, **given})


def get(web, path, page="web", host=None, **headers):
    """Start, ask once, stop; return status, headers and body."""

    async def ask():
        await web.start()
        try:
            url = f"http://127.0.0.1:{web.ports[page]}{path}"
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if host is not None:
                named["Host"] = host
            async with aiohttp.ClientSession() as session, session.get(url, headers=named) as answer:
                return answer.status, answer.headers, await answer.read()
        finally:
            await web.stop()

    return asyncio.run(ask())


def local(**given):
    return Web(views(**given), port=0, metrics_port=0)


def public():
    return Web(views(), host="0.0.0.0", port=0, metrics_port=0, environment={TOKEN: SECRET})


def test_metrics_are_those_of_the_registry():
    status, headers, body = get(local(), "/metrics", "metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    (family,) = text_string_to_metric_families(body.decode())
    assert family.samples[0].value == 0.25


def test_a_scraper_that_asks_for_openmetrics_gets_it():
    status, headers, body = get(local(), "/metrics", "metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_state_is_what_its_provider_says_at_that_moment():
    asked = []
    web = local(state=lambda: {"asked": len(asked), "offset": {"0": 41}, "book": (1, 2)})
    asked.append(1)
    status, _, body = get(web, "/state")
    assert (status, orjson.loads(body)) == (200, {"asked": 1, "offset": {"0": 41}, "book": [1, 2]})


def test_a_worker_without_problems_is_live_and_ready():
    for page in ("live", "ready"):
        status, _, body = get(local(), f"/{page}")
        assert (status, orjson.loads(body)) == (200, {page: True})


def test_a_worker_that_recovers_is_live_but_not_ready_and_says_why_by_partition():
    parts = {"journal[1]": "recovering", "prices[0]": "12000 records behind"}
    problem = {"not_ready": lambda: parts}
    assert get(local(**problem), "/live")[0] == 200
    status, _, body = get(local(**problem), "/ready")
    reason = "journal[1]: recovering; prices[0]: 12000 records behind"
    assert (status, orjson.loads(body)) == (503, {"ready": False, "reason": reason, "reasons": parts})


def test_a_worker_that_is_stuck_is_neither_live_nor_ready():
    problem = {"not_alive": lambda: "no entry since 60 s"}
    assert get(local(**problem), "/live")[0] == 503
    assert orjson.loads(get(local(**problem), "/ready")[2])["reason"] == "no entry since 60 s"


async def silence(_question):
    raise TimeoutError


@pytest.mark.parametrize("page", ["live", "ready", "state"])
def test_a_loop_that_does_not_answer_is_an_answer(page):
    status, _, body = get(local(ask=silence), f"/{page}")
    assert (status, orjson.loads(body)["reason"]) == (503, "the event loop does not answer")


def test_a_loop_that_does_not_answer_has_no_metrics():
    assert get(local(ask=silence), "/metrics", "metrics")[0] == 503


def test_each_port_has_its_own_pages_only():
    assert get(local(), "/metrics", "web")[0] == 404
    assert get(local(), "/state", "metrics")[0] == 404
    assert get(local(), "/", "web")[0] == 404


def test_without_a_metrics_port_there_is_no_metrics_page():
    async def run():
        web = Web(views(), port=0, metrics_port=None)
        await web.start()
        assert list(web.ports) == ["web"]
        await web.stop()

    asyncio.run(run())


@pytest.mark.parametrize("page", ["/state", "/ready", "/live"])
def test_a_public_page_wants_the_token(page):
    status, headers, _ = get(public(), page)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert get(public(), page, Authorization=f"Bearer {SECRET}")[0] == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", f"Bearer {SECRET[:-1]}", f"Bearer {SECRET}x", f"Basic {SECRET}", SECRET, "Bearer ü"],
)
def test_any_other_token_is_refused_on_metrics_too(given):
    assert get(public(), "/metrics", "metrics", Authorization=given)[0] == 401


def test_the_scheme_of_the_token_is_read_in_any_case():
    assert get(public(), "/metrics", "metrics", Authorization=f"bearer {SECRET}")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:6066", "127.0.0.1.evil.example", "10.0.0.1"])
def test_a_local_page_does_not_answer_to_foreign_names(host):
    assert get(local(), "/state", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:6066", "127.0.0.1:1", "[::1]:6066"])
def test_a_local_page_answers_to_names_of_this_machine(host):
    assert get(local(), "/state", host=host)[0] == 200


@pytest.mark.parametrize("token", [None, "", "short", " " * 15 + "x", "aaaabbbbccccdddd", "abcdefgh ijklmnop"])
def test_listening_elsewhere_without_a_good_token_is_refused_at_once(token):
    environment = {} if token is None else {TOKEN: token}
    with pytest.raises(ConfigurationException, match=r"environment: HIMARI_WEB_TOKEN: .* at least 16") as caught:
        Web(views(), host="0.0.0.0", environment=environment)
    assert caught.value.exit_code == 5
    assert "short" not in str(caught.value), "what was given is a secret"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_of_this_machine_alone(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org"])
def test_any_other_address_is_not(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("name", ["web", "metrics"])
def test_a_taken_port_is_one_clear_error_and_frees_the_other(name):
    with socket.socket() as other, socket.socket() as free:
        other.bind(("127.0.0.1", 0))
        other.listen()
        free.bind(("127.0.0.1", 0))
        taken, wanted = other.getsockname()[1], free.getsockname()[1]
        free.close()
        ports = {"port": taken, "metrics_port": wanted} if name == "web" else {"port": wanted, "metrics_port": taken}
        web = Web(views(), **ports)

        async def start():
            with pytest.raises(PortTaken, match=rf"^{name} port {taken} on 127.0.0.1 is in use: ") as caught:
                await web.start()
            assert caught.value.exit_code == 1
            with socket.socket() as again:
                again.bind(("127.0.0.1", wanted))

        asyncio.run(start())


def test_an_address_of_another_machine_is_one_clear_error():
    web = Web(views(), host="192.0.2.1", port=0, metrics_port=0, environment={TOKEN: SECRET})
    with pytest.raises(SizingError, match=r"^web port 0 on 192\.0\.2\.1 cannot be listened on: "):
        asyncio.run(web.start())


def test_stopping_twice_or_before_the_start_harms_nothing():
    async def run():
        web = local()
        await web.stop()
        await web.start()
        await web.stop()
        await web.stop()
        assert web.ports == {}
        await web.start()
        await web.stop()

    asyncio.run(run())


# -- moving ----------------------------------------------------------------------------------------------------------
def asked_while(web, act):
    """Start, let `act` happen, ask both pages; return their ports and what they answered."""

    async def ask():
        await web.start()
        try:
            await act()
            found = {}
            async with aiohttp.ClientSession() as session:
                for name, path in (("web", "/live"), ("metrics", "/metrics")):
                    if name in web.ports:
                        async with session.get(f"http://127.0.0.1:{web.ports[name]}{path}") as answer:
                            found[name] = (web.ports[name], answer.status)
            return found
        finally:
            await web.stop()

    return asyncio.run(ask())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_page_moves_and_the_other_stays():
    web, wanted, before = local(), free_port(), {}

    async def move():
        before.update(web.ports)
        await web.move(Web(views(), port=wanted, metrics_port=0))

    assert asked_while(web, move) == {"web": (wanted, 200), "metrics": (before["metrics"], 200)}


def test_two_pages_may_change_places():
    first, second = free_port(), free_port()
    web = Web(views(), port=first, metrics_port=second)

    async def move():
        await web.move(Web(views(), port=second, metrics_port=first))

    assert asked_while(web, move) == {"web": (second, 200), "metrics": (first, 200)}


def test_metrics_may_be_turned_off_and_on_again():
    web, port = local(), free_port()

    async def off_and_on():
        await web.move(Web(views(), port=0, metrics_port=None))
        assert set(web.ports) == {"web"}
        await web.move(Web(views(), port=0, metrics_port=port))

    assert asked_while(web, off_and_on)["metrics"] == (port, 200)


def test_where_one_page_cannot_move_both_stand_as_before():
    first, second = free_port(), free_port()
    web = Web(views(), port=first, metrics_port=second)

    async def move():
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(PortTaken, match="metrics port"):
                await web.move(Web(views(), port=free_port(), metrics_port=other.getsockname()[1]))

    assert asked_while(web, move) == {"web": (first, 200), "metrics": (second, 200)}
