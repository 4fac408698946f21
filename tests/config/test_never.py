"""Settings that could never act are refused by key, rule and value; at their bound they act."""

import math

import pytest

from config.load import load, load_bytes
from config.never import RULES, never_acting
from config.settings import Settings
from engines.models import conformal
from engines.models.conformal import ConformalParams
from engines.parameters import DecisionParams
from schemas.errors import ConfigurationException

CONFORMAL = "position_sizing.conformal_prediction"
ALIASES = "position_sizing.regime_adjustment.regime_aliases"
TABLE = {
    "a window below min_samples": (
        f"{CONFORMAL}.window_size",
        {f"{CONFORMAL}.window_size": 50, f"{CONFORMAL}.min_samples": 300},
        "must be at least 300, the number of scores required (min_samples 300, coverage 0.9), was 50",
        {f"{CONFORMAL}.window_size": 300, f"{CONFORMAL}.min_samples": 300},
    ),
    "a window below what its coverage takes": (
        f"{CONFORMAL}.window_size",
        {f"{CONFORMAL}.window_size": 98, f"{CONFORMAL}.coverage": 0.99},
        "must be at least 99, the number of scores required (min_samples 20, coverage 0.99), was 98",
        {f"{CONFORMAL}.window_size": 99, f"{CONFORMAL}.coverage": 0.99},
    ),
    "an alias that is a regime": (
        f"{ALIASES}.Trending-Up",
        {f"{ALIASES}.Trending-Up": "crisis"},
        "must not be a known regime, which keeps its meaning, was trending_up",
        {f"{ALIASES}.Trending-Upwards": "crisis"},
    ),
    "an alias that another one hides": (
        f"{ALIASES}.RISK OFF",
        {f"{ALIASES}.risk-off": "crisis", f"{ALIASES}.RISK OFF": "ranging"},
        "must differ from the alias 'risk-off' in more than case, spaces and hyphens",
        {f"{ALIASES}.risk-off": "crisis", f"{ALIASES}.RISK ON": "ranging"},
    ),
    "a level that is never left": (
        "risk_management.cascade_levels.margin",
        {"risk_management.cascade_levels.margin": 0.4},
        "must be below reduce_50 0.4, or that level is never left, was 0.4",
        {"risk_management.cascade_levels.margin": 0.39},
    ),
    "bars that are forgotten": (
        "risk_management.correlation.inactive_after_s",
        {"risk_management.correlation.inactive_after_s": 3_600, "market.bar_s": 7_200},
        "must be at least market.bar_s 7200, or every bar removes the previous one, was 3600",
        {"risk_management.correlation.inactive_after_s": 7_200, "market.bar_s": 7_200},
    ),
    "prices that are stale at once": (
        "validation_criteria.max_price_age_s",
        {"validation_criteria.max_price_age_s": 5.0, "market.step_s": 10},
        "must be at least market.step_s 10, or every price is stale, was 5",
        {"validation_criteria.max_price_age_s": 10.0, "market.step_s": 10},
    ),
}


@pytest.mark.parametrize("what", TABLE)
def test_what_could_never_act_is_refused_and_what_just_acts_is_not(what):
    key, never, rule, acts = TABLE[what]
    with pytest.raises(ConfigurationException) as refused:
        load(None, None, never)
    assert (refused.value.file, refused.value.key, refused.value.rule) == ("command line", key, rule)
    load(None, None, acts)


def test_the_file_and_the_line_are_named():
    raw = b"# mine\nposition_sizing:\n  conformal_prediction: {window_size: 50, min_samples: 300}\n"
    with pytest.raises(ConfigurationException) as refused:
        load_bytes(raw, "mine.yaml")
    assert str(refused.value).startswith(f"mine.yaml, line 3: {CONFORMAL}.window_size: must be at least 300")


def test_the_defaults_act():
    assert list(never_acting(Settings())) == []
    assert len(RULES) == 5


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_scores_that_are_needed_are_those_of_a_finite_interval(coverage):
    params = ConformalParams(coverage=coverage, min_samples=1)
    assert conformal.needed(params) == math.ceil(round(1 / (1 - coverage), 9)) - 1


def test_settings_that_a_journal_holds_are_folded_as_they_are():
    tree = DecisionParams().model_dump()
    tree["position_sizing"]["conformal_prediction"] |= {"window_size": 50, "min_samples": 300}
    assert DecisionParams.model_validate(tree).position_sizing.conformal_prediction.window_size == 50
