"""What the figures of a backtest mean, in words; and that they cannot tell where they cannot."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Figures = Mapping[str, Any]
SURE: Final = 0.95
CHANCE: Final = 0.05
BOOTSTRAP_MISSING: Final = "Intervals need the package arch: pip install 'himari-layer3[backtest]'."


def verdicts(figures: Figures) -> list[str]:
    """Return sentences on what can be concluded, the most important first."""
    return [*_trades(figures), *_edge(figures), *_timing(figures), *_against(figures), *_costs(figures)]


def _trades(figures: Figures) -> Iterator[str]:
    result = figures["result"]
    if not result["trades"]:
        why = ", ".join(f"{reason} ({count})" for reason, count in figures["zero_sized"].items())
        yield f"No trade was made{f'; sizes were 0 for {why}' if why else ''}. Nothing can be said of returns."
    elif result["trades"] < 30:
        yield f"Only {result['trades']} trades were made: any figure below may be chance."


def _edge(figures: Figures) -> Iterator[str]:
    found = figures["statistics"]
    if found["bootstrap"] == "not installed":
        yield BOOTSTRAP_MISSING
    if found["bootstrap"] == "too few days":
        yield f"{found['days']} days are too few for an interval of the Sharpe ratio."
    if found["sharpe_interval"] is None:
        return
    low, high = found["sharpe_interval"]
    span = f"Sharpe ratio {found['sharpe_a_year']:.2f} a year, 95 % interval {low:.2f} to {high:.2f}"
    if low > 0.0:
        yield f"{span}: the profit is more than chance, if this was the only variant tried."
    elif high < 0.0:
        yield f"{span}: the loss is more than chance."
    else:
        yield f"{span}: the data cannot tell profit from chance."
    withstood, trials = found["trials_withstood"], found["trials"]
    if trials > 1:
        sure = found["deflated_sharpe"]
        end = "it stands" if sure >= SURE else "it does not stand"
        yield f"After {trials} trials, the probability of any skill is {sure:.2f}: {end}."
    elif low > 0.0:
        yield f"It withstands {withstood:,} tried variants at 95 %; if you tried more, it proves nothing (--trials N)."


def _timing(figures: Figures) -> Iterator[str]:
    test = figures["statistics"]["shuffle"]
    if test is None:
        return
    p, mean, profit = test["p"], test["mean"], test["profit"]
    if p <= CHANCE:
        yield f"Shuffle test: {p:.3f} of shuffled markets earned as much; the signals' timing carries the result."
    elif profit > 0.0 and mean > 0.5 * profit:
        share = min(1.0, mean / profit)
        yield (
            f"Shuffle test: on shuffled markets the same positions earn {share:.0%} of it (p {p:.2f}): it is the "
            "drift of the market, not the timing of the signals."
        )
    else:
        yield f"Shuffle test: {p:.2f} of shuffled markets earned as much: the data show no timing in the signals."


def _against(figures: Figures) -> Iterator[str]:
    ours, *others = figures["compared"]
    if not others or not figures["result"]["trades"]:
        return
    better = [each["name"] for each in others if each["return"] > ours["return"]]
    if better:
        yield f"In this period {', '.join(better)} earned more on the same signals."
    deeper = [each["name"] for each in others if each["max_drawdown"] > ours["max_drawdown"]]
    if deeper:
        yield f"{', '.join(deeper)} fell deeper than HIMARI ({ours['max_drawdown']:.1%})."


def _costs(figures: Figures) -> Iterator[str]:
    result = figures["result"]
    twice = result["at_twice_the_costs"]["return"]
    if result["return"] > 0.0 >= twice:
        yield f"At twice the costs the profit becomes {twice:+.1%}: it depends on the costs assumed."
