"""Run a policy next to the rules: it is scored on every outcome, and may nudge sizes only once its gate opens."""

from himari import Layer3Phase3Hybrid

NOW_NS = 1_700_000_000_000_000_000
HOUR_NS = 3_600_000_000_000
PRICE = 43_500.0


def signal(number: int) -> dict[str, object]:
    """Return one signal an hour, which claims .4 % at a volatility of 2 %."""
    return {
        "signal_id": f"s-{number}",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "action": "buy",
        "confidence": 0.8,
        "risk_score": 0.2,
        "regime": "ranging",
        "timestamp_ns": NOW_NS + number * HOUR_NS,
        "expected_return": 0.004,
        "predicted_volatility": 0.02,
    }


def outcome(number: int) -> dict[str, object]:
    """Return a signal's outcome after one hour: a gain of 2.4 % or a loss of 1.6 %."""
    return {
        "signal_id": f"s-{number}",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "side": "buy",
        "realized_return": 0.004 + 0.02 * (-1) ** number,
        "timestamp_ns": NOW_NS + number * HOUR_NS + HOUR_NS - 1,
    }


def main() -> None:
    with Layer3Phase3Hybrid(portfolio_value=100_000, enable_rl=True, use_mock_rl=True, rl_mode="live") as layer3:
        for number in range(20):
            found = layer3.process_signals([signal(number)], None, {"BTC-USD": PRICE})
            layer3.record_outcome(outcome(number))
        print(f"rules:  {found.allocations['BTC-USD']:.2f} USD of BTC-USD; the policy's mode is {found.rl['mode']}")
        compared = layer3.get_performance_comparison()
        print(f"gate:   {compared['status']} after {compared['decisions']} decisions, breaker {compared['breaker']}")
        advantage, lower = 1e4 * compared["advantage"], 1e4 * compared["lower"]
        print(f"        advantage {advantage:+.2f} bp a decision, at least {lower:+.2f}")
        print("Shown: the rules decide, the policy is scored next to them, and its gate opens on evidence alone.")


if __name__ == "__main__":
    main()
