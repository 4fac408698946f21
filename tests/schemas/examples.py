"""Messages, good and bad, that several tests look at."""

import json

from schemas.cascade import CascadeIndicators
from schemas.control import Control
from schemas.entry import Entry, Genesis, Step
from schemas.outcome import TradeOutcome
from schemas.positions import Positions
from schemas.signal import TacticalSignal

NOW = 1_735_689_600_000_000_000
SIGNAL = {
    "strategy_id": "momentum",
    "symbol": "BTCUSDT",
    "action": "buy",
    "confidence": 0.7,
    "risk_score": 0.2,
    "regime": "trending_up",
    "timestamp_ns": NOW,
}
TEXT = json.dumps(SIGNAL)


def with_(**fields):
    return json.dumps(SIGNAL | fields).encode()


def raw(field, literal):
    """A signal in which one field stands as this very text."""
    return json.dumps(SIGNAL | {field: "@"}).replace('"@"', literal).encode()


def without(field):
    return json.dumps({name: value for name, value in SIGNAL.items() if name != field}).encode()


def plus(text):
    return (TEXT[:-1] + "," + text + "}").encode()


BAD_SIGNALS = {
    "nothing": (None, "empty", ""),
    "no bytes": (b"", "empty", ""),
    "latin-1": (TEXT.replace("momentum", "mömentum").encode("latin-1"), "not_utf8", ""),
    "utf-16": (TEXT.encode("utf-16"), "not_utf8", ""),
    "surrogate bytes": (TEXT.encode().replace(b"mom", b"\xed\xa0\x80"), "not_utf8", ""),
    "a byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), "not_json", ""),
    "a word": (b"buy", "not_json", ""),
    "cut short": (TEXT[:-5].encode(), "not_json", ""),
    "two objects": (f"{TEXT}{TEXT}".encode(), "not_json", ""),
    "single quotes": (TEXT.replace('"', "'").encode(), "not_json", ""),
    "a trailing comma": (TEXT.replace("}", ",}").encode(), "not_json", ""),
    "a comment": (f"{TEXT} // now".encode(), "not_json", ""),
    "a lone surrogate": (plus('"note":"\\ud800"'), "not_json", ""),
    "a control character": (plus('"note":"\x01"'), "not_json", ""),
    "a leading zero": (raw("confidence", "00.5"), "not_json", ""),
    "a bare point": (raw("confidence", ".5"), "not_json", ""),
    "a plus sign": (raw("confidence", "+0.5"), "not_json", ""),
    "a hexadecimal": (raw("confidence", "0x1"), "not_json", ""),
    "an array": (f"[{TEXT}]".encode(), "not_an_object", ""),
    "a string": (b'"buy"', "not_an_object", ""),
    "a number": (b"1", "not_an_object", ""),
    "null": (b"null", "not_an_object", ""),
    "true": (b"true", "not_an_object", ""),
    "NaN": (raw("confidence", "NaN"), "not_finite", "confidence"),
    "Infinity": (raw("expected_return", "Infinity"), "not_finite", "expected_return"),
    "-Infinity": (raw("expected_return", "-Infinity"), "not_finite", "expected_return"),
    "1e999": (raw("expected_return", "1e999"), "not_finite", "expected_return"),
    "-1e999": (raw("expected_return", "-1e999"), "not_finite", "expected_return"),
    "400 digits": (raw("expected_return", "9" * 400), "not_finite", "expected_return"),
    "5,000 digits": (raw("timestamp_ns", "9" * 5000), "not_finite", "timestamp_ns"),
    "NaN where nobody looks": (plus('"note":{"deep":[NaN]}'), "not_finite", "note.deep.0"),
    "1e999 where nobody looks": (plus('"note":1e999'), "not_finite", "note"),
    "nan in quotes": (with_(confidence="nan"), "wrong_type", "confidence"),
    "inf in quotes": (with_(expected_return="inf"), "wrong_type", "expected_return"),
    "a key twice": (plus('"symbol":"ETHUSDT"'), "duplicate_key", "symbol"),
    "a key twice, equal": (plus('"symbol":"BTCUSDT"'), "duplicate_key", "symbol"),
    "a key twice, escaped": (plus('"s\\u0079mbol":"ETHUSDT"'), "duplicate_key", "symbol"),
    "a key twice, spaced": (plus('"symbol" :"ETHUSDT"'), "duplicate_key", "symbol"),
    "a key twice, and colons": (plus('"symbol":"a:b"'), "duplicate_key", "symbol"),
    "a key twice where nobody looks": (plus('"note":[{"a":1,"a":2}]'), "duplicate_key", "a"),
    "nine deep": (plus('"note":' + "[" * 8 + "]" * 8), "too_deep", ""),
    "nine deep, by turns": (plus('"note":' + '[{"a":' * 4 + "1" + "}]" * 4), "too_deep", ""),
    "very deep": (b"[" * 100_000, "too_deep", ""),
    "deep objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "too_deep", ""),
    "deep behind brackets in strings": (plus('"note":' + '["]",' * 8 + "1" + ',"["]' * 8), "too_deep", ""),
    "over 1 MiB": (plus(f'"note":"{"x" * 1_048_576}"'), "too_large", ""),
    "no strategy": (without("strategy_id"), "missing", "strategy_id"),
    "no symbol": (without("symbol"), "missing", "symbol"),
    "no action": (without("action"), "missing", "action"),
    "no confidence": (without("confidence"), "missing", "confidence"),
    "no risk score": (without("risk_score"), "missing", "risk_score"),
    "no regime": (without("regime"), "missing", "regime"),
    "no timestamp": (without("timestamp_ns"), "missing", "timestamp_ns"),
    "confidence in quotes": (with_(confidence="0.7"), "wrong_type", "confidence"),
    "confidence true": (with_(confidence=True), "wrong_type", "confidence"),
    "confidence null": (with_(confidence=None), "wrong_type", "confidence"),
    "confidence an object": (with_(confidence={}), "wrong_type", "confidence"),
    "confidence an array": (with_(confidence=[0.7]), "wrong_type", "confidence"),
    "confidence in percent": (with_(confidence=70), "out_of_range", "confidence"),
    "confidence just above": (raw("confidence", "1.0000000000000002"), "out_of_range", "confidence"),
    "confidence below": (with_(confidence=-0.1), "out_of_range", "confidence"),
    "risk score above": (with_(risk_score=1.1), "out_of_range", "risk_score"),
    "an unknown action": (with_(action="short"), "unknown_value", "action"),
    "an action with a blank around it": (with_(action=" buy"), "unknown_value", "action"),
    "action a number": (with_(action=1), "unknown_value", "action"),
    "an empty regime": (with_(regime=""), "malformed", "regime"),
    "regime with a digit first": (with_(regime="1up"), "malformed", "regime"),
    "regime a number": (with_(regime=3), "wrong_type", "regime"),
    "symbol with a space": (with_(symbol="BTC USDT"), "malformed", "symbol"),
    "symbol empty": (with_(symbol=""), "malformed", "symbol"),
    "symbol of 65": (with_(symbol="x" * 65), "malformed", "symbol"),
    "symbol with a line's end": (with_(symbol="BTCUSDT\n"), "malformed", "symbol"),
    "symbol that is ours": (with_(symbol="*"), "malformed", "symbol"),
    "strategy that is ours": (with_(strategy_id="-"), "malformed", "strategy_id"),
    "strategy a number": (with_(strategy_id=7), "wrong_type", "strategy_id"),
    "portfolio null": (with_(portfolio_id=None), "wrong_type", "portfolio_id"),
    "seconds": (with_(timestamp_ns=1_735_689_600), "timestamp_unit", "timestamp_ns"),
    "milliseconds": (with_(timestamp_ns=1_735_689_600_000), "timestamp_unit", "timestamp_ns"),
    "microseconds": (with_(timestamp_ns=1_735_689_600_000_000), "timestamp_unit", "timestamp_ns"),
    "seconds with a fraction": (with_(timestamp_ns=1_735_689_600.5), "timestamp_unit", "timestamp_ns"),
    "sentiment in seconds": (with_(sentiment_timestamp_ns=1_735_689_600), "timestamp_unit", "sentiment_timestamp_ns"),
    "time zero": (with_(timestamp_ns=0), "out_of_range", "timestamp_ns"),
    "time before": (with_(timestamp_ns=-NOW), "out_of_range", "timestamp_ns"),
    "time in 2200": (with_(timestamp_ns=7_258_118_400_000_000_000), "out_of_range", "timestamp_ns"),
    "time of 65 bits": (with_(timestamp_ns=2**64), "out_of_range", "timestamp_ns"),
    "time a float": (with_(timestamp_ns=1.7e18), "wrong_type", "timestamp_ns"),
    "time as text": (with_(timestamp_ns="2025-01-01T00:00:00Z"), "wrong_type", "timestamp_ns"),
    "time true": (with_(timestamp_ns=True), "wrong_type", "timestamp_ns"),
    "volatility zero": (with_(predicted_volatility=0), "out_of_range", "predicted_volatility"),
    "volatility negative": (with_(predicted_volatility=-0.1), "out_of_range", "predicted_volatility"),
    "return in quotes": (with_(expected_return="1%"), "wrong_type", "expected_return"),
    "return beyond sense": (with_(expected_return=1e30), "out_of_range", "expected_return"),
    "a return of 500 %": (with_(expected_return=5), "out_of_range", "expected_return"),
    "a return in percent": (with_(expected_return=999), "out_of_range", "expected_return"),
    "a fall below nothing": (with_(action="sell", expected_return=-1.5), "out_of_range", "expected_return"),
    "a volatility of 20,000 %": (with_(predicted_volatility=200), "out_of_range", "predicted_volatility"),
    "a volatility of nearly nothing": (with_(predicted_volatility=1e-9), "out_of_range", "predicted_volatility"),
    "a mood of tomorrow": (
        with_(sentiment_timestamp_ns=NOW + 86_400 * 10**9),
        "in_future",
        "sentiment_timestamp_ns",
    ),
    "a contrary sign in capitals": (with_(action="BUY", expected_return=-0.01), "contrary_sign", "expected_return"),
    "a contrary sign": (with_(expected_return=-0.01), "contrary_sign", "expected_return"),
    "a contrary sign, strong": (with_(action="strong_buy", expected_return=-1e-12), "contrary_sign", "expected_return"),
    "horizon zero": (with_(horizon_s=0), "out_of_range", "horizon_s"),
    "horizon null": (with_(horizon_s=None), "wrong_type", "horizon_s"),
    "valid for a negative time": (with_(valid_for_s=-1), "out_of_range", "valid_for_s"),
    "sentiment above": (with_(sentiment_score=1.5), "out_of_range", "sentiment_score"),
    "sentiment confidence true": (with_(sentiment_confidence=True), "wrong_type", "sentiment_confidence"),
    "signal id with a blank": (with_(signal_id="a b"), "malformed", "signal_id"),
    "two errors, the first field's counts": (with_(risk_score=2, confidence=2), "out_of_range", "confidence"),
}


