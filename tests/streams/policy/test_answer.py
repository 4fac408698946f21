"""What counts as an answer: wholly right, or a failure that names place, rule and value."""

import copy
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies import GOOD, INFERRED, METADATA, QUESTION

from config.policy import TensorNames
from schemas.errors import InvalidAdviceException
from schemas.rl import Advice
from streams.policy.answer import Kinds, fitting, inferred, nudge_of, predicted

ID = QUESTION["decision_id"]
KINDS = Kinds("FP64", ("nudge", "confidence", "predicted_return", "predicted_volatility"), "1")


def as_predict(raw, w_base=0.1):
    return predicted(raw, w_base, place="p")


def as_oip(raw):
    return inferred(raw, ID, "policy", KINDS, place="p")


def oip(**changes):
    """An Open Inference answer in which some paths, written a__0__b, have other values."""
    tree = copy.deepcopy(INFERRED)
    for path, value in changes.items():
        *above, last = [int(name) if name.isdecimal() else name for name in path.split("__")]
        inner = tree
        for name in above:
            inner = inner[name]
        inner[last] = value
    return json.dumps(tree).encode()


def output(name, value, kind="FP64", shape=(1,)):
    return {"name": name, "datatype": kind, "shape": list(shape), "data": value}


BAD_OIP = {
    "a wrong id": (oip(id="x"), "p: id: must be POLICY22-0-17-main, was 'x'"),
    "no id": (json.dumps({k: v for k, v in INFERRED.items() if k != "id"}).encode(), "p: id must be given"),
    "another model": (oip(model_name="x"), "p: model_name: must be policy, was 'x'"),
    "an empty version": (oip(model_version=""), "p: model_version must match"),
    "no outputs": (oip(outputs=[]), "p: outputs: nudge must be given"),
    "one output missing": (oip(outputs=[output("nudge", [0.1])]), "p: outputs: confidence must be given"),
    "an output twice": (
        oip(outputs=[output("nudge", [0.1]), output("nudge", [0.1])]),
        "p: outputs.1.name: nudge must appear once",
    ),
    "a wrong datatype": (
        oip(outputs__0__datatype="INT64"),
        "p: outputs.0.datatype: nudge must be FP32 or FP64, was INT64",
    ),
    "a wrong shape": (oip(outputs__0__shape=[2]), "p: outputs.0.shape: nudge must be one number, was [2]"),
    "a negative shape": (oip(outputs__0__shape=[-1, -1]), "must be one number, was [-1, -1]"),
    "a scalar of two numbers": (oip(outputs__0__shape=[], outputs__0__data=[1.0, 2.0]), "must contain one number"),
    "a confidence that no rounding explains": (
        oip(outputs__1__datatype="FP32", outputs__1__data=[1.00001]),
        "p: outputs: confidence must be at most 1, was 1.00001",
    ),
    "two numbers": (oip(outputs__0__data=[0.1, 0.2]), "p: outputs.0.data: nudge must contain one number, was 2 values"),
    "no number": (oip(outputs__0__data=[]), "p: outputs.0.data: nudge must contain one number, was 0 values"),
    "a word": (oip(outputs__0__data=["0.1"]), "p: outputs: nudge must be a number"),
    "true": (oip(outputs__0__data=[True]), "p: outputs: nudge must be a number"),
    "null": (oip(outputs__0__data=[None]), "p: outputs: nudge must"),
    "nested too deep": (oip(outputs__0__data=[[0.1]]), "p: outputs: nudge must be a number"),
    "a nudge of 101 %": (oip(outputs__0__data=[1.01]), "p: outputs: nudge must be at most 1, was 1.01"),
    "a nudge of -101 %": (oip(outputs__0__data=[-1.01]), "p: outputs: nudge must be at least -1, was -1.01"),
    "a confidence of 101 %": (oip(outputs__1__data=[1.01]), "p: outputs: confidence must be at most 1, was 1.01"),
    "a volatility of nothing": (
        oip(outputs=[*INFERRED["outputs"], output("predicted_volatility", [0.0], "FP32")]),
        "p: outputs: predicted_volatility must be at least",
    ),
    "a list": (b"[1]", "p: record must be a JSON object"),
    "an error message": (b'{"error": "no such model"}', "p: model_name must be given"),
}


@pytest.mark.parametrize("what", BAD_OIP)
def test_an_inference_that_breaks_a_rule_is_no_answer(what):
    raw, text = BAD_OIP[what]
    with pytest.raises(InvalidAdviceException) as refused:
        as_oip(raw)
    assert text in str(refused.value)


