"""Every setting acts: changing it changes what comes out.

A decision setting is changed as an operator does it, by a `control` record that the journal carries; then a story is
played on the Driver, and its allocations are compared with those of the same story without the change. The tables are
complete: a setting without a row fails.
"""

import asyncio
import logging
import re
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from certificates import Authority
from faust.auth import SSLCredentials
from worlds import PRICES, START_NS, TRUSTING, Driver, answer, asked, control, priced, signal, targets, tick, with_

from config.diff import leaves
from config.load import Loaded
from config.policy import TensorNames
from config.settings import Settings, worker_tree
from config.watch import FileChange
from engines.parameters import DecisionParams, tree_hash
from schemas.errors import ConfigurationException
from streams.kafka.journal_origin import Origin
from streams.kafka.login import connect
from streams.kafka.topic_check import Cluster
from streams.processing.memory_cluster import Stored
from streams.worker.hot_reload import NOT_LIVE
from streams.worker.worker import Worker

Story = Callable[[Driver], None]
HOUR_S = 3600


# -- stories ---------------------------------------------------------------------------------------------------------
def claim(driver, pause_s=1.0, **given):
    """Send one signal of a size that no cap binds."""
    fields = signal(driver.now_ns, **{"expected_return": 0.004, "valid_for_s": 86_400, **given})
    driver.publish("signals", {name: value for name, value in fields.items() if value is not None})
    driver.advance(pause_s)


def price(driver, symbol="BTC-USD", factor=1.0, **given):
    driver.publish("prices", tick(driver.now_ns, symbol, PRICES[symbol] * factor, **given), key=symbol.encode())
    driver.advance(2.0)


def settle(driver, strategy, signal_id, realised, symbol="BTC-USD"):
    """Send what came of a long."""
    outcome = {
        "strategy_id": strategy,
        "symbol": symbol,
        "signal_id": signal_id,
        "side": 1,
        "realized_return": realised,
        "holding_s": 0.5,
        "timestamp_ns": driver.now_ns,
    }
    driver.publish("outcomes", outcome)
    driver.advance(1.0)


def one(**given) -> Story:
    """Prices, then one signal; `given` goes into it, None leaves a field away."""

    def story(driver):
        priced(driver)
        fields = signal(driver.now_ns, **{"expected_return": 0.004, **given})
        driver.publish("signals", {name: value for name, value in fields.items() if value is not None})
        driver.run()

    return story


def learning(outcomes, claims=(0.01,)) -> Story:
    """Claims and what came of them, in turn; then one more claim."""

    def story(driver):
        priced(driver)
        for number, realised in enumerate(outcomes):
            claimed = claims[number % len(claims)]
            claim(driver, signal_id=f"s-{number}", expected_return=claimed)
            settle(driver, "momentum", f"s-{number}", realised)
        price(driver)
        claim(driver, signal_id="last", expected_return=claims[-1])

    return story


CALM = tuple(0.008 + 0.006 * (-1) ** n for n in range(24))
WILD = tuple((0.012, -0.03, 0.05, -0.002, 0.3, 0.01, -0.06)[n % 7] for n in range(28))
TURNING = (*(0.0022,) * 8, *(0.0016,) * 7)
LOSING = (-0.004,) * 8


def elsewhere(driver):
    """Claims on two coins and what came of them; then one on a third."""
    priced(driver)
    for number in range(6):
        for symbol in ("BTC-USD", "ETH-USD"):
            name = f"{symbol}-{number}"
            claim(driver, symbol=symbol, signal_id=name)
            settle(driver, "momentum", name, 0.004 + 0.002 * (-1) ** number, symbol)
    price(driver, "SOL-USD")
    claim(driver, symbol="SOL-USD", signal_id="last")


def stirred(driver):
    """Bars of a minute that move by a percent, then a claim of a tenth of their volatility."""
    for number in range(40):
        driver.advance(56.0)
        price(driver, factor=1.0 + 0.01 * (-1) ** number)
        driver.advance(2.0)
    claim(driver, expected_return=0.05, horizon_s=600, predicted_volatility=0.03)


def repeated(driver):
    """Claims that turn once and then stay, an hour apart."""
    priced(driver)
    for number in range(5):
        side = {"action": "sell", "expected_return": -0.004} if number == 1 else {}
        price(driver)
        claim(driver, HOUR_S, signal_id=f"s-{number}", **side)


def later(driver):
    """A claim that does not say how long it is valid, and its end."""
    priced(driver)
    claim(driver, valid_for_s=None)
    driver.advance(1.2 * HOUR_S)


def contradicted(driver):
    """Bars of a minute that move by half a percent, then an outcome of a bit more than prices allow."""
    for number in range(40):
        driver.advance(56.0)
        price(driver, factor=1.0 + 0.0005 * (-1) ** number)
        driver.advance(2.0)
    claim(driver, signal_id="s-1")
    settle(driver, "momentum", "s-1", 0.0205)
    settle(driver, "momentum", "s-1", 0.2)
    claim(driver, signal_id="s-2")
    settle(driver, "momentum", "s-2", 0.2)
    claim(driver, signal_id="last")


def votes(regime, count, every_s) -> Story:
    """Signals that all see one regime, so many, so far apart."""

    def story(driver):
        for number in range(count):
            price(driver)
            claim(driver, every_s, signal_id=f"s-{number}", regime=regime)

    return story


def read(after_s=0.0, **readings) -> Story:
    """Readings of one symbol, then after a while a signal on it."""

    def story(driver):
        priced(driver)
        known = {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, **readings}
        driver.publish("cascade-indicators", known)
        driver.advance(after_s)
        price(driver)
        claim(driver, expected_return=0.006)

    return story


