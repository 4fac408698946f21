"""The committed JSON Schemas: current, valid, and of one mind with the models."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.__main__ import FOLDER, files
from schemas.errors import InvalidMessage
from schemas.price import PriceTick, PriceTicks
from schemas.registry import MESSAGES, schema_of
from schemas.signal import TacticalSignal
from schemas.wire import decode
from tests.schemas.examples import BAD_OTHERS, BAD_PRICES, BAD_SIGNALS, GOOD, SIGNAL, TICK

VALIDATORS = {model: Draft202012Validator(schema_of(name)) for name, model in MESSAGES.items()}


def is_good(model, tree):
    try:
        return bool(decode(model, json.dumps(tree).encode(), place="there"))
    except InvalidMessage:
        return False


UNREADABLE = {"empty", "not_utf8", "not_json", "not_finite", "duplicate_key", "too_large", "too_deep"}
PYTHONS_DOLLAR = "symbol with a line's end"
"""In Python's patterns, which jsonschema takes, $ matches before a line's end; in those of JSON Schema it does not."""
JUDGED = {
    name: orjson.loads(value)
    for name, (value, code, _) in BAD_SIGNALS.items()
    if code not in UNREADABLE and name != PYTHONS_DOLLAR
}
UNSAID = {"time a float", "a mood of tomorrow"}
"""JSON Schema takes 1.7e18 for an integer, and cannot hold one field against another."""


def test_the_committed_schemas_are_current():
    wanted = files()
    assert set(FOLDER.iterdir()) == set(wanted), "run python -m schemas"
    assert {path: path.read_bytes() for path in wanted} == wanted, "run python -m schemas"


def described(schema, field):
    """Return a field's description, or that of the object that it is."""
    named = schema.get("$defs", {}).get(field.get("$ref", "").removeprefix("#/$defs/"), {})
    return field.get("description") or named.get("description", "")


@pytest.mark.parametrize("name", MESSAGES)
def test_each_schema_is_one_of_draft_2020_12_with_words_for_every_field(name):
    schema = schema_of(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$id"] == f"urn:himari:layer3:{name}:v1"
    assert schema["title"] == MESSAGES[name].__name__
    assert len(schema["description"]) > 20
    silent = [field for field, told in schema.get("properties", {}).items() if len(described(schema, told)) < 4]
    assert silent == []


@pytest.mark.parametrize(("model", "tree"), [*GOOD, (PriceTick, TICK), (PriceTicks, {"ticks": [TICK]})])
def test_the_schema_takes_what_the_model_takes(model, tree):
    VALIDATORS[model].validate(tree)


@pytest.mark.parametrize("name", JUDGED)
def test_the_schema_refuses_the_bad_signals(name):
    assert VALIDATORS[TacticalSignal].is_valid(JUDGED[name]) == (name in UNSAID)


@pytest.mark.parametrize(("model", "tree"), [case[:2] for case in BAD_OTHERS])
def test_the_schema_refuses_the_other_bad_messages(model, tree):
    unsaid = isinstance(tree.get("side"), float) or "ABCDEFG2" in tree.get("decision_id", "")
    assert VALIDATORS[model].is_valid(tree) == unsaid


@pytest.mark.parametrize(("tree", "code"), [case[:2] for case in BAD_PRICES])
def test_the_schema_refuses_the_bad_prices_but_for_their_order(tree, code):
    model = PriceTicks if "ticks" in tree else PriceTick
    assert VALIDATORS[model].is_valid(tree) == (code == "inconsistent" and not {"ticks", "price"} <= tree.keys())


values = st.sampled_from(
    [None, True, 0, 1, -1, 0.5, 2, 10**18, 1e30, "", "buy", "sell", "hold", "x", "x" * 65, "crisis", "-", [], {}]
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(TacticalSignal.model_fields, values)))
def test_model_and_schema_are_of_one_mind_on_any_signal(fields):
    tree = SIGNAL | fields
    assert VALIDATORS[TacticalSignal].is_valid(tree) == is_good(TacticalSignal, tree)
