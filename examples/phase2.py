"""Size several strategies on several coins jointly."""

from pathlib import Path
from tempfile import TemporaryDirectory

from himari import Layer3Phase2Portfolio

NOW_NS = 1_700_000_000_000_000_000
HOUR_NS = 3_600_000_000_000
PRICES = {"BTC-USD": 43_500.0, "ETH-USD": 2_280.0, "SOL-USD": 98.0}


def claim(strategy: str, symbol: str, side: str = "buy") -> dict[str, object]:
    """Return a signal that claims 1 % in an hour at a volatility of 2 %."""
    return {
        "strategy_id": strategy,
        "symbol": symbol,
        "action": side,
        "confidence": 0.8,
        "risk_score": 0.2,
        "regime": "ranging",
        "timestamp_ns": NOW_NS + 100 * HOUR_NS,
        "expected_return": 0.01 if side == "buy" else -0.01,
        "predicted_volatility": 0.02,
    }


def main() -> None:
    with Layer3Phase2Portfolio(portfolio_value=100_000, max_position_pct=0.15, max_strategy_pct=0.40) as layer3:
        for hour in range(100):  # Bitcoin and Ether move together, Solana independently
            shared, own = (0.01 if hour % 3 else -0.02), (0.015 if hour % 2 else -0.015)
            bar = {"BTC-USD": shared, "ETH-USD": shared + own / 10, "SOL-USD": own}
            layer3.update_correlations(bar, NOW_NS + hour * HOUR_NS)

        signals = [
            claim("momentum", "BTC-USD"),
            claim("carry", "BTC-USD"),
            claim("momentum", "ETH-USD"),
            claim("reversion", "SOL-USD", "sell"),
        ]
        found = layer3.process_multi_strategy_signals(signals=signals, cascade_indicators=None, current_prices=PRICES)
        for symbol, usd in found.allocations.items():
            print(f"{symbol} {usd:>10.2f} USD, stage 10 took {found.correlation_penalties[symbol]:.0%}")
        print("weights", {name: round(weight, 3) for name, weight in found.strategy_weights.items()})
        print(f"gross {found.utilization_pct:.1%} of the value, bound by {found.bound}")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "weights.csv"
            layer3.export_weight_history(path)
            print(path.read_text(encoding="utf-8").splitlines()[1])
        print("Shown: coins that move together share their risk, and several strategies share one portfolio.")


if __name__ == "__main__":
    main()