CASCADE = {"timestamp_ns": NOW, "funding_rate": 0.001}
OUTCOME = {
    "strategy_id": "momentum",
    "symbol": "BTCUSDT",
    "signal_id": "s1",
    "side": "buy",
    "realized_return": 0.01,
    "timestamp_ns": NOW,
}
POSITIONS = {"portfolio_id": "main", "timestamp_ns": NOW, "quantities": {"BTCUSDT": -0.5}}
CONTROL = {
    "control_id": "c1",
    "kind": "trading_state",
    "payload": {"scope": "symbol:BTCUSDT", "state": "HALTED"},
    "reason": "news",
    "by": "ops",
    "timestamp_ns": NOW,
}
VALUE = {"kind": "portfolio_value", "payload": {"portfolio_id": "main", "value_usd": 5.0}}
WORTHLESS = {"kind": "portfolio_value", "payload": {"portfolio_id": "main", "value_usd": 0}}
SETTINGS = {"base_hash": "0" * 64, "hash": "1" * 64, "tree": {}}
ENTRY = {"kind": "signal", "headers": [["trace", "AAE="]], "event_time_ns": NOW, "journaled_at_ns": NOW, "value": TEXT}
STEP = {"source_partition": 0, "step": 5, "step_s": 1, "symbols": {"BTCUSDT": [1.0, 2.0, 0.5, 1.5, 10.0, 3]}}
GENESIS = {
    "journal_id": "abcdefg2",
    "partitions": 12,
    "settings": {},
    "settings_hash": "0" * 64,
    "decision_version": 1,
}
GOOD = [
    (TacticalSignal, SIGNAL),
    (CascadeIndicators, CASCADE),
    (TradeOutcome, OUTCOME),
    (TradeOutcome, OUTCOME | {"decision_id": "ABCDEFG2-0-7-main"}),
    (TradeOutcome, OUTCOME | {"decision_id": "ABCDEFG2-0-7-a-b", "portfolio_id": "a-b"}),
    (TradeOutcome, OUTCOME | {"realized_return": 100}),
    (CascadeIndicators, {"timestamp_ns": NOW, "open_interest": 0}),
    (CascadeIndicators, CASCADE | {"liquidation_volume_24h": 1e6, "open_interest": 1e9}),
    (CascadeIndicators, CASCADE | {"funding_rate": -0.25, "oi_change_pct": -1}),
    *[(TacticalSignal, SIGNAL | {"action": word}) for word in ("BUY", "Strong Buy", "strong-sell", "Hold")],
    (TacticalSignal, SIGNAL | {"expected_return": 1, "predicted_volatility": 10}),
    (TacticalSignal, SIGNAL | {"action": "SELL", "expected_return": -1, "predicted_volatility": 1e-6}),
    (TacticalSignal, SIGNAL | {"sentiment_timestamp_ns": NOW + 5 * 10**9}),
    (Positions, POSITIONS),
    (Control, CONTROL),
    (Control, CONTROL | VALUE),
    (Control, CONTROL | {"kind": "settings", "payload": SETTINGS}),
    (Control, CONTROL | {"kind": "rl_mode", "payload": {"mode": "shadow"}}),
    (Entry, ENTRY),
    (Step, STEP),
    (Genesis, GENESIS),
]
BAD_OTHERS = [
    (CascadeIndicators, {"timestamp_ns": NOW}, "missing", "funding_rate"),
    (CascadeIndicators, {"timestamp_ns": NOW, "funding_rate": None}, "missing", "funding_rate"),
    (CascadeIndicators, CASCADE | {"volume_ratio": -1}, "out_of_range", "volume_ratio"),
    (CascadeIndicators, CASCADE | {"onchain_whale_pressure": 2}, "out_of_range", "onchain_whale_pressure"),
    (CascadeIndicators, CASCADE | {"funding_interval_hours": 0}, "out_of_range", "funding_interval_hours"),
    (CascadeIndicators, CASCADE | {"symbol": "*"}, "malformed", "symbol"),
    (CascadeIndicators, CASCADE | {"oi_change_pct": "-3%"}, "wrong_type", "oi_change_pct"),
    (CascadeIndicators, CASCADE | {"funding_rate": 5}, "out_of_range", "funding_rate"),
    (CascadeIndicators, CASCADE | {"funding_rate": -0.26}, "out_of_range", "funding_rate"),
    (CascadeIndicators, CASCADE | {"oi_change_pct": -2}, "out_of_range", "oi_change_pct"),
    (CascadeIndicators, CASCADE | {"symbol": None}, "wrong_type", "symbol"),
    (
        CascadeIndicators,
        CASCADE | {"liquidation_volume_24h": 1e6, "open_interest": 0},
        "inconsistent",
        "open_interest",
    ),
    (TradeOutcome, OUTCOME | {"realized_return": 900}, "out_of_range", "realized_return"),
    (TradeOutcome, OUTCOME | {"decision_id": "ABCDEFG2-0-7-other"}, "inconsistent", "decision_id"),
    (TradeOutcome, OUTCOME | {"signal_id": None}, "missing", "decision_id"),
    (TradeOutcome, OUTCOME | {"side": True}, "wrong_type", "side"),
    (TradeOutcome, OUTCOME | {"side": 1.0}, "wrong_type", "side"),
    (TradeOutcome, OUTCOME | {"side": 0}, "unknown_value", "side"),
    (TradeOutcome, OUTCOME | {"side": "up"}, "unknown_value", "side"),
    (TradeOutcome, OUTCOME | {"realized_return": -1.1}, "out_of_range", "realized_return"),
    (TradeOutcome, OUTCOME | {"holding_s": -1}, "out_of_range", "holding_s"),
    (TradeOutcome, OUTCOME | {"decision_id": "x" * 129}, "malformed", "decision_id"),
    (Positions, POSITIONS | {"equity": 0}, "out_of_range", "equity"),
    (Positions, POSITIONS | {"quantities": []}, "wrong_type", "quantities"),
    (Positions, POSITIONS | {"quantities": {"BTCUSDT": "1"}}, "wrong_type", "quantities.BTCUSDT"),
    (Positions, POSITIONS | {"quantities": {"B T": 1}}, "malformed", "quantities.B T.[key]"),
    (Control, CONTROL | {"kind": "stop"}, "unknown_value", "kind"),
    (Control, CONTROL | {"payload": "HALTED"}, "wrong_type", "payload"),
    (Control, CONTROL | {"payload": {"scope": "everything", "state": "HALTED"}}, "malformed", "payload.scope"),
    (Control, CONTROL | {"payload": {"scope": "all", "state": "halted"}}, "unknown_value", "payload.state"),
    (Control, CONTROL | {"payload": {"scope": "all"}}, "missing", "payload.state"),
    (Control, CONTROL | {"kind": "portfolio_value"}, "missing", "payload.portfolio_id"),
    (
        Control,
        CONTROL | VALUE | {"payload": {"portfolio_id": "m", "value_usd": 0}},
        "out_of_range",
        "payload.value_usd",
    ),
    (Control, CONTROL | {"reason": "x" * 513}, "malformed", "reason"),
    (Control, CONTROL | {"reason": ""}, "malformed", "reason"),
    (Control, CONTROL | {"reason": " \n"}, "malformed", "reason"),
    (Control, CONTROL | {"by": ""}, "malformed", "by"),
    (Control, {name: text for name, text in CONTROL.items() if name != "by"}, "missing", "by"),
    (Entry, ENTRY | {"kind": "other"}, "unknown_value", "kind"),
    (Entry, ENTRY | {"source": {"topic": "signals"}}, "missing", "source.epoch"),
    (Step, STEP | {"symbols": {"BTCUSDT": [1.0, 2.0]}}, "missing", "symbols.BTCUSDT.2"),
    (Step, STEP | {"symbols": {"BTCUSDT": [1.0, 2.0, 0.5, "1.5", 1, 1]}}, "wrong_type", "symbols.BTCUSDT.3"),
    (Entry, ENTRY | {"headers": [["a", 1]]}, "wrong_type", "headers.0.1"),
    (Step, STEP | {"step_s": 0}, "out_of_range", "step_s"),
    (Genesis, GENESIS | {"journal_id": "0"}, "malformed", "journal_id"),
    (Genesis, GENESIS | {"partitions": 0}, "out_of_range", "partitions"),
]
TICK = {"symbol": "BTCUSDT", "price": 50_000.0, "timestamp_ns": NOW}
BAD_PRICES = [
    (TICK | {"price": 0}, "out_of_range", "price"),
    (TICK | {"price": -1}, "out_of_range", "price"),
    (TICK | {"price": 1e300}, "out_of_range", "price"),
    (TICK | {"price": "50000"}, "wrong_type", "price"),
    (TICK | {"volume": -1}, "out_of_range", "volume"),
    (TICK | {"low": 50_001.0}, "inconsistent", "price"),
    (TICK | {"high": 49_999.0}, "inconsistent", "price"),
    (TICK | {"low": 1e-18}, "inconsistent", "low"),
    (TICK | {"high": 1e14}, "inconsistent", "high"),
    ({"ticks": [TICK, TICK | {"low": 1e-18}]}, "inconsistent", "ticks[1].low"),
    (TICK | {"ticks": [TICK]}, "inconsistent", "ticks"),
    (TICK | {"timestamp_ns": 1_735_689_600_000}, "timestamp_unit", "timestamp_ns"),
    ({"ticks": []}, "out_of_range", "ticks"),
    ({"ticks": TICK}, "wrong_type", "ticks"),
    ({"ticks": [TICK, TICK | {"price": 0}]}, "out_of_range", "ticks[1].price"),
    ({"ticks": [TICK, TICK | {"low": 60_000.0}]}, "inconsistent", "ticks[1].price"),
    ({"ticks": [TICK] * 10_001}, "out_of_range", "ticks"),
    ({"ticks": [{}]}, "missing", "ticks[0].symbol"),
    ({}, "missing", "symbol"),
]
