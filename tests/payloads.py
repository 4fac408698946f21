"""Whatever somebody might put on a topic: kind by kind, and whether it is taken or which rule refuses it."""

from typing import Any, NamedTuple

import orjson
from worlds import control, signal, tick

from engines.parameters import DecisionParams, tree_hash
from schemas.base import RECORD_BYTES_MAX
from schemas.control import Control

TAKEN = ""
BIG_INT = 2**63


class Payload(NamedTuple):
    """One record, and what becomes of it."""

    kind: str
    topic: str
    value: bytes | None
    code: str
    """TAKEN, or the rule that refuses it."""
    field: str = ""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    folded: bool = False
    """Whether sizing, not ingest, refuses it."""


def good(now: int) -> dict[str, dict[str, Any]]:
    """Return a message of each topic that is taken."""
    outcome = {
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "signal_id": "nobody",
        "side": 1,
        "realized_return": 0.01,
        "timestamp_ns": now,
    }
    return {
        "signals": signal(now),
        "prices": tick(now),
        "outcomes": outcome,
        "positions": {"portfolio_id": "main", "timestamp_ns": now, "quantities": {"BTC-USD": 1.5}},
        "cascade-indicators": {"timestamp_ns": now, "funding_rate": 0.001},
        "control": control(now, "trading_state", {"scope": "symbol:DOGE-USD", "state": "ACTIVE"}),
    }


def payloads(now: int) -> list[Payload]:
    """Return all kinds."""
    rows = [*bytes_of_any_topic(now), *json_of_signals(now), *around_the_value(now)]
    for table in (signals, prices, outcomes, positions, cascades, controls):
        rows += table(now)
    return rows


def text(value: object) -> bytes:
    return orjson.dumps(value)


def plus(value: dict[str, Any], more: str) -> bytes:
    """Return a message with some more text before its last brace."""
    return text(value)[:-1] + b"," + more.encode() + b"}"


