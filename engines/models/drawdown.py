"""Drawdown control: sizes shrink with the fall from the peak, to nothing where the largest allowed fall is reached.

Source: docs/methods.md, section 1; Grossman and Zhou 1993, whose floor is a share of the running maximum.
"""

__all__ = ["multiplier"]


def multiplier(peak_usd: float, value_usd: float, max_drawdown_pct: float) -> float:
    """Return max(0, (1 − a·M/W)/(1 − a)), a = 1 − max_drawdown_pct: 1 at the peak, 0 at the largest drawdown.

    Args:
        peak_usd: M, the running maximum of the value; a lower one counts as the value.
        value_usd: W; nothing is bet where it is not positive.
        max_drawdown_pct: a ratio in (0, 1).
    """
    if value_usd <= 0.0:
        return 0.0
    if peak_usd <= value_usd:
        return 1.0
    floor = 1.0 - max_drawdown_pct
    return max(0.0, (1.0 - floor * (peak_usd / value_usd)) / (1.0 - floor))
