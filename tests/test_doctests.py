"""Examples in docstrings are run."""

import doctest
import importlib
import pkgutil

import pytest

import config
import engines
import himari
import schemas
import streams

SPOKEN_TO = {"schemas.__main__", "streams.__main__"}
MODULES = sorted(
    module.name
    for package in (schemas, engines, config, streams, himari)
    for module in (package.__spec__, *pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
    if module.name not in SPOKEN_TO
)


MODELS = [name for name in MODULES if name.startswith("engines.models.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_an_example_in_the_docstring_of_its_module(name):
    assert doctest.DocTestParser().get_examples(importlib.import_module(name).__doc__ or "")


def test_the_models_are_found():
    assert len(MODELS) >= 13