def crash(fall, volume) -> Story:
    """Forty bars of a minute that hardly move, a signal, then a bar that falls on volume."""

    def story(driver):
        for number in range(40):
            driver.advance(56.0)
            price(driver, factor=1.0 + 0.001 * (-1) ** number * (1 + number % 3), volume=1.0)
            driver.advance(2.0)
        claim(driver)
        driver.advance(56.0)
        price(driver, factor=fall, volume=volume)
        driver.advance(30.0)

    return story


def moving(driver):
    """Bars of a minute, one of them wild; then a signal that claims no volatility."""
    for number in range(40):
        driver.advance(26.0)
        price(driver, factor=1.02 if number == 38 else 1.0 + 0.002 * (-1) ** (number // 2) * (1 + number % 5))
        driver.advance(2.0)
    fields = signal(driver.now_ns, expected_return=0.01, horizon_s=60)
    del fields["predicted_volatility"]
    driver.publish("signals", fields)
    driver.run()


def jumps(*moves) -> Story:
    """After each pause a price that is so many times the first one; then a signal, sized at the price in force."""

    def story(driver):
        priced(driver)
        for pause_s, factor in moves:
            driver.advance(pause_s)
            price(driver, factor=factor)
        claim(driver)

    return story


def leapt(driver):
    """A price that trebles and stays, and then a claim: the symbol may only be reduced."""
    jumps((1.0, 3.0), (62.0, 3.0), (1.0, 3.0), (62.0, 3.0), (1.0, 3.0))(driver)


def unreported(driver):
    """A report, a claim that changes the target, and a minute without another report."""
    reports()(driver)
    driver.advance(60.0)
    price(driver, symbol="SOL-USD")


def confirmed_at_ingest(driver):
    """Hours that move by 2 percent, then a step with two ticks that agree: only sizing knows the volatility."""
    jumps((3_600.0, 1.02), (3_600.0, 1.04), (3_600.0, 1.06), (3_600.0, 1.08))(driver)
    driver.advance(1_800.0)
    for later_ns in (0, 1_000_000):
        far = tick(driver.now_ns + later_ns, "BTC-USD", PRICES["BTC-USD"] * 1.5)
        driver.publish("prices", far, key=b"BTC-USD")
    driver.advance(2.0)
    claim(driver, signal_id="far")


def many(strategies, symbols) -> Story:
    """A large claim of each strategy on each symbol."""

    def story(driver):
        priced(driver)
        for strategy in strategies:
            for symbol in symbols:
                name = f"{strategy}-{symbol}"
                claim(driver, strategy_id=strategy, symbol=symbol, signal_id=name, expected_return=0.02)

    return story


def fallen(driver):
    """A claim after a fall of a tenth from the peak."""
    priced(driver)
    for number, value in enumerate((100_000.0, 90_000.0)):
        payload = {"portfolio_id": "main", "value_usd": value}
        driver.publish("control", control(driver.now_ns, "portfolio_value", payload, f"v-{number}"))
        driver.run()
    claim(driver)


def again(driver):
    """A claim, and a slightly smaller one."""
    priced(driver)
    claim(driver, signal_id="s-1", risk_score=0.2)
    claim(driver, signal_id="s-2", risk_score=0.25)


def reports(**quantities) -> Story:
    """A claim, a report of positions ten seconds later, and another claim."""

    def story(driver):
        priced(driver)
        claim(driver, signal_id="s-1")
        driver.advance(10.0)
        known = {name.replace("_", "-"): quantity for name, quantity in quantities.items()}
        driver.publish("positions", {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": known})
        driver.advance(1.0)
        claim(driver, signal_id="s-2", symbol="SOL-USD")

    return story


def lonely(driver):
    """A claim on one coin, whose prices then stop; and one on another coin, whose prices go on."""
    priced(driver)
    claim(driver, signal_id="s-1")
    driver.advance(200.0)
    price(driver, "ETH-USD")
    claim(driver, signal_id="s-2", symbol="ETH-USD")


def rising(driver):
    """A claim that a cap cuts, then a rise of two percent."""
    priced(driver)
    claim(driver, expected_return=0.02)
    price(driver, factor=1.02)


def moody(age_s, score=0.8) -> Story:
    def story(driver):
        driver.advance(7 * HOUR_S)
        priced(driver)
        claim(driver, sentiment_score=score, sentiment_timestamp_ns=driver.now_ns - int(age_s * 1e9))

    return story


def rivals(driver, outcomes=(0.02, -0.02), rounds=12, pause_s=1.0):
    """Two strategies claim the same of one symbol, and one of them is right; then a third one comes too."""
    priced(driver)
    names = dict(zip(("carry", "momentum"), outcomes, strict=True))
    for number in range(rounds):
        price(driver)
        for name in names:
            size = 0.004 + 0.0005 * (number % 3) * (1 if name == "carry" else -1)
            claim(driver, strategy_id=name, signal_id=f"{name}-{number}", expected_return=size, valid_for_s=600)
        for name, realised in names.items():
            settle(driver, name, f"{name}-{number}", realised)
    driver.advance(pause_s)
    price(driver)
    claim(driver, strategy_id="carry", signal_id="carry-last")
    claim(driver, strategy_id="value", signal_id="value")


def silent(driver):
    """The same, and one of the two has been silent for three hours when the third one comes."""
    rivals(driver, pause_s=3 * HOUR_S)


def together(bars=60, silence_s=0.0) -> Story:
    """Bars of a minute in which coins mostly move together, one of them wild; then a claim on each of two."""

    def story(driver):
        for number in range(bars):
            shared = 0.01 * ((number * 7 % 11) - 5) / 5
            for place, symbol in enumerate(ALL):
                own = 0.003 * ((number * (place + 3) % 7) - 3) / 3
                wild = 0.012 if number == 30 and symbol == "ETH-USD" else 0.0
                tick_ = tick(driver.now_ns, symbol, PRICES[symbol] * (1.0 + shared + own + wild))
                driver.publish("prices", tick_, key=symbol.encode())
            driver.advance(58.0)
        driver.advance(silence_s)
        for _ in range(3):
            price(driver)
            driver.advance(60.0)
        for symbol in ALL:
            price(driver, symbol)
        for symbol in ("BTC-USD", "ETH-USD"):
            claim(driver, symbol=symbol, signal_id=symbol)

    return story


def advised(right=60, wrong=0, pause_s=0.0, confidence=0.9) -> Story:
    """Claims that win and lose in turn, and a policy that knows it, then mistakes it; then one more, answered late.

    Each claim is due before the next: it is a window of the gate by itself.
    """

    def story(driver):
        priced(driver)
        for number in range(right + wrong):
            price(driver)
            claim(driver, signal_id=f"s-{number}", valid_for_s=60, horizon_s=2)
            realised = 0.005 + 0.02 * (-1) ** number
            for request in asked(driver)[-1:]:
                answer(driver, request, (15.0 if number < right else -15.0) * realised, confidence)
            settle(driver, "momentum", f"s-{number}", realised)
        price(driver)
        claim(driver, signal_id="last")
        driver.advance(pause_s)
        for request in asked(driver)[-1:]:
            answer(driver, request, -0.3, confidence)

    return story


# -- the table -------------------------------------------------------------------------------------------------------
class Row(NamedTuple):
    """What a key is changed to, and the story that shows it; `base` is in force before."""

    value: Any
    story: Story
    base: tuple[tuple[str, Any], ...] = ()


OFF = False
SMALL_BARS = (("market.bar_s", 60),)
WIDE = (
    ("risk_management.max_position_pct", 1.0),
    ("risk_management.max_strategy_allocation", 3.0),
    ("risk_management.max_portfolio_allocation", 3.0),
    ("validation_criteria.max_position_usd", 1e9),
)
ASKED = (*WIDE, ("rl.enabled", True), ("rl.mode", "live"), ("rl.gate.bound", 0.01), ("rl.gate.alpha", 0.5))
ALL = ("BTC-USD", "ETH-USD", "SOL-USD")
turned = advised(wrong=30)
plain, tight, lean = one(), one(expected_return=0.01, predicted_volatility=0.005), one(predicted_volatility=None)
whales, calm, wild = read(onchain_whale_pressure=0.84), learning(CALM, (0.004, 0.012)), learning(WILD)
turning = learning(TURNING, (0.006,))
falling, kelly = crash(0.9885, 9.0), "position_sizing.bayesian_kelly"
conformal, regimes = "position_sizing.conformal_prediction", "position_sizing.regime_adjustment"
thresholds, weights = "risk_management.cascade_thresholds", "risk_management.cascade_weights"
levels = "risk_management.cascade_levels"
ensemble, correlation = "position_sizing.ensemble", "risk_management.correlation"
SEEN = ((f"{ensemble}.correlation_samples", 2),)
FAST = ((f"{ensemble}.horizon_outcomes", 1), (f"{ensemble}.fixed_share", 0.0))
YOUNG = ((f"{levels}.max_reading_age_s", 60.0),)

STAYING = (("market.collar.probation_s", 0.0),)
HOURS = (("market.bar_s", 3_600), ("validation_criteria.max_price_age_s", 1e6))
COLLAR = {
    "min_reach": Row(0.3, jumps((1.0, 1.2))),
    "bar_reach": Row(0.1, jumps((1_800.0, 1.2)), HOURS),
    "bar_sd": Row(0.0, confirmed_at_ingest, HOURS),
    "max_age_bars": Row(0.1, jumps((3_600.0, 1.2)), HOURS),
    "max_ratio": Row(1.2, jumps((3_600.0, 1.3)), HOURS),
    "agreement": Row(0.01, jumps((1.0, 1.3), (1.0, 1.25))),
    "doubt_ratio": Row(1.2, jumps((1.0, 1.3), (1.0, 1.3)), STAYING),
    "doubt_s": Row(2.0, jumps((1.0, 3.0), (2.0, 3.0), (1.0, 3.0), (1.0, 3.0)), STAYING),
    "probation_s": Row(0.0, leapt),
}

TABLE: dict[str, Row] = {
    f"{kelly}.kelly_fraction": Row(0.1, plain),
    f"{kelly}.min_win_rate": Row(0.6, plain),
    f"{kelly}.max_prior_weight": Row(0.1, plain),
    f"{kelly}.max_claim": Row(0.1, plain),
    f"{kelly}.max_usual_claims": Row(1.0, one(expected_return=0.006)),
    f"{kelly}.first_claim": Row(0.1, plain),
    f"{kelly}.max_volatility_ratio": Row(1.5, stirred, SMALL_BARS),
    f"{kelly}.pool_spread": Row(3.0, elsewhere),
    f"{kelly}.pool_correlation": Row(0.0, elsewhere),
    f"{kelly}.guard_outcomes": Row(2.0, turning, ((f"{kelly}.guard_sd", 0.0),)),
    f"{kelly}.guard_sd": Row(0.0, turning),
    f"{kelly}.min_edge": Row(0.5, plain),
    f"{kelly}.prior_strength": Row(10.0, plain),
    f"{kelly}.prior_calibration": Row(0.9, plain),
    f"{kelly}.prior_shape": Row(50.0, calm),
    f"{kelly}.prior_variance": Row(2.0, plain),
    f"{kelly}.effective_outcomes": Row(5.0, calm),
    f"{kelly}.renewal_decay": Row(0.5, repeated),
    f"{kelly}.claim_decay": Row(0.5, calm),
    f"{kelly}.winsor_sd": Row(1.0, wild),
    f"{kelly}.win_prior": Row(1.0, learning(LOSING, (0.03,)), ((f"{kelly}.min_win_rate", 0.45),)),
    f"{kelly}.estimation_shrink": Row(OFF, plain),
    f"{conformal}.coverage": Row(0.6, wild),
    f"{conformal}.window_size": Row(10, wild, ((f"{conformal}.min_samples", 5),)),
    f"{conformal}.min_samples": Row(200, wild),
    f"{conformal}.adaptation_rate": Row(0.3, wild),
    f"{conformal}.scale_decay": Row(0.3, wild),
    f"{conformal}.winsor_scale": Row(1.0, wild),
    f"{conformal}.calibration_slack": Row(5.0, wild),
    f"{conformal}.max_inflation": Row(1.0, wild),
    f"{regimes}.hysteresis_periods": Row(1, votes("high_volatility", 1, 1.0)),
    f"{regimes}.regime_period_s": Row(1, votes("high_volatility", 3, 3.0)),
    f"{regimes}.regime_aliases": Row({"storm": "crisis"}, one(regime="storm")),
    f"{regimes}.multipliers.trending_up": Row(0.5, votes("trending_up", 3, 60.0)),
    f"{regimes}.multipliers.trending_down": Row(0.5, votes("trending_down", 3, 60.0)),
    f"{regimes}.multipliers.ranging": Row(0.5, plain),
    f"{regimes}.multipliers.high_volatility": Row(0.5, votes("high_volatility", 3, 60.0)),
    f"{regimes}.multipliers.crisis": Row(0.5, votes("crisis", 1, 1.0)),
    f"{ensemble}.prior_correlation": Row(0.1, rivals),
    f"{ensemble}.correlation_samples": Row(2, rivals),
    f"{ensemble}.correlation_decay": Row(0.5, lambda driver: rivals(driver, (0.006, 0.004)), SEEN),
    f"{ensemble}.horizon_outcomes": Row(20, rivals),
    f"{ensemble}.fixed_share": Row(0.2, rivals),
    f"{ensemble}.weight_floor": Row(0.0, lambda driver: rivals(driver, rounds=20), FAST),
    f"{ensemble}.reference_outcomes": Row(2.0, rivals),
    f"{ensemble}.inactive_after_s": Row(3_600, silent),
    "position_sizing.risk_score_weight": Row(1.0, plain),
    "position_sizing.costs.fee_ratio": Row(0.0001, plain),
    "position_sizing.costs.slippage_ratio": Row(0.0002, plain),
    "position_sizing.defaults.expected_sharpe": Row(0.3, one(expected_return=None)),
    "position_sizing.defaults.validity_horizons": Row(1.0, later),
    "position_sizing.defaults.volatility": Row(0.05, lean),
    "position_sizing.stop_loss_ratio": Row(1.0, tight),
    "position_sizing.lots": Row({"BTC-USD": 0.01}, plain),
    "position_sizing.contracts": Row({"BTC-USD": {"size": 0.01}}, plain),
    "position_sizing.drawdown_bound": Row({"alpha": 0.7, "beta": 0.01}, plain),
    "position_sizing.band_ratio": Row(0.0, again),
    "risk_management.max_position_pct": Row(0.03, plain),
    "risk_management.max_strategy_allocation": Row(0.2, many(("momentum",), ALL)),
    "risk_management.max_portfolio_allocation": Row(0.2, many(("momentum", "carry"), ALL)),
    "risk_management.max_leverage": Row(2.0, many(("momentum",), ALL), WIDE),
    "risk_management.cap_tolerance": Row(0.05, rising),
    "risk_management.max_drawdown_pct": Row(0.15, fallen),
    "risk_management.allow_short": Row(OFF, one(action="sell", expected_return=-0.004)),
    f"{correlation}.decay": Row(0.94, together(), SMALL_BARS),
    f"{correlation}.shrink": Row(1.0, together(), SMALL_BARS),
    f"{correlation}.alert_threshold": Row(0.99, together(), SMALL_BARS),
    f"{correlation}.clip": Row(0.5, together(), SMALL_BARS),
    f"{correlation}.inactive_after_s": Row(3_600, together(silence_s=2 * HOUR_S), SMALL_BARS),
    "risk_management.drift_alert_threshold": Row(0.01, rivals),
    f"{thresholds}.funding_rate": Row(0.001, read(funding_rate=0.002)),
    f"{thresholds}.oi_drop": Row(0.03, read(oi_change_pct=-0.06)),
    f"{thresholds}.volume_spike": Row(50.0, falling, SMALL_BARS),
    f"{thresholds}.whale_pressure": Row(0.5, read(onchain_whale_pressure=0.6)),
    f"{thresholds}.netflow_zscore": Row(0.8, read(exchange_netflow_zscore=1.2)),
    f"{thresholds}.price": Row(1.0, crash(0.985, 0.0), SMALL_BARS),
    f"{thresholds}.liquidations": Row(0.005, read(liquidation_volume_24h=8e6, open_interest=1e9)),
    f"{weights}.funding_rate": Row(0.0, read(funding_rate=0.004)),
    f"{weights}.oi_drop": Row(0.0, read(oi_change_pct=-0.13)),
    f"{weights}.volume_spike": Row(0.0, falling, SMALL_BARS),
    f"{weights}.whale_pressure": Row(0.0, whales),
    f"{weights}.netflow_zscore": Row(0.0, read(exchange_netflow_zscore=3.0)),
    f"{weights}.price": Row(5.0, falling, SMALL_BARS),
    f"{weights}.liquidations": Row(0.0, read(liquidation_volume_24h=13e6, open_interest=1e9)),
    f"{levels}.reduce_50": Row(0.55, read(onchain_whale_pressure=0.7)),
    f"{levels}.reduce_75": Row(0.7, whales),
    f"{levels}.exit": Row(0.95, read(onchain_whale_pressure=1.0, oi_change_pct=-0.2)),
    f"{levels}.margin": Row(0.0, read(2.5 * HOUR_S, oi_change_pct=-0.12), YOUNG),
    f"{levels}.half_life_s": Row(
        600.0, read(2 * HOUR_S, oi_change_pct=-0.12), ((f"{levels}.max_reading_age_s", 60.0),)
    ),
    f"{levels}.volume_min_z": Row(50.0, falling, SMALL_BARS),
    f"{levels}.max_reading_age_s": Row(60.0, read(20 * HOUR_S, oi_change_pct=-0.12)),
    "sentiment.enabled": Row(OFF, moody(0.0)),
    "sentiment.weight": Row(0.5, moody(0.0)),
    "sentiment.upper_threshold": Row(0.9, moody(0.0)),
    "sentiment.half_life_s": Row(600.0, moody(6 * HOUR_S)),
    "market.step_s": Row(60, plain),
    "market.bar_s": Row(120, moving, SMALL_BARS),
    "market.volatility_decay": Row(0.5, moving, SMALL_BARS),
    "market.volatility_clip": Row(0.5, moving, SMALL_BARS),
    "market.warmup_bars": Row(1_000, falling, SMALL_BARS),
    **{f"market.collar.{key}": row for key, row in COLLAR.items()},
    "validation_criteria.min_position_usd": Row(20_000.0, plain),
    "validation_criteria.max_position_usd": Row(1_000.0, plain),
    "validation_criteria.max_price_age_s": Row(0.5, plain),
    "validation_criteria.outcome_sd": Row(0.1, contradicted, SMALL_BARS),
    "validation_criteria.outcome_slack": Row(1.0, contradicted, SMALL_BARS),
    "portfolio.initial_value_usd": Row(50_000.0, plain),
    "portfolio.settle_s": Row(5.0, reports(BTC_USD=0.16)),
    "portfolio.report_due_s": Row(20.0, unreported),
    "portfolio.stale_price": Row("flat", lonely),
    "portfolio.allowed_strategies": Row({"main": ["carry"]}, plain),
    "portfolio.unmanaged": Row("flatten", reports(ETH_USD=1.0)),
    "rl.enabled": Row(OFF, advised(), ASKED),
    "rl.mode": Row("shadow", advised(), ASKED),
    "rl.max_nudge": Row(0.1, advised(), ASKED),
    "rl.min_confidence": Row(0.95, advised(), ASKED),
    "rl.deadline_s": Row(0.5, advised(), ASKED),
    "rl.gate.bound": Row(1.0, advised(), ASKED),
    "rl.gate.alpha": Row(1e-9, advised(), ASKED),
    "rl.gate.max_bet": Row(0.001, advised(), ASKED),
    "rl.gate.cusum_slack": Row(5.0, turned, ASKED),
    "rl.gate.cusum_threshold": Row(500.0, turned, ASKED),
}


def change(driver: Driver, wanted: DecisionParams, control_id: str = "change") -> None:
    """Change settings as an operator does, and see that the journal took them."""
    driver.run()
    base = driver.processors["journal", 0][0].state.params
    payload = {"base_hash": tree_hash(base), "hash": tree_hash(wanted), "tree": wanted.model_dump()}
    driver.publish("control", control(driver.now_ns, "settings", payload, control_id))
    driver.run()
    answers = [orjson.loads(record.value) for record in driver.read("alerts")]
    results = [each["result"] for each in answers if each["subject"] == control_id]
    assert results == ["applied"] * driver.partitions


def essence(driver: Driver) -> list[Any]:
    """Return what a change of settings has to change: sizes, stage by stage, quantities, drift, and what alerts."""
    decided = [
        (
            fields["trigger"],
            fields["targets"],
            [(row["stage"], row["after_cents"]) for row in fields["waterfall"]],
            [(row["stage"], row["net_cents"]) for row in fields["portfolio_waterfall"]],
            fields["drift"],
        )
        for fields in driver.allocations()
    ]
    alerts = [orjson.loads(record.value) for record in driver.read("alerts")]
    return [*decided, *((each["kind"], each["subject"]) for each in alerts if each["kind"] != "control_applied")]


@cache
def without(story: Story, base: tuple[tuple[str, Any], ...]) -> list[Any]:
    driver = Driver(with_(TRUSTING, *base), partitions=1)
    driver.run()
    story(driver)
    return essence(driver)


@pytest.mark.parametrize("key", TABLE)
def test_a_decision_setting_acts_once_the_journal_has_it(key):
    row = TABLE[key]
    params = with_(TRUSTING, *row.base)
    driver = Driver(params, partitions=1)
    change(driver, with_(params, (key, row.value)))
    row.story(driver)
    changed = essence(driver)
    assert changed != without(row.story, row.base), f"{key} = {row.value!r} changes no allocation"


def test_no_decision_setting_is_left_out():
    tree = DecisionParams().model_dump()
    assert sorted(TABLE) == sorted(leaves(tree))


def test_a_change_acts_at_once_on_what_is_held():
    driver = priced(Driver(partitions=1))
    claim(driver)
    before = driver.allocations()
    change(driver, with_(TRUSTING, ("risk_management.max_position_pct", 0.03)))
    after = driver.allocations()
    assert len(after) == len(before) + 1
    assert after[-1]["trigger"] == {"id": "change", "kind": "settings"}
    assert targets(after[-1]) == {"BTC-USD": 2_673.0}, "99 % of the new cap"


def test_the_width_of_a_step_can_change_while_ticks_come():
    driver = priced(Driver(partitions=1))
    change(driver, with_(TRUSTING, ("market.step_s", 10)))
    driver.advance(10.0)
    price(driver)
    driver.advance(12.0)
    widths = [
        orjson.loads(entry["value"])["step_s"]
        for entry in (orjson.loads(record.value) for record in driver.read("journal"))
        if entry["kind"] == "step"
    ]
    assert widths[-1] == 10
    claim(driver)
    assert driver.allocations()[-1]["position_size_usd"] > 0


# -- worker sections -------------------------------------------------------------------------------------------------
class Skipping(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next thing to do: nobody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        select = self._selector.select

        def jump(timeout: float | None = None) -> Any:
            self.skipped += timeout or 0.0
            return select(0)

        self._selector.select = jump

    def time(self) -> float:
        return super().time() + self.skipped


class Looks:
    """A watch that finds nothing, and counts how often it was asked."""

    loaded, refused = Loaded(Settings(), {}), None

    def __init__(self) -> None:
        self.count = 0

    def poll(self) -> None:
        self.count += 1


def worker(settings: Settings, watch: Any = None) -> Worker:
    began = Origin("WORKER22", settings.topics.partitions, settings.decision(), "0")
    way = connect(settings, ENVIRONMENT)
    return Worker(settings, way, clock=lambda: 0, embedded=True, began=began, epochs_known={}, watch=watch)


ENVIRONMENT = {"PASSWORD": "of the user", "ANOTHER": "of another user"}


@cache
def secured(**changes: Any) -> Settings:
    """Return settings that use every key of kafka.security that they can at once, but for the changes given."""
    folder = Path(tempfile.mkdtemp())
    authority = Authority(folder)
    pair = authority.vouch("worker", password="of the key")
    (folder / "password").write_text("of the key")
    security = {
        "protocol": "SASL_SSL",
        "ca_file": str(authority.file),
        "certificate_file": str(pair.certificate),
        "key_file": str(pair.key),
        "key_password_file": str(folder / "password"),
        "username": "worker",
        "password_env": "PASSWORD",
    }
    return Settings.model_validate({"kafka": {"security": security | changes}})


def base_of(key: str) -> Settings:
    """Return settings in which a key may be changed alone."""
    bases = {
        "kafka.security.key_password_env": secured(key_password_env="PASSWORD", key_password_file=None),
        "kafka.security.password_file": secured(password_env=None, password_file=__file__),
    }
    nowhere = ("rl.endpoint", "http://127.0.0.1:9/predict")
    if key == "rl.seed":
        return with_(Settings(), ("rl.protocol", "mock"))
    if key.startswith("rl."):
        return with_(
            Settings(),
            nowhere,
            ("rl.protocol", "oip" if key == "rl.model" or key.startswith("rl.tensors.") else "predict"),
        )
    login = key.startswith("kafka.security.") and not key.endswith(".protocol")
    return bases.get(key) or (secured() if login else Settings())


def login(settings: Settings) -> Any:
    """Return what Faust gives its clients to log in with, or why there is nothing to give."""
    try:
        given = worker(settings).app.conf.broker_credentials
    except ConfigurationException as error:
        return str(error)
    if given is None:
        return None
    context = given.context if isinstance(given, SSLCredentials) else given.ssl_context
    told = [getattr(given, name, None) for name in ("protocol", "mechanism", "username", "password")]
    return told, {each["serialNumber"] for each in context.get_ca_certs()}


def app(name: str) -> Callable[[Settings], Any]:
    return lambda settings: getattr(worker(settings).app.conf, name)


def processor(settings: Settings) -> Any:
    """Return what a partition's processor was told: entries and time between two checkpoints."""
    made = worker(settings).owners[-1]._make(0)
    return made._entries_max, made._interval_ns


def listeners(settings: Settings) -> Any:
    return worker(settings).pages.places


def looks_in_a_minute(settings: Settings) -> int:
    watch = Looks()
    built = worker(settings, watch)

    async def minute() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(built.reload.follow(), 60.0)

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(minute())
    return watch.count


def journal_partitions(settings: Settings) -> Any:
    """Return where readings go that all portfolios share."""
    value = orjson.dumps({"timestamp_ns": START_NS, "funding_rate": 0.0})
    built = worker(settings)
    built.clock = lambda: START_NS
    return [send.partition for send in built._entries("cascade-indicators", 0, [Stored(0, None, value)])]


def patience(settings: Settings) -> Any:
    """Return for how long a worker's publisher may wait."""
    return worker(settings).vitals._patience_s()


def tolerance(settings: Settings) -> Any:
    """Return how far behind a partition may be."""
    return worker(settings).vitals._lag_records()


ASKED_HOW: dict[str, Callable[[Worker], Any]] = {
    "rl.protocol": lambda built: type(built.policy.agent.desk.adapter),
    "rl.endpoint": lambda built: built.policy.agent.desk.adapter._link.endpoint,
    "rl.model": lambda built: built.policy.agent.desk.adapter._path,
    **{
        f"rl.tensors.{name}": lambda built: built.policy.agent.desk.adapter._tensors
        for name in TensorNames.model_fields
    },
    "rl.proxy": lambda built: built.policy.agent.desk.adapter._link._proxy,
    "rl.timeout_sec": lambda built: built.policy.agent.desk.timeout_s,
    "rl.max_in_flight": lambda built: built.policy.agent.max_in_flight,
    "rl.seed": lambda built: built.policy.agent.desk.adapter.decide("J-0-1-main", "momentum", "BTC-USD"),
    "rl.token_env": lambda built: built.policy.agent.desk.adapter._link._headers,
    "rl.token_file": lambda built: built.policy.agent.desk.adapter._link._headers,
}
"""Where it is seen how a worker asks the policy."""


def breaks(key: str) -> Callable[[Worker], Any]:
    """Return where it is seen when a worker leaves an endpoint alone."""
    return lambda built: getattr(built.policy.agent.desk.params, key.partition(".")[2])


def policy_table() -> dict[str, tuple[Any, Callable[[Worker], Any]]]:
    values = {
        "rl.protocol": "oip",
        "rl.endpoint": "http://127.0.0.2:9",
        "rl.model": "another",
        **{f"rl.tensors.{name}": "another" for name in TensorNames.model_fields},
        "rl.proxy": "http://127.0.0.2:9",
        "rl.timeout_sec": 7.0,
        "rl.max_in_flight": 7,
        "rl.seed": 7,
        "rl.token_env": "PATH",
        "rl.token_file": secured().kafka.security.key_password_file,
        "circuit_breaker.enabled": OFF,
        "circuit_breaker.mode": "force_open",
        "circuit_breaker.failure_threshold": 7,
        "circuit_breaker.failure_window_sec": 7.0,
        "circuit_breaker.initial_timeout_sec": 7.0,
        "circuit_breaker.backoff_multiplier": 7.0,
        "circuit_breaker.max_timeout_sec": 77.0,
        "circuit_breaker.probe_timeout_sec": 7.0,
        "circuit_breaker.jitter_ratio": 0.7,
        "circuit_breaker.jitter_seed": 7,
    }
    return {key: (value, ASKED_HOW.get(key) or breaks(key)) for key, value in values.items()}


def level_after_a_change(settings: Settings) -> int:
    root = logging.getLogger()
    before = root.level
    try:
        told(worker(Settings()), settings)
        return root.level
    finally:
        root.setLevel(before)


WORKER_TABLE: dict[str, tuple[Any, Callable[[Settings], Any]]] = {
    "kafka.bootstrap_servers": ("127.0.0.2:9092", app("broker")),
    "kafka.fetch_max_wait_ms": (70, lambda settings: worker(settings).app.transport.fetch_max_wait_ms),
    "kafka.session_timeout_s": (30.0, app("broker_session_timeout")),
    "kafka.chunk_records": (7, app("broker_max_poll_records")),
    "kafka.checkpoint_interval_s": (7.0, processor),
    "kafka.checkpoint_entries": (7, processor),
    "kafka.max_ahead_s": (3600.0, lambda settings: worker(settings).context.max_ahead_ns),
    "kafka.data_dir": ("elsewhere", app("datadir")),
    "kafka.security.protocol": ("SSL", login),
    "kafka.security.ca_file": ("elsewhere", login),
    "kafka.security.certificate_file": ("elsewhere", login),
    "kafka.security.key_file": ("elsewhere", login),
    "kafka.security.key_password_env": ("UNSET", login),
    "kafka.security.key_password_file": ("elsewhere", login),
    "kafka.security.mechanism": ("SCRAM-SHA-256", login),
    "kafka.security.username": ("somebody", login),
    "kafka.security.password_env": ("ANOTHER", login),
    "kafka.security.password_file": ("elsewhere", login),
    "topics.prefix": ("other", lambda settings: worker(settings).names.topic("signals")),
    "topics.partitions": (3, journal_partitions),
    "topics.replication": (2, lambda settings: Cluster(5, OFF, {}, {}, settings.topics.replication).replicas),
    "monitoring.metrics_enabled": (OFF, listeners),
    "monitoring.metrics_host": ("127.0.0.2", listeners),
    "monitoring.metrics_port": (9191, listeners),
    "monitoring.web_host": ("127.0.0.2", listeners),
    "monitoring.web_port": (6161, listeners),
    "monitoring.log_level": ("DEBUG", level_after_a_change),
    "monitoring.stuck_after_s": (7.0, patience),
    "monitoring.ready_lag_records": (7, tolerance),
    "hot_reload.enabled": (OFF, looks_in_a_minute),
    "hot_reload.poll_interval_sec": (20.0, looks_in_a_minute),
    **{
        key: (value, lambda settings, seen=seen: seen(worker(settings)))
        for key, (value, seen) in policy_table().items()
    },
}
"""Key → another value, and what it changes of a worker that is built but not started (tests/broker run it)."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("key", WORKER_TABLE)
def test_a_worker_setting_acts(key):
    value, shown = WORKER_TABLE[key]
    assert shown(with_(base_of(key), (key, value))) != shown(base_of(key)), f"{key} = {value!r} changes nothing"


def test_no_worker_setting_is_left_out():
    assert sorted(WORKER_TABLE) == sorted(leaves(worker_tree(Settings())))


# -- worker settings, while it runs ----------------------------------------------------------------------------------
def told(built: Worker, settings: Settings) -> Worker:
    """Let a worker see that its file says something else now; return it."""

    async def change_and_close() -> None:
        await built.reload.changed(FileChange(Loaded(settings, {}), None, (), ()))
        await built.pages.stop()
        await built.policy.stop()

    asyncio.run(change_and_close())
    return built


def running(settings: Settings) -> Worker:
    """Return a worker whose processor of partition 0 is there, though nothing runs."""
    built = worker(settings)
    owner = built.owners[-1]
    owner.processors[0] = owner._make(0)
    return built


def pace(built: Worker) -> Any:
    processors = (built.owners[-1].processors[0], built.owners[-1]._make(1))
    return [(each._entries_max, each._interval_ns) for each in processors]


def fetches(built: Worker) -> Any:
    return built.app.transport.fetch_max_wait_ms, built.app.transport.chunk_records


def places(built: Worker) -> Any:
    return built.pages.places


def looks(built: Worker) -> Any:
    return built.settings.hot_reload


LIVE_TABLE: dict[str, tuple[Any, Callable[[Worker], Any]]] = {
    "kafka.fetch_max_wait_ms": (70, fetches),
    "kafka.chunk_records": (7, fetches),
    "kafka.checkpoint_interval_s": (7.0, pace),
    "kafka.checkpoint_entries": (7, pace),
    "monitoring.metrics_enabled": (OFF, places),
    "monitoring.metrics_host": ("127.0.0.2", places),
    "monitoring.metrics_port": (0, places),
    "monitoring.web_host": ("127.0.0.2", places),
    "monitoring.web_port": (0, places),
    "monitoring.log_level": ("DEBUG", lambda _: logging.getLogger().level),
    "monitoring.stuck_after_s": (7.0, lambda built: built.vitals._patience_s()),
    "monitoring.ready_lag_records": (7, lambda built: built.vitals._lag_records()),
    "hot_reload.enabled": (OFF, looks),
    "hot_reload.poll_interval_sec": (20.0, looks),
    **policy_table(),
}
"""Key → another value, and where it is seen in a worker that runs already."""
FREE = (("monitoring.web_port", 0), ("monitoring.metrics_port", 0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("key", LIVE_TABLE)
def test_a_worker_setting_acts_while_it_runs(key):
    value, shown = LIVE_TABLE[key]
    root, before = logging.getLogger(), logging.getLogger().level
    base = base_of(key) if value == 0 else with_(base_of(key), *FREE)
    wanted = with_(with_(base, *FREE), (key, value))
    try:
        fresh = shown(running(base))
        built = told(running(base), wanted)
        assert shown(built) != fresh, f"{key} = {value!r} changes nothing in a running worker"
        assert shown(built) == shown(running(wanted)), "as if it had been started so"
    finally:
        root.setLevel(before)
    assert built.settings == wanted
    assert built.reload.waiting == {}
    assert built.metrics.counts["config_reloads_total"]["applied",] == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("key", NOT_LIVE)
def test_a_worker_setting_that_cannot_act_while_it_runs_is_named(key, caplog):
    value, _ = WORKER_TABLE[key]
    built = told(running(Settings()), Settings())
    built.reload.running = base_of(key)
    told(built, with_(base_of(key), (key, value)))
    assert built.settings == base_of(key)
    assert list(built.state()["restart_required"]) == [key]
    assert built.state()["restart_required"][key]["file"] == value
    (line,) = [record.getMessage() for record in caplog.records if record.name == "streams.worker.hot_reload"]
    assert key in line
    assert NOT_LIVE[key] in line
    assert built.metrics.counts["config_restart_required"][()] == 1
    assert built.metrics.counts["config_reloads_total"]["unchanged",] == 2
    told(built, base_of(key))
    assert built.state()["restart_required"] == {}
    assert built.metrics.counts["config_restart_required"][()] == 0


def test_every_worker_setting_acts_while_it_runs_or_is_named():
    assert sorted([*LIVE_TABLE, *NOT_LIVE]) == sorted(WORKER_TABLE)


def test_the_page_on_settings_says_of_every_worker_setting_what_a_change_does():
    text = (Path(__file__).parents[1] / "docs/settings.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    said = {
        key: row[1]
        for row in rows
        for key in re.findall(r"`((?:kafka|topics|monitoring|hot_reload|rl|circuit_breaker)\.[\w.]+)`", row[0])
    }
    assert sorted(said) == sorted(WORKER_TABLE)
    assert {key for key, what in said.items() if what.startswith(("not taken", "of no use"))} == set(NOT_LIVE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_page_that_cannot_move_stays_and_the_rest_of_the_change_acts(caplog):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        base = with_(Settings(), *FREE)
        built = running(base)
        told(built, with_(base, ("monitoring.web_port", taken), ("kafka.checkpoint_entries", 7)))
    assert built.settings == with_(base, ("kafka.checkpoint_entries", 7))
    assert f"web port {taken} on 127.0.0.1 is in use" in built.state()["restart_required"]["monitoring.web_port"]["do"]
    assert "is in use" in caplog.text
    assert built.metrics.counts["config_reloads_total"]["rejected",] == 1


def test_turning_the_looks_off_ends_them_with_a_word(caplog):
    class Once(Looks):
        def poll(self) -> Any:
            super().poll()
            return FileChange(Loaded(with_(Settings(), ("hot_reload.enabled", OFF)), {}), None, (), ())

    watch = Once()
    built = worker(Settings(), watch)
    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(built.reload.follow())
    assert watch.count == 1
    assert "is not read until the next start" in caplog.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_worker_that_owns_no_partition_yet_is_not_ready():
    built = worker(Settings())

    class Started:
        """A consumer that has joined no group yet."""

        def assignment(self):
            return frozenset()

    built.vitals._app = type("App", (), {"consumer": Started(), "tables": built.app.tables})()
    assert built.vitals.not_ready() == {
        "himari.journal.v1": "no partition assigned",
        "himari.prices.v1": "no partition assigned",
    }