def test_an_inference_may_be_flat_or_nested_and_say_more():
    answer = as_oip(
        oip(
            outputs=[
                output("nudge", [[-0.1]], shape=(1, 1)),
                output("confidence", [1], shape=(1, 1)),
                output("predicted_return", [-0.02], "FP32"),
                output("predicted_volatility", [0.03], "FP32"),
                output("attention", [1, 2, 3], "INT8", (3,)),
            ]
        )
    )
    assert answer[:5] == (-0.1, 1.0, "1", -0.02, 0.03)


def test_a_version_that_is_not_told_is_the_metadatas():
    tree = {name: value for name, value in INFERRED.items() if name != "model_version"}
    assert (
        inferred(json.dumps(tree).encode(), ID, "policy", KINDS._replace(version="7"), place="p").model_version == "7"
    )


def kind(name, datatype="FP64", shape=(1,)):
    return {"name": name, "datatype": datatype, "shape": list(shape)}


WIDTH = len(QUESTION["state"])
BAD_METADATA = {
    "another model": ({"name": "x"}, "p: name: must be policy, was 'x'"),
    "two inputs": (
        {"inputs": [kind("state"), kind("mask")]},
        "p: inputs: must be state alone (rl.tensors), was state, mask",
    ),
    "whole numbers": (
        {"inputs": [kind("state", "INT64", (1, WIDTH))]},
        "p: inputs.0.datatype: state must be FP32 or FP64, was INT64",
    ),
    "too narrow": (
        {"inputs": [kind("state", shape=(1, WIDTH - 1))]},
        f"p: inputs.0.shape: state must be [1, {WIDTH}] (-1: any), was [1, {WIDTH - 1}]",
    ),
    "flat": ({"inputs": [kind("state", shape=(WIDTH,))]}, f"p: inputs.0.shape: state must be [1, {WIDTH}]"),
    "no confidence": ({"outputs": [kind("nudge")]}, "p: outputs: must include confidence (rl.tensors), was nudge"),
    "words out": (
        {"outputs": [kind("nudge", "BYTES"), kind("confidence")]},
        "p: outputs.0.datatype: nudge must be FP32 or FP64, was BYTES",
    ),
    "many nudges": (
        {"outputs": [kind("nudge", shape=(4,)), kind("confidence")]},
        "p: outputs.0.shape: nudge must be [1] (-1: any), was [4]",
    ),
}


@pytest.mark.parametrize("what", BAD_METADATA)
def test_metadata_that_does_not_fit_says_why(what):
    change, text = BAD_METADATA[what]
    with pytest.raises(InvalidAdviceException) as refused:
        fitting(json.dumps(METADATA | change).encode(), "policy", place="p")
    assert text in str(refused.value)


def test_metadata_may_leave_lengths_open_and_offer_more():
    told = METADATA | {
        "inputs": [kind("state", "FP32", (-1, -1))],
        "outputs": [kind("nudge", "FP32", (-1, 1)), kind("confidence"), kind("attention", "INT8", (3,))],
    }
    assert fitting(json.dumps(told).encode(), "policy", place="p") == Kinds("FP32", ("nudge", "confidence"), "1")


@pytest.mark.parametrize("absent", [{"versions": None}, {"platform": None}, {"versions": None, "platform": ""}])
def test_null_metadata_is_absent(absent):
    """KServe's Python server writes null for what it does not know."""
    told = fitting(json.dumps(METADATA | absent).encode(), "policy", place="p")
    assert told == Kinds("FP64", ("nudge", "confidence"), "" if "versions" in absent else "1")


@pytest.mark.parametrize("nothing", [[], None])
def test_a_model_that_declares_nothing_is_judged_by_its_answers(nothing):
    """KServe and MLServer list no inputs and outputs where the model's author declared none."""
    bare = fitting(json.dumps(METADATA | {"inputs": nothing, "outputs": nothing}).encode(), "policy", place="p")
    assert bare == Kinds("FP32", (), "1")
    assert inferred(json.dumps(INFERRED).encode(), ID, "policy", bare, place="p")[:2] == (0.2, 0.8)
    with pytest.raises(InvalidAdviceException, match="outputs: nudge must be given"):
        inferred(oip(outputs=[output("logits", [0.1])]), ID, "policy", bare, place="p")


NAMED = TensorNames(state="INPUT__0", nudge="output__0", confidence="output__1")


def test_the_names_of_inputs_and_outputs_are_the_settings():
    served = METADATA | {
        "inputs": [kind("INPUT__0", "FP32", (-1, WIDTH))],
        "outputs": [kind("output__0", "FP32", (-1, 1)), kind("output__1", "FP32", (-1, 1))],
    }
    kinds = fitting(json.dumps(served).encode(), "policy", NAMED, place="p")
    assert kinds == Kinds("FP32", ("output__0", "output__1"), "1")
    answer = oip(outputs=[output("output__1", [0.8], "FP32"), output("output__0", [0.2], "FP32")])
    assert inferred(answer, ID, "policy", kinds, NAMED, place="p")[:2] == (0.2, 0.8)
    with pytest.raises(InvalidAdviceException, match=r"inputs: must be state alone \(rl.tensors\), was INPUT__0"):
        fitting(json.dumps(served).encode(), "policy", place="p")
    with pytest.raises(
        InvalidAdviceException, match=r"outputs: must include output__0 \(rl.tensors\), was nudge, conf"
    ):
        fitting(json.dumps(METADATA | {"inputs": []}).encode(), "policy", NAMED, place="p")


