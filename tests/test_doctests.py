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
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name not in SPOKEN_TO
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
