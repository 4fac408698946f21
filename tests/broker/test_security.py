"""The whole product over encrypted ways, each user with the rights of its role alone; and whoever must stay outside."""

import asyncio
import re
import time
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from broker.cluster import Cluster
from broker.guarded import KEY_PASSWORD, PASSWORDS, member, mutual, rights_of, scram
from certificates import Authority
from worlds import signal

from streams.journal.topics import ALL
from streams.kafka.acls import ROLES
from streams.kafka.read import places_of, records_of

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

SECRETS = (*PASSWORDS.values(), KEY_PASSWORD)


def arguments_of(pid):
    """Return what everybody on the machine can see of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


WAYS = [scram, mutual]


@pytest.mark.parametrize("way", WAYS)
async def test_the_product_runs_with_the_rights_of_each_role_and_no_secret_comes_out(
    guarded_broker, way, names, tmp_path
):
    node = guarded_broker
    plain = Cluster(node.plain, names, tmp_path)
    await plain.lay()
    for role in ROLES:
        await node.allow(role, *rights_of(names, role))
    users = {role: member(node, way, role, names, tmp_path) for role in ROLES}
    said = []

    async def do(user, *arguments, stdin=b"", code=0):
        got, out, err = await users[user].himari(*arguments, stdin=stdin)
        said.extend((out, err))
        assert got == code, (user, arguments, out, err)
        return out

    async with users["worker"].worker() as process:
        arguments = arguments_of(process.pid)
        tick = {"symbol": "BTC-USD", "price": 100.0, "timestamp_ns": time.time_ns()}
        await do("feed", "publish", "prices", stdin=orjson.dumps(tick))
        await asyncio.sleep(1.5)
        await do("publisher", "publish", "signals", stdin=orjson.dumps(signal(time.time_ns(), signal_id="s-1")))
        await plain.publish("signals", [b"no JSON"])
        await plain.answered(["s-1"])
        told = await do("reader", "tail", "allocations", "--from-beginning", "--max", "1", "--json")
        assert orjson.loads(told)["trigger"]["id"] == "s-1"
        answers = await do("operator", "control", "halt", "--scope", "all", "--reason", "a trial", "--wait", "60")
        assert answers.count(": applied") == 2
        assert "a trial" in await do("operator", "control", "list")
        await do("operator", "portfolio", "show", "main")
        assert "not_json" in await do("operator", "dlq", "list")
        assert re.match(r"verified: [12] allocations", await do("auditor", "audit", "verify"))
        await do("worker", "topics", "check")
        for arguments_ in (("config", "show", "--origin"), ("config", "show", "--json"), ("config", "validate")):
            await do("worker", *arguments_)
        changed = users["worker"].config
        changed.write_text(changed.read_text().replace("SCRAM-SHA", "PLAIN"))
    stderr = (await process.stderr.read()).decode()
    assert process.returncode == 0, stderr
    topics = [place for each in (await places_of(node.plain, map(names.of, ALL))).values() for place in each]
    stored = [record.value or b"" async for record in records_of(node.plain, dict.fromkeys(topics, 0))]
    assert len(stored) > 10
    for secret in SECRETS:
        assert secret not in arguments + stderr + "".join(said) + users["worker"].config.read_text()
        assert not any(secret.encode() in value for value in stored)


def without(settings, *names):
    return {name: value for name, value in settings.items() if name not in names}


def expired(node, _folder):
    pair = node.authority.vouch("late", ends=timedelta(hours=-1))
    return {"certificate_file": str(pair.certificate), "key_file": str(pair.key)}


def of_a_stranger(_node, folder):
    pair = Authority(folder, "stranger").vouch("worker-of-a-stranger")
    return {"certificate_file": str(pair.certificate), "key_file": str(pair.key)}


def trusts_a_stranger(_node, folder):
    return {"ca_file": str(Authority(folder, "another").file)}


def another_password(_node, folder):
    (folder / "password").write_text("another")
    return {"key_password_file": str(folder / "password")}


KEYS = ("certificate_file", "key_file", "key_password_file")
OUTSIDE = {
    "a wrong password": (
        "SCRAM",
        scram,
        {"password_env": "WRONG"},
        5,
        "authentication of worker with SCRAM-SHA-512 failed: wrong user",
    ),
    "an unknown user": (
        "SCRAM",
        scram,
        {"username": "nobody"},
        5,
        "authentication of nobody with SCRAM-SHA-512 failed: wrong user",
    ),
    "a password that is not there": ("SCRAM", scram, {"password_env": "UNSET"}, 5, "must name a variable that is set"),
    "an unknown authority": ("SCRAM", scram, trusts_a_stranger, 6, "unable to get local issuer certificate"),
    "the system's authorities": ("SCRAM", scram, {"ca_file": None}, 6, "broker certificate not trusted: "),
    "another host's certificate": ("ELSEWHERE", scram, {}, 6, "certificate is not valid for '127.0.0.1'"),
    "a broker whose certificate is over": ("EXPIRED", scram, {}, 6, "certificate has expired"),
    "no certificate": (
        "MUTUAL",
        mutual,
        dict.fromkeys(KEYS),
        5,
        "missing (kafka.security.certificate_file): sslv3 alert bad certif",
    ),
    "a certificate that is over": ("MUTUAL", mutual, expired, 5, "client certificate refused or missing"),
    "a stranger's certificate": ("MUTUAL", mutual, of_a_stranger, 5, "client certificate refused or missing"),
    "a key whose password is another": ("MUTUAL", mutual, another_password, 5, "kafka.security.key_f"),
    "TLS where none is spoken": ("PLAINTEXT", scram, {}, 6, "the port is open: is SASL_SSL correct"),
    "no TLS where it is spoken": ("SCRAM", None, {}, 6, "the port is open: is PLAINTEXT correct"),
}


EVERYDAY = {"a wrong password", "an unknown authority", "a certificate that is over", "TLS where none is spoken"}
"""One of each kind is in `make test` already."""


@pytest.mark.parametrize(
    ("listener", "way", "change", "code", "text"),
    [pytest.param(*row, id=kind, marks=() if kind in EVERYDAY else pytest.mark.long) for kind, row in OUTSIDE.items()],
)
async def test_who_must_stay_outside_is_told_so_in_a_line(
    guarded_broker, names, tmp_path, listener, way, change, code, text
):
    node = guarded_broker
    security, environment = {}, {"WRONG": KEY_PASSWORD}
    if way is not None:
        _, security, given = way(node, "worker", tmp_path)
        environment |= given
    changes = change(node, tmp_path) if callable(change) else change
    if callable(change) and "certificate_file" in changes:
        security = without(security, "key_password_file")
    servers = {**node.servers, "PLAINTEXT": node.plain.bootstrap}
    cluster = Cluster(node.plain, names, tmp_path, security | changes, environment)
    cluster.config.write_text(re.sub(r"127\.0\.0\.1:\d+", servers[listener], cluster.config.read_text()))
    begun = time.monotonic()
    command = ("worker",) if code == 6 else ("topics", "check")  # what connects first is the same
    got, out, err = await cluster.himari(*command)
    assert (got, out) == (code, ""), err
    (line,) = err.splitlines()
    assert line.startswith("himari: ")
    assert text in line
    assert time.monotonic() - begun < 30, "aiokafka by itself would try for ever"
    assert not any(secret in err for secret in SECRETS)