def test_two_outputs_cannot_have_one_name():
    with pytest.raises(ValueError, match="must differ from the other outputs' names, was 'nudge'"):
        TensorNames(confidence="nudge")


def test_either_float_and_a_scalar_will_do_whatever_was_declared():
    answer = as_oip(oip(outputs__0__datatype="FP32", outputs__0__shape=[], outputs__1__shape=[1, 1]))
    assert answer[:2] == (0.2, 0.8)


def test_what_fp32_rounds_beyond_a_bound_is_the_bound():
    assert as_oip(oip(outputs__1__data=[1.0000001192092896], outputs__0__data=[-1.0000001192092896]))[:2] == (-1.0, 1.0)


def test_the_examples_of_the_page_are_answers():
    page = (Path(__file__).parents[3] / "docs/hybrid.md").read_text(encoding="utf-8")
    prediction, inference = [text.partition("```")[0].encode() for text in page.split("```json\n")[1:]]
    assert as_predict(prediction).nudge == pytest.approx(0.2)
    assert as_oip(inference)[:2] == (0.2, 0.8)


# -- positions ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("position", "w_base", "nudge"),
    [
        (0.15, 0.1, 0.5),
        (-0.15, -0.1, 0.5),
        (0.0, 0.1, -1.0),
        (-0.1, 0.1, -2.0),
        (0.5, 0.0, 0.0),
        (1.0, 1e-300, 100.0),
        (1.0, 5e-324, 100.0),
        (-1.0, 5e-324, -100.0),
    ],
)
def test_a_position_is_a_nudge_of_the_base(position, w_base, nudge):
    assert nudge_of(position, w_base) == pytest.approx(nudge)


@given(st.floats(-1, 1), st.floats(-1, 1).filter(lambda w: abs(w) > 0.02))
def test_the_nudge_leads_from_the_base_to_the_position(position, w_base):
    assert w_base * (1.0 + nudge_of(position, w_base)) == pytest.approx(position, abs=1e-12)


# -- any answer --------------------------------------------------------------------------------------------------------
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
likely = st.floats(-2, 2) | st.sampled_from([0, 1, -1, 4.0, True, "0.5", None, math.nan, math.inf])


def places(tree, above=()):
    """Every path into a JSON value."""
    yield above
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inner:
        yield from places(value, (*above, name))


@st.composite
def spoilt(draw, good):
    """The bytes of a good answer with some of it replaced or taken away, or something else altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    tree = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(list(places(tree))))
        value = draw(likely | anything)
        if not path:
            tree = value
            continue
        inner = tree
        for name in path[:-1]:
            inner = inner[name]
        if isinstance(inner, dict) and draw(st.booleans()):
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
    raw = json.dumps(tree).encode()
    cut = draw(st.integers(0, 20))
    return raw[: -cut - 1] if cut < 2 else raw


def read_or_told(read, raw):
    """Return what was read and why not; one of them is None."""
    try:
        return read(raw), None
    except InvalidAdviceException as error:
        return None, str(error)


def holds_wholly(read, raw):
    """Either all of the answer is good enough to be journaled, or a reason names where it lay."""
    answer, why_not = read_or_told(read, raw)
    if answer is None:
        assert why_not.startswith("p: ")
        return
    assert abs(answer.nudge) <= 100
    assert 0 <= answer.confidence <= 1
    assert answer.raw.encode() == raw
    named = {name: QUESTION[name] for name in ("decision_id", "portfolio_id", "strategy_id", "symbol")}
    Advice(**named, **answer._asdict())


@given(spoilt(GOOD), st.floats(-3, 3))
def test_any_prediction_holds_wholly_or_fails_with_a_reason(raw, w_base):
    holds_wholly(lambda given: as_predict(given, w_base), raw)


@given(spoilt(INFERRED))
def test_any_inference_holds_wholly_or_fails_with_a_reason(raw):
    holds_wholly(as_oip, raw)


@given(spoilt(METADATA))
def test_any_metadata_fits_wholly_or_fails_with_a_reason(raw):
    kinds, why_not = read_or_told(lambda given: fitting(given, "policy", place="p"), raw)
    if kinds is None:
        assert why_not.startswith("p: ")
    else:
        assert not kinds.outputs or {"nudge", "confidence"} <= set(kinds.outputs)
        assert {kinds.state} <= {"FP32", "FP64"}
