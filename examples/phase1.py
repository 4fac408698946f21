"""Size a signal without Kafka, cut it in a cascade, and learn from its outcome."""

from himari import Layer3Phase1

NOW_NS = 1_700_000_000_000_000_000
HOUR_NS = 3_600_000_000_000

signal = {
    "strategy_id": "momentum",
    "symbol": "BTC-USD",
    "action": "buy",
    "confidence": 0.8,
    "risk_score": 0.2,
    "regime": "ranging",
    "timestamp_ns": NOW_NS,
    "expected_return": 0.01,  # over horizon_s, default one hour
    "predicted_volatility": 0.02,
}
crash = {"symbol": "BTC-USD", "timestamp_ns": NOW_NS + HOUR_NS, "funding_rate": 0.004, "oi_change_pct": -0.12}


def main() -> None:
    with Layer3Phase1(portfolio_value=100_000, kelly_fraction=0.25) as layer3:
        calm = layer3.calculate_position(signal, None, 43_500.0)
        print(f"calm:    {calm.position_size_usd:>9.2f} USD, {calm.cascade_recommendation}, bound by {calm.bound}")

        again = {**signal, "timestamp_ns": NOW_NS + HOUR_NS}
        cut = layer3.calculate_position(again, crash, 42_900.0)
        print(f"cascade: {cut.position_size_usd:>9.2f} USD, {cut.cascade_recommendation}")
        for step in cut.waterfall:
            print(f"  {step['stage']:<10} {step['after_cents'] / 100:>10.2f}  {step['reason']}".rstrip())

        layer3.record_outcome(
            {
                "strategy_id": "momentum",
                "symbol": "BTC-USD",
                "decision_id": cut.decision_id,
                "side": "buy",
                "realized_return": -0.021,  # of the asset, not of the side
                "holding_s": 1800,
                "timestamp_ns": NOW_NS + HOUR_NS + HOUR_NS // 2,
            }
        )
        cell = layer3.get_state()["portfolios"]["main"]["cells"]["momentum/BTC-USD"]
        posterior = cell["posterior"]
        believed = posterior["h2"] / posterior["h1"]
        print(f"learnt:  {believed:.3f} of a claim is believed after {posterior['outcomes']} outcome; .4 was before")
        print("Shown: one signal sized, cut by a cascade, and its outcome learnt from.")


if __name__ == "__main__":
    main()
