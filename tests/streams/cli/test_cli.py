"""The command line where no broker answers: what is checked before, and what is said."""

import asyncio
import getpass
import json
import re
import socket

import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from click.testing import CliRunner
from worlds import START_NS, control, signal, tick

from config.load import DEFAULT_FILE
from config.settings import Settings
from schemas.errors import BrokerUnreachable, ConfigurationException
from streams import cli
from streams.cli import COMMANDS, main
from streams.cli import demo as demo_command
from streams.cli.common import operator, short
from streams.journal.topics import Names
from streams.kafka import acls, connection

NOWHERE = "127.0.0.1:1"
TICK = tick(START_NS)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("HIMARI__KAFKA__BOOTSTRAP_SERVERS", raising=False)


def run(*arguments, stdin=None):
    """Return exit code, stdout and stderr of a command, as a shell gets them."""
    with_main = CliRunner()
    found = {}

    def call(arguments_):
        try:
            main(arguments_)
        except SystemExit as done:
            found["code"] = done.code

    with with_main.isolation(input=stdin) as (out, err, _):
        call(list(map(str, arguments)))
        return found["code"], out.getvalue().decode(), err.getvalue().decode()


def lines(*messages):
    return b"\n".join(each if isinstance(each, bytes) else orjson.dumps(each) for each in messages) + b"\n"


