"""Settings that could never act, each acceptable by itself: refused where they are loaded, by key, rule and value.

They are looked for here and not in the models: settings that are in force in a journal are folded as they are.
docs/decisions/0034 lists the pairs, and those that were left alone.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from config.settings import Settings
from engines.models import conformal
from engines.models.regime import KNOWN
from schemas.vocabulary import plain_word


class NeverActs(NamedTuple):
    """A setting that could never act beside another one."""

    key: str
    """Dotted."""
    rule: str


def never_acting(settings: Settings) -> Iterator[NeverActs]:
    """Yield the settings that could never act, the first of each rule."""
    for look in RULES:
        yield from look(settings)


def _conformal_window(settings: Settings) -> Iterator[NeverActs]:
    params = settings.position_sizing.conformal_prediction
    needed = conformal.needed(params)
    if params.window_size < needed:
        rule = (
            f"must be at least {needed}, the scores that are needed (min_samples {params.min_samples}, "
            f"coverage {params.coverage:g}), was {params.window_size}"
        )
        yield NeverActs("position_sizing.conformal_prediction.window_size", rule)


def _aliases(settings: Settings) -> Iterator[NeverActs]:
    seen: dict[str, str] = {}
    for alias in settings.position_sizing.regime_adjustment.regime_aliases:
        name = plain_word(alias.strip())
        key = f"position_sizing.regime_adjustment.regime_aliases.{alias}"
        if name in KNOWN:
            yield NeverActs(key, f"must not be a known regime, which keeps its meaning, was {name}")
        elif name in seen:
            yield NeverActs(key, f"must differ from the alias {seen[name]!r} in more than case, spaces and hyphens")
        seen.setdefault(name, alias)


def _cascade_margin(settings: Settings) -> Iterator[NeverActs]:
    levels = settings.risk_management.cascade_levels
    if levels.margin >= levels.reduce_50:
        rule = f"must be below reduce_50 {levels.reduce_50:g}, or that level is never left, was {levels.margin:g}"
        yield NeverActs("risk_management.cascade_levels.margin", rule)


def _correlation_memory(settings: Settings) -> Iterator[NeverActs]:
    inactive_s, bar_s = settings.risk_management.correlation.inactive_after_s, settings.market.bar_s
    if inactive_s < bar_s:
        rule = f"must be at least market.bar_s {bar_s}, or each bar forgets the one before, was {inactive_s}"
        yield NeverActs("risk_management.correlation.inactive_after_s", rule)


def _price_age(settings: Settings) -> Iterator[NeverActs]:
    age_s, step_s = settings.validation_criteria.max_price_age_s, settings.market.step_s
    if age_s < step_s:
        rule = f"must be at least market.step_s {step_s}, or every price is stale, was {age_s:g}"
        yield NeverActs("validation_criteria.max_price_age_s", rule)


RULES: Final[tuple[Callable[[Settings], Iterator[NeverActs]], ...]] = (
    _conformal_window,
    _aliases,
    _cascade_margin,
    _correlation_memory,
    _price_age,
)