# -- bytes, on every topic -------------------------------------------------------------------------------------------
def bytes_of_any_topic(now: int) -> list[Payload]:
    rows = []
    for topic, message in good(now).items():
        raw = text(message)
        largest = Control.bytes_max if topic == "control" else RECORD_BYTES_MAX
        folded = {"code": "unmatched", "field": "signal_id", "folded": True} if topic == "outcomes" else {"code": TAKEN}
        rows += [
            Payload("a good one", topic, raw, **folded),
            Payload("blanks around it", topic, b" \n\t" + raw + b"\r\n", **folded),
            Payload("a field nobody knows", topic, plus(message, '"x":{"y":[1,null,"z"]}'), **folded),
            Payload("a tombstone", topic, None, "empty"),
            Payload("no bytes", topic, b"", "empty"),
            Payload("one byte that is no text", topic, b"\xff", "not_utf8"),
            Payload("half of it", topic, raw[: len(raw) // 2], "not_json"),
            Payload("an array of it", topic, b"[" + raw + b"]", "not_an_object"),
            Payload("one byte too large", topic, _padded(message, largest + 1), "too_large"),
            Payload("as large as may be", topic, _padded(message, largest), **folded),
            Payload("nine deep", topic, plus(message, '"x":' + "[" * 8 + "]" * 8), "too_deep"),
            Payload("no fields", topic, b"{}", "missing", None),
        ]
    return rows


def _padded(message: dict[str, Any], size: int) -> bytes:
    raw = plus(message, '"pad":""')
    return raw[:-2] + b"x" * (size - len(raw)) + raw[-2:]


# -- JSON, on signals ------------------------------------------------------------------------------------------------
def json_of_signals(now: int) -> list[Payload]:
    message = signal(now)
    raw = text(message)
    odd = {
        "blanks alone": (b" \n ", "not_json"),
        "UTF-16": (raw.decode().encode("utf-16"), "not_utf8"),
        "a byte order mark": (b"\xef\xbb\xbf" + raw, "not_json"),
        "overlong UTF-8": (raw.replace(b"ranging", b"rang\xc0\xae"), "not_utf8"),
        "a surrogate in UTF-8": (raw.replace(b"ranging", b"rang\xed\xa0\x80"), "not_utf8"),
        "Latin-1": (plus(message, '"x":"é"').replace("é".encode(), b"\xe9"), "not_utf8"),
        "a NUL between": (raw.replace(b",", b",\x00", 1), "not_json"),
        "a NUL in a text": (plus(message, '"x":"a\x00b"'), "not_json"),
        "a line's end in a text": (plus(message, '"x":"a\nb"'), "not_json"),
        "two objects": (raw + raw, "not_json"),
        "two lines": (raw + b"\n" + raw, "not_json"),
        "a comma too many": (raw[:-1] + b",}", "not_json"),
        "single quotes": (raw.replace(b'"', b"'"), "not_json"),
        "no quotes at keys": (raw.replace(b'"action"', b"action"), "not_json"),
        "a comment": (raw[:-1] + b"/* why */}", "not_json"),
        "a plus": (raw.replace(b"0.8", b"+0.8"), "not_json"),
        "a leading nought": (raw.replace(b"0.8", b"00.8"), "not_json"),
        "a leading point": (raw.replace(b"0.8", b".8"), "not_json"),
        "a trailing point": (raw.replace(b"0.8", b"1."), "not_json"),
        "hexadecimal": (raw.replace(b"0.8", b"0x1"), "not_json"),
        "Python's True": (plus(message, '"x":True'), "not_json"),
        "undefined": (plus(message, '"x":undefined'), "not_json"),
        "XML": (b"<signal action='buy'/>", "not_json"),
        "YAML": (b"action: buy", "not_json"),
        "CSV": (b"buy,0.8", "not_json"),
        "Avro's magic byte": (b"\x00\x00\x00\x00\x01" + raw, "not_json"),
        "gzip": (b"\x1f\x8b\x08\x00", "not_utf8"),
        "pickle": (b"\x80\x04\x95", "not_utf8"),
        "a text": (b'"buy"', "not_an_object"),
        "a number": (b"1", "not_an_object"),
        "null": (b"null", "not_an_object"),
        "true": (b"true", "not_an_object"),
        "an empty array": (b"[]", "not_an_object"),
        "NaN": (raw.replace(b"0.8", b"NaN"), "not_finite", "confidence"),
        "Infinity": (raw.replace(b"0.8", b"Infinity"), "not_finite", "confidence"),
        "-Infinity": (raw.replace(b"0.8", b"-Infinity"), "not_finite", "confidence"),
        "1e999": (raw.replace(b"0.8", b"1e999"), "not_finite", "confidence"),
        "-1e999 where nobody looks": (plus(message, '"x":-1e999'), "not_finite", "x"),
        "NaN where nobody looks": (plus(message, '"x":[{"y":NaN}]'), "not_finite", "x.0.y"),
        "a hundred thousand deep": (b"[" * 100_000, "too_deep"),
        "deep objects": (b'{"a":' * 100_000, "too_deep"),
        "deep and whole": (b"[" * 500_000 + b"]" * 500_000, "too_deep"),
        "eight deep": (plus(message, '"x":' + "[" * 7 + "]" * 7), TAKEN),
        "brackets in a text": (plus(message, '"x":"' + "[{" * 50 + '"'), TAKEN),
        "a key twice": (plus(message, '"action":"sell"'), "duplicate_key", "action"),
        "a key twice, the same value": (plus(message, '"action":"buy"'), "duplicate_key", "action"),
        "a key twice, once escaped": (plus(message, '"\\u0061ction":"sell"'), "duplicate_key", "action"),
        "a key twice where nobody looks": (plus(message, '"x":{"y":1,"y":2}'), "duplicate_key", "y"),
        "a key twice that is long": (plus(message, f'"{"k" * 9_000}":1,"{"k" * 9_000}":2'), "duplicate_key", "k" * 64),
        "a key without letters": (plus(message, '"":1'), TAKEN),
        "a hundred thousand keys": (text({**message, **{f"k{n}": n for n in range(60_000)}}), TAKEN),
        "a lone surrogate, escaped": (plus(message, '"x":"\\ud800"'), "not_json"),
        "a pair of surrogates, escaped": (plus(message, '"x":"\\ud83d\\ude00"'), TAKEN),
        "an escaped NUL": (plus(message, '"x":"\\u0000"'), TAKEN),
        "what terminals obey": (plus(message, '"x":"\\u001b[2J\\u0007"'), TAKEN),
        "right to left": (plus(message, '"x":"\u202e\u200b\ufeff"'), TAKEN),
        "other planes": (plus(message, '"x":"\U0010ffff\U0001f600"'), TAKEN),
        "5,000 digits where nobody looks": (plus(message, '"x":' + "9" * 5_000), "not_finite", "x"),
        "300 digits where nobody looks": (plus(message, '"x":' + "9" * 300), TAKEN),
        "a very small number": (raw.replace(b"0.8", b"1e-400"), TAKEN),
        "minus nought": (raw.replace(b"0.8", b"-0.0"), TAKEN),
        "many digits": (raw.replace(b"0.8", b"0.8" + b"0" * 5_000), TAKEN),
        "code for somebody": (plus(message, '"__proto__":{"a":1},"$where":"1"'), TAKEN),
    }
    return [Payload(kind, "signals", *row) for kind, row in odd.items()]


# -- key and headers -------------------------------------------------------------------------------------------------
def around_the_value(now: int) -> list[Payload]:
    raw = text(signal(now))
    odd = {
        "an empty key": {"key": b""},
        "a key that is no text": {"key": bytes(range(256))},
        "a large key": {"key": b"k" * 60_000},
        "a header": {"headers": (("trace", b"\x00\xff"),)},
        "a header twice": {"headers": (("trace", b"1"), ("trace", b"2"))},
        "a header without a value": {"headers": (("trace", None),)},
        "a header without a name": {"headers": (("", b"1"),)},
        "a thousand headers": {"headers": tuple((f"h{n}", b"v") for n in range(1_000))},
        "a header of ours": {"headers": (("himari.error.code", b"\xff"), ("__streams.errors.offset", b"x"))},
        "a replay of nothing": {"headers": (("himari.replay.of", None),)},
    }
    rows = [Payload(kind, "signals", raw, TAKEN, **given) for kind, given in odd.items()]
    rows += [
        Payload(f"{row.kind}, refused", "signals", b"\xff", "not_utf8", key=row.key, headers=row.headers)
        for row in rows
    ]
    return rows


# -- messages --------------------------------------------------------------------------------------------------------
def changed(topic: str, message: dict[str, Any], table: dict[str, tuple[Any, ...]]) -> list[Payload]:
    """Return a message with fields changed, each with its rule; a field of `...` is left away."""
    rows = []
    for kind, (fields, code, *more) in table.items():
        tree = {name: value for name, value in (message | fields).items() if value is not ...}
        field = more[0] if more else next(iter(fields))
        rows.append(Payload(kind, topic, text(tree), code, "" if code == TAKEN else field, folded=len(more) > 1))
    return rows


def signals(now: int) -> list[Payload]:
    wrong = "wrong_type"
    table: dict[str, tuple[Any, ...]] = {
        **{f"no {name}": ({name: ...}, "missing") for name in ("strategy_id", "symbol", "action", "confidence")},
        **{f"no {name} either": ({name: ...}, "missing") for name in ("risk_score", "regime", "timestamp_ns")},
        "null for what is asked": ({"symbol": None}, wrong),
        "a number in quotes": ({"confidence": "0.8"}, wrong),
        "true for a number": ({"confidence": True}, wrong),
        "an array for a number": ({"confidence": [0.8]}, wrong),
        "an object for a number": ({"confidence": {"value": 0.8}}, wrong),
        "a number for a name": ({"strategy_id": 7}, wrong),
        "an array for a name": ({"symbol": ["BTC-USD"]}, wrong),
        "more than sure": ({"confidence": 1.0000001}, "out_of_range"),
        "less than unsure": ({"confidence": -1e-9}, "out_of_range"),
        "no risk at all": ({"risk_score": -0.1}, "out_of_range"),
        "an action nobody knows": ({"action": "hodl"}, "unknown_value"),
        "an action in capitals": ({"action": "BUY"}, TAKEN),
        "an action in words": ({"action": "Strong-Buy"}, TAKEN),
        "an empty action": ({"action": ""}, "unknown_value"),
        "a regime nobody knows": ({"regime": "sideways"}, "unknown_value", "regime", True),
        "a regime that is no word": ({"regime": "r\u00e4nging"}, "malformed"),
        "a regime in capitals": ({"regime": "RANGING"}, TAKEN),
        "an empty name": ({"strategy_id": ""}, "malformed"),
        "a name of ours": ({"strategy_id": "-"}, "malformed"),
        "a name of 65": ({"symbol": "x" * 65}, "malformed"),
        "a name of 64": ({"symbol": "x" * 64}, TAKEN),
        "a name of a million": ({"symbol": "x" * 1_000_000}, "malformed"),
        "a name with a bar": ({"symbol": "a|b"}, "malformed"),
        "a name with a blank": ({"symbol": "BTC USD"}, "malformed"),
        "a name with a line's end": ({"symbol": "BTC-USD\n"}, "malformed"),
        "a name in Cyrillic": ({"symbol": "\u0412\u0422\u0421"}, "malformed"),
        "a name with a NUL": ({"portfolio_id": "ma\x00in"}, "malformed"),
        "a way out of a folder": ({"portfolio_id": "../../etc/passwd"}, TAKEN),
        "a formula for a spreadsheet": ({"portfolio_id": "=1+1"}, "malformed"),
        "SQL": ({"portfolio_id": "'; DROP TABLE"}, "malformed"),
        "a template": ({"portfolio_id": "${HOME}"}, "malformed"),
        "seconds": ({"timestamp_ns": now // 10**9}, "timestamp_unit"),
        "milliseconds": ({"timestamp_ns": now // 10**6}, "timestamp_unit"),
        "microseconds": ({"timestamp_ns": now // 10**3}, "timestamp_unit"),
        "seconds with a fraction": ({"timestamp_ns": now / 1e9}, "timestamp_unit"),
        "a date": ({"timestamp_ns": "2026-01-01T00:00:00Z"}, wrong),
        "a time with a fraction": ({"timestamp_ns": now + 0.5}, wrong),
        "before all time": ({"timestamp_ns": 0}, "out_of_range"),
        "before 1970": ({"timestamp_ns": -now}, "out_of_range"),
        "63 bits": ({"timestamp_ns": BIG_INT - 1}, "out_of_range"),
        "64 bits": ({"timestamp_ns": BIG_INT}, "out_of_range"),
        "the day after": ({"timestamp_ns": now + 86_400 * 10**9}, "in_future"),
        "the year before": ({"timestamp_ns": now - 365 * 86_400 * 10**9}, TAKEN),
        "a claim against the action": ({"expected_return": -0.01}, "contrary_sign"),
        "a claim of nothing": ({"expected_return": 0}, TAKEN),
        "a claim beyond all": ({"expected_return": 1000.1}, "out_of_range"),
        "as bold as may be": ({"expected_return": 1.0, "predicted_volatility": 1e-6, "confidence": 1}, TAKEN),
        "bolder": ({"expected_return": 1.01}, "out_of_range"),
        "as timid as may be": ({"expected_return": 5e-324, "predicted_volatility": 10.0}, TAKEN),
        "more timid": ({"predicted_volatility": 10.1}, "out_of_range"),
        "no volatility": ({"predicted_volatility": 0.0}, "out_of_range"),
        "a volatility below noughts": ({"predicted_volatility": -0.02}, "out_of_range"),
        "the smallest horizon": ({"horizon_s": 0.001}, TAKEN),
        "no horizon": ({"horizon_s": 0}, "out_of_range"),
        "eleven years": ({"horizon_s": 400_000_000}, "out_of_range"),
        "a mood of 2": ({"sentiment_score": 2}, "out_of_range"),
        "a mood of another day": ({"sentiment_score": 0.5, "sentiment_timestamp_ns": 10**18}, TAKEN),
        "a mood whose day is in seconds": (
            {"sentiment_score": 0.5, "sentiment_timestamp_ns": 1},
            "out_of_range",
            "sentiment_timestamp_ns",
        ),
        "an empty id": ({"signal_id": ""}, "malformed"),
        "an id that is a number": ({"signal_id": 5}, wrong),
    }
    return changed("signals", signal(now), table)


def prices(now: int) -> list[Payload]:
    one = {
        "no price": ({"price": ...}, "missing"),
        "a price of nothing": ({"price": 0}, "out_of_range"),
        "a price below nothing": ({"price": -1.0}, "out_of_range"),
        "a price in quotes": ({"price": "1.0"}, "wrong_type"),
        "the smallest price": ({"symbol": "DUST", "price": 1e-18}, TAKEN),
        "the largest price": ({"symbol": "GOLD", "price": 1e15}, TAKEN),
        "a larger price": ({"price": 1.1e15}, "out_of_range"),
        "a low above it": ({"price": 100.0, "low": 101.0}, "inconsistent", "price"),
        "a high below it": ({"price": 100.0, "high": 99.0}, "inconsistent", "price"),
        "a low far below it": ({"price": 100.0, "low": 1e-18}, "inconsistent", "low"),
        "a volume below nothing": ({"volume": -1.0}, "out_of_range"),
        "a tick of tomorrow": ({"timestamp_ns": now + 86_400 * 10**9}, "in_future"),
        "a tick of last year": ({"timestamp_ns": now - 365 * 86_400 * 10**9}, TAKEN),
        "a tick in seconds": ({"timestamp_ns": now // 10**9}, "timestamp_unit"),
        "a symbol of 65": ({"symbol": "x" * 65}, "malformed"),
    }
    many = {
        "no ticks": ([], "out_of_range", "ticks"),
        "one tick of many": ([tick(now)], TAKEN),
        "ticks that go up and down, of two symbols": (
            [
                tick(now - 3, price=43_500.0, volume=0.5),
                tick(now - 2, "ETH-USD", low=2_270.0, high=2_290.0, volume=3.0),
                tick(now - 1, price=43_700.0, low=43_400.0, high=43_750.0, volume=1.25),
                tick(now, price=43_600.0),
            ],
            TAKEN,
        ),
        "ten thousand and one": ([tick(now)] * 10_001, "out_of_range", "ticks"),
        "one bad among good ones": ([tick(now), {**tick(now), "price": 0}], "out_of_range", "ticks[1].price"),
        "a tick that is a number": ([1], "wrong_type", "ticks[0]"),
        "more symbols than a step takes": (
            [tick(now, f"F{n}", 1.0) for n in range(2_001)],
            "out_of_range",
            "ticks[2000].symbol",
        ),
    }
    rows = [Payload(kind, "prices", text({"ticks": ticks}), *row) for kind, (ticks, *row) in many.items()]
    rows.append(Payload("ticks that are no array", "prices", b'{"ticks":{"0":1}}', "wrong_type", "ticks"))
    both = {**tick(now), "ticks": [tick(now)]}
    rows.append(Payload("ticks and a price", "prices", text(both), "inconsistent", "ticks"))
    return changed("prices", tick(now), one) + rows


def outcomes(now: int) -> list[Payload]:
    unmatched = ("unmatched", "signal_id", True)
    table = {
        "no claim named": ({"signal_id": ...}, "missing", "decision_id"),
        "a claim of nobody": ({"signal_id": "another"}, *unmatched),
        "a decision of nobody": ({"signal_id": ..., "decision_id": "x-0-1-main"}, "unmatched", "decision_id", True),
        "more lost than there was": ({"realized_return": -1.01}, "out_of_range"),
        "all lost": ({"realized_return": -1}, *unmatched),
        "a hundredfold": ({"realized_return": 100}, *unmatched),
        "nine hundredfold": ({"realized_return": 900}, "out_of_range"),
        "a side of 0": ({"side": 0}, "unknown_value"),
        "a side of true": ({"side": True}, "wrong_type"),
        "a side of 1.0": ({"side": 1.0}, "wrong_type"),
        "a side in a word": ({"side": "short"}, *unmatched),
        "a holding below nothing": ({"holding_s": -1}, "out_of_range"),
        "a decision's name of 129": ({"decision_id": "x" * 129}, "malformed"),
    }
    return changed("outcomes", good(now)["outcomes"], table)


def positions(now: int) -> list[Payload]:
    long = "k" * 500_000
    table = {
        "nothing held": ({"quantities": {}}, TAKEN),
        "counted years ago": ({"timestamp_ns": now - 2 * 365 * 86_400 * 10**9}, "too_old"),
        "no quantities": ({"quantities": ...}, "missing"),
        "quantities in an array": ({"quantities": [1]}, "wrong_type"),
        "2,001 symbols": ({"quantities": {f"s{n}": 1.0 for n in range(2_001)}}, "out_of_range"),
        "2,000 symbols": ({"portfolio_id": "wide", "quantities": {f"s{n}": 1.0 for n in range(2_000)}}, TAKEN),
        "a symbol that is no name": ({"quantities": {"a b": 1.0}}, "malformed", "quantities.a b.[key]"),
        "a symbol of half a million": ({"quantities": {long: 1.0}}, "malformed", f"quantities.{long}"[:200]),
        "a quantity in quotes": ({"quantities": {"BTC-USD": "1"}}, "wrong_type", "quantities.BTC-USD"),
        "a quantity beyond all": ({"quantities": {"BTC-USD": 1.1e18}}, "out_of_range", "quantities.BTC-USD"),
        "as short as may be": ({"portfolio_id": "short", "quantities": {"BTC-USD": -1e18}}, TAKEN),
        "no equity left": ({"equity": 0.0}, "out_of_range"),
        "the least equity": ({"portfolio_id": "poor", "equity": 0.01}, TAKEN),
        "the most equity": ({"portfolio_id": "rich", "equity": 1e15}, TAKEN),
        "a portfolio of nobody": ({"portfolio_id": ...}, "missing"),
    }
    return changed("positions", good(now)["positions"], table)


def cascades(now: int) -> list[Payload]:
    table = {
        "no reading": ({"funding_rate": ...}, "missing", None),
        "a reading for a symbol": ({"symbol": "BTC-USD", "oi_change_pct": -0.5}, TAKEN),
        "a reading beyond all": ({"funding_rate": 1.1e6}, "out_of_range"),
        "as extreme as may be": ({"funding_rate": -0.25, "funding_interval_hours": 0.01}, TAKEN),
        "funding in percent": ({"funding_rate": 5}, "out_of_range"),
        "more gone than there was": ({"oi_change_pct": -2}, "out_of_range"),
        "readings of null": ({"symbol": None}, "wrong_type", "symbol"),
        "a volume ratio below nothing": ({"volume_ratio": -0.1}, "out_of_range"),
        "an interval of hardly anything": ({"funding_interval_hours": 5e-324}, "out_of_range"),
        "an interval of nothing": ({"funding_interval_hours": 0}, "out_of_range"),
        "whales of 2": ({"onchain_whale_pressure": 2}, "out_of_range"),
        "a symbol that is a number": ({"symbol": 1}, "wrong_type"),
        "liquidations of nothing open": (
            {"liquidation_volume_24h": 1e18, "open_interest": 0},
            "inconsistent",
            "open_interest",
        ),
    }
    return changed("cascade-indicators", good(now)["cascade-indicators"], table)


def controls(now: int) -> list[Payload]:
    def settings(tree: Any, **given: Any) -> dict[str, Any]:
        return {"kind": "settings", "payload": {"base_hash": "0" * 64, "hash": "1" * 64, "tree": tree, **given}}

    table = {
        "an order nobody knows": ({"kind": "shutdown"}, "unknown_value"),
        "no payload": ({"payload": ...}, "missing"),
        "a payload of another kind": ({"kind": "portfolio_value"}, "missing", "payload.portfolio_id"),
        "a payload that is a text": ({"payload": "halt"}, "wrong_type", None),
        "a scope nobody knows": ({"payload": {"scope": "everything", "state": "HALTED"}}, "malformed", "payload.scope"),
        "a scope with a bar": ({"payload": {"scope": "symbol:a|b", "state": "HALTED"}}, "malformed", "payload.scope"),
        "a state nobody knows": ({"payload": {"scope": "all", "state": "PAUSED"}}, "unknown_value", "payload.state"),
        "a reason of 513": ({"reason": "x" * 513}, "malformed"),
        "a reason for a terminal": ({"reason": "\x1b[2J"}, TAKEN),
        "nobody's order": ({"by": ...}, "missing"),
        "an order of tomorrow": ({"timestamp_ns": now + 86_400 * 10**9}, "in_future"),
        "settings on another base": (settings({}), TAKEN),
        "settings whose refusal would quote all of them": (
            settings({"market": '"' + "'" * 50_000}, base_hash=tree_hash(DecisionParams())),
            TAKEN,
        ),
        "settings that are no tree": (settings("x"), "wrong_type", "payload.tree"),
        "settings with a hash that is none": (settings({}, hash="xyz"), "malformed", "payload.hash"),
        "a value of nothing": (
            {"kind": "portfolio_value", "payload": {"portfolio_id": "p", "value_usd": 0}},
            "out_of_range",
            "payload.value_usd",
        ),
        "a value beyond all": ({"kind": "portfolio_value", "payload": {"portfolio_id": "p", "value_usd": 1e15}}, TAKEN),
        "a policy that is off": ({"kind": "rl_mode", "payload": {"mode": "off"}}, TAKEN),
        "a policy mode nobody knows": ({"kind": "rl_mode", "payload": {"mode": "on"}}, "unknown_value", "payload.mode"),
    }
    return changed("control", good(now)["control"], table)