# -- the whole -------------------------------------------------------------------------------------------------------
def test_help_names_every_command_and_asks_for_nothing():
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", out, re.MULTILINE), name


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"bench"}))
def test_every_command_has_help(name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "Usage:" in out


def test_the_version_is_the_packages():
    code, out, _ = run("--version")
    assert code == 0
    assert re.search(r"\d+\.\d+\.\d+", out)


@pytest.mark.parametrize(
    "arguments", [["dance"], ["publish"], ["tail", "signals", "--max", "0"], ["config", "diff", "one"], ["--what"]]
)
def test_a_wrong_word_is_usage_exit_2(arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err


# -- config ----------------------------------------------------------------------------------------------------------
def test_config_stands_before_or_after_the_command(tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text("topics:\n  partitions: 3\n")
    for arguments in (["--config", file, "config", "show"], ["config", "show", "--config", file]):
        code, out, _ = run(*arguments)
        assert code == 0
        assert "topics.partitions: 3" in out


def test_validate_show_and_diff(tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text("sentiment:\n  weight: 0.2\n")
    assert run("config", "validate", file)[0] == 0
    code, out, _ = run("config", "show", "--json", "--origin", "--config", file)
    assert code == 0
    told = json.loads(out)
    assert told["settings"]["sentiment"]["weight"] == 0.2
    assert told["origin"]["sentiment.weight"] == "file"
    assert told["origin"]["sentiment.enabled"] != "file"
    assert told["settings"]["kafka"] == Settings().model_dump()["kafka"]
    code, out, _ = run("config", "diff", DEFAULT_FILE, file)
    assert (code, out) == (0, "sentiment.weight: 0.15 → 0.2\n")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sentiment:\n  weigth: 0.2\n", "sentiment.weigth"),
        ("sentiment:\n  weight: 0.9\n", "sentiment.weight"),
        ("sentiment: [1\n", "line"),
    ],
)
@pytest.mark.parametrize(
    "command", [["config", "validate"], ["publish", "signals", "-"], ["tail", "signals"], ["worker"]]
)
def test_a_bad_file_is_exit_5_and_one_line_that_names_file_and_key(tmp_path, text, place, command):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    code, out, err = run("--config", file, *command, stdin=b"")
    assert (code, out) == (5, "")
    assert err.startswith("himari: ")
    assert err.count("\n") == 1
    assert str(file) in err
    assert place in err


# -- publish ---------------------------------------------------------------------------------------------------------
BAD_LINES = {
    "signals": (signal(START_NS, confidence=2.0), "confidence"),
    "prices": ({**TICK, "price": -1.0}, "price"),
    "outcomes": ({"symbol": "BTC-USD"}, "strategy_id"),
    "positions": ({"portfolio_id": "main", "timestamp_ns": START_NS, "quantities": {"BTC": "1"}}, "quantities"),
    "cascade-indicators": ({"timestamp_ns": START_NS}, "funding_rate"),
    "control": (control(START_NS, "trading_state", {"scope": "all", "state": "SLEEPING"}), "payload"),
}


@pytest.mark.parametrize("topic", BAD_LINES)
def test_a_bad_line_is_named_with_number_and_field_before_any_connection(topic):
    message, field = BAD_LINES[topic]
    code, out, err = run("--bootstrap", NOWHERE, "publish", topic, "-", stdin=lines(b"", message))
    assert (code, out) == (5, "")
    assert err.startswith(f"line 2: {field}")


def test_every_bad_line_is_named_and_none_of_the_good_ones():
    stdin = lines(TICK, b"no JSON", TICK, b"\xff\xfe", {"ticks": []}, {"ticks": [TICK, {}]})
    code, _, err = run("--bootstrap", NOWHERE, "publish", "prices", "-", stdin=stdin)
    assert code == 5
    assert re.findall(r"^line (\d+):", err, re.MULTILINE) == ["2", "4", "5", "6"]


def test_a_file_is_read_as_stdin_is(tmp_path):
    file = tmp_path / "ticks.jsonl"
    file.write_bytes(lines(TICK, b"\xff"))
    code, _, err = run("--bootstrap", NOWHERE, "publish", "prices", file)
    assert code == 5
    assert err.startswith("line 2: record: ")


def test_a_file_that_is_not_there_is_usage():
    assert run("publish", "prices", "nowhere.jsonl")[0] == 2


@pytest.mark.parametrize("command", ["publish", "tail"])
def test_a_topic_that_is_not_ours_is_not_found_exit_3(command):
    code, out, err = run("--bootstrap", NOWHERE, command, "quotes", stdin=b"")
    assert (code, out) == (3, "")
    assert "quotes" in err
    assert "signals" in err, "it says which there are"


def test_nothing_is_published_to_what_only_we_write():
    assert run("--bootstrap", NOWHERE, "publish", "allocations", "-", stdin=b"")[0] == 3
    assert run("--bootstrap", NOWHERE, "publish", "journal", "-", stdin=b"")[0] == 3


# -- control ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", ["halt", "reduce", "resume"])
def test_an_order_without_scope_or_reason_is_usage_and_a_wrong_scope_exit_5_before_any_connection(word):
    assert run("control", word, "--scope", "all")[0] == 2
    assert run("control", word, "--reason", "x")[0] == 2
    code, out, err = run("--bootstrap", NOWHERE, "control", word, "--scope", "desk:x", "--reason", "x", "--wait")
    assert (code, out) == (5, "")
    assert err.startswith("himari: control: payload.scope must ")


def test_a_value_that_is_none_is_exit_5_before_any_connection():
    for usd in ("-1", "nan", "inf", "0"):
        code, out, err = run("control", "value", "--portfolio", "main", "--usd", usd, "--reason", "x")
        assert (code, out) == (5, "")
        assert err.startswith("himari: control: payload.value_usd must ")


# -- out of reach ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "command",
    [
        ["topics", "check"],
        ["topics", "apply"],
        ["tail", "signals", "--max", "1"],
        ["audit", "verify"],
        ["publish", "prices", "-"],
        ["control", "halt", "--scope", "all", "--reason", "x"],
        ["control", "halt", "--scope", "all", "--reason", "x", "--no-wait"],
        ["control", "list"],
        ["dlq", "list"],
        ["dlq", "replay", "signals"],
    ],
    ids=" ".join,
)
def test_a_broker_out_of_reach_is_one_line_and_exit_6(command, monkeypatch):
    monkeypatch.setattr(connection.reach, "__defaults__", (0.2,))  # it tries for ten seconds
    code, out, err = run("--bootstrap", NOWHERE, *command, stdin=lines(TICK))
    assert (code, out) == (6, "")
    told = [line for line in err.splitlines() if line.startswith("himari: ")]
    assert len(told) == 1
    assert NOWHERE in told[0]
    assert "Traceback" not in err


def test_an_interrupt_is_exit_130(monkeypatch):
    def interrupted(_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    code, out, err = run("worker")
    assert (code, out, err) == (130, "", "himari: interrupted\n")


# -- files with a mark, candle files ---------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_published_whatever_mark_stands_before_it(tmp_path, encoding):
    file = tmp_path / "signals.jsonl"
    good, bad = (json.dumps(signal(START_NS, confidence=each)) for each in (0.8, 2))
    file.write_text(f"{good}\r\n\r\n{bad}\r\n{good}\n", encoding=encoding, newline="")
    code, _, told = run("publish", "signals", file)
    assert code == 5
    assert told == "line 3: confidence: signals: confidence must be at most 1, was 2\n"


HEADER = "timestamp,open,high,low,close,volume\n"
HOURS = [f"{1_735_689_600 + 3600 * n},100,102,98,101,10\n" for n in range(4)]


@pytest.fixture
def two_files(tmp_path):
    early, late = tmp_path / "BTCUSDT-1h-2025-01.csv", tmp_path / "BINANCE_BTCUSDT, 60.csv"
    early.write_text(HEADER + "".join(HOURS[:3]))
    late.write_text(HEADER + "".join(HOURS[2:]).replace("10\n", "11\n", 1))
    return early, late


def test_files_that_contradict_each_other_are_refused_before_anything_starts(two_files):
    early, late = two_files
    code, out, told = run("demo", "--json", "--data", early, late)
    assert (code, out) == (5, "")
    lines = told.splitlines()
    span = "candles of 3600 s, 2025-01-01 00:00 to 2025-01-01 02:00 UTC"
    assert lines[0] == f"himari: BTCUSDT from {early}: 3 {span}"
    assert lines[1].startswith(f"himari: BTCUSDT from {late}: 2 candles of 3600 s")
    assert lines[2].startswith(
        f"himari: {late}: time: must be the candle of {early} at the same time, 2025-01-01 02:00"
    )
    assert len(lines) == 3


def test_symbols_that_are_given_are_shown_and_bad_rows_are_named(two_files):
    early, late = two_files
    early.write_text(early.read_text() + "oops\n")
    late.write_text(late.read_text().replace("11\n", "x\n"))
    code, _, told = run("demo", "--tolerant", "--symbol", "A-USD", "--symbol", "B-USD", "--data", early, late)
    assert code == 5
    assert told == f"himari: {late}: must hold two candles or more, holds 1\n"
    late.write_text(late.read_text() + HOURS[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.cli.demo.uvloop.run", _not_begun)
        code, _, told = run("demo", "--tolerant", "--symbol", "A-USD", "--symbol", "B-USD", "--data", early, late)
    assert "himari: A-USD from" in told
    assert "himari: B-USD from" in told
    assert f"himari: skipped: {early}:5: time: must be a whole number" in told
    assert f"himari: {late}: 1 invalid rows skipped" in told


def _not_begun(work):
    """Stop where the broker would start."""
    work.close()
    raise ConfigurationException("test", "", "goes no further")


@pytest.mark.parametrize(
    ("no_open", "terminal", "display", "opened"),
    [
        (False, True, ":0", ["http://x/"]),
        (True, True, ":0", []),
        (False, False, ":0", []),
        (False, True, "", []),
    ],
)
def test_the_demo_opens_its_page_where_somebody_sees_it(monkeypatch, capsys, no_open, terminal, display, opened):
    found = []
    monkeypatch.setattr("webbrowser.open", found.append)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    demo_command._page("http://x/", no_open=no_open)
    assert found == opened
    assert capsys.readouterr().err == "himari: page http://x/\n"


@pytest.mark.parametrize(
    ("symbols", "rule"),
    [(("A", "B", "C"), "must be given once, or once per file (2)"), (("a b",), "must match [A-Za-z0-9._:/-]{1,64}")],
)
def test_a_symbol_that_cannot_be_is_wrong_usage(two_files, symbols, rule):
    given = [part for symbol in symbols for part in ("--symbol", symbol)]
    code, _, told = run("demo", *given, "--data", *two_files)
    assert code == 2
    assert rule in told


def test_a_tensor_that_is_not_known_is_wrong_usage():
    code, _, told = run("rl", "check", "--url", "http://127.0.0.1:1", "--tensor", "reward=output__0")
    assert code == 2
    assert "--tensor reward" in told


# -- names, orders and brokers as people write them --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("signals", "signals"),
        ("himari.signals.v1", "signals"),
        ("desk-7.cascade-indicators.v1.dlq", "cascade-indicators.dlq"),
    ],
)
def test_a_topic_may_be_given_by_its_name_on_the_broker(topic, name):
    assert short(topic) == name


@pytest.mark.parametrize("option", ["--by", "--reason"])
@pytest.mark.parametrize(
    "words", [["control", "halt", "--scope", "all"], ["control", "value", "--portfolio", "p", "--usd", "1"]]
)
def test_an_order_without_a_reason_or_a_name_is_refused_before_anything_is_sent(option, words):
    given = {"--reason": "a test", "--by": "me", option: "  "}
    code, _, err = run(*words, *(text for each in given.items() for text in each))
    assert (code, f"{option}: must not be empty" in err) == (2, True), err


def test_an_order_is_by_the_user_and_host_of_the_process_unless_it_says_otherwise():
    user, _, host = operator(None).partition("@")
    assert (user, host) == (getpass.getuser(), socket.gethostname())
    assert operator("desk") == "desk"


def test_a_code_that_no_dead_letter_has_is_refused():
    code, _, err = run("dlq", "list", "--code", "nosuch")
    assert (code, "'nosuch' is not one of" in err) == (2, True), err


def test_a_host_without_an_address_is_named_as_such():
    async def story():
        nowhere = connection.Connection("no-such-host.invalid:9092")
        await connection.reach(AIOKafkaConsumer(**nowhere.reading()), nowhere, 0.1)

    with pytest.raises(BrokerUnreachable, match=r"no-such-host\.invalid:9092: the host name cannot be resolved"):
        asyncio.run(story())


def test_a_reader_is_granted_its_consumer_group():
    said = list(acls.lines(Names(), "reader", "User:bot", "b:9092", "bots"))
    assert said[-1].endswith("--operation Read --group bots")
    assert not any("--group" in line for line in acls.lines(Names(), "reader", "User:bot", "b:9092"))
