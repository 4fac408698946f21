"""Drawdown control: sizes shrink with the drawdown from the peak, to zero at the largest allowed drawdown.

    >>> [round(multiplier(100.0, value, 0.3), 4) for value in (100.0, 90.0, 80.0, 70.0)]
    [1.0, 0.7407, 0.4167, 0.0]

Source: docs/methods.md, section 1; Grossman and Zhou 1993, whose floor is a share of the running maximum.
"""

__all__ = ["multiplier"]


def multiplier(peak_usd: float, value_usd: float, max_drawdown_pct: float) -> float:
    """Return max(0, (1 − a·M/W)/(1 − a)), a = 1 − max_drawdown_pct: 1 at the peak, 0 at the largest drawdown.

    Args:
        peak_usd: M, the running maximum of the value; if it is below the value, the value is used.
        value_usd: W; if it is not positive, the result is 0.
        max_drawdown_pct: a ratio in (0, 1).
    """
    if value_usd <= 0.0:
        return 0.0
    if peak_usd <= value_usd:
        return 1.0
    floor = 1.0 - max_drawdown_pct
    return max(0.0, (1.0 - floor * (peak_usd / value_usd)) / (1.0 - floor))
