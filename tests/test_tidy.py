"""The house is in order: layers, purity of the core, tests, sources, metrics and settings named where people look."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from config.diff import leaves
from config.load import DEFAULT_FILE
from config.settings import Settings
from streams.monitoring.families import FAMILIES, PREFIX

ROOT = Path(__file__).parents[1]
LAYERS = ("schemas", "engines", "config", "streams")
"""Each may import itself and those before it."""
OUTSIDE = ("himari", "tests", "benchmarks", "examples", "tools")
"""What may import the layers, and no layer imports."""
PURE = ("schemas", "engines")
EXACT = "engines"
"""The layer whose arithmetic must give the same bits everywhere."""
TOOLS = frozenset({"schemas/__main__.py"})
"""Files inside the pure layers that write files: tools, not the core."""

IMPURE_MODULES = frozenset(
    [
        "asyncio",
        "builtins",
        "concurrent",
        "ctypes",
        "datetime",
        "io",
        "locale",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "pickle",
        "platform",
        "random",
        "secrets",
        "shutil",
        "signal",
        "socket",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "uuid",
        "warnings",
        "weakref",
    ]
)
INEXACT_MODULES = frozenset({"cmath", "decimal", "scipy", "statistics"})
EXACT_MATH = frozenset(
    [
        "ceil",
        "copysign",
        "floor",
        "frexp",
        "fsum",
        "gcd",
        "inf",
        "isclose",
        "isfinite",
        "isinf",
        "isnan",
        "isqrt",
        "ldexp",
        "modf",
        "nan",
        "pi",
        "sqrt",
        "trunc",
        "ulp",
    ]
)
EXACT_NUMPY = frozenset(
    [
        "abs",
        "absolute",
        "arange",
        "array",
        "asarray",
        "ascontiguousarray",
        "bool_",
        "concatenate",
        "copy",
        "copysign",
        "dtype",
        "empty",
        "empty_like",
        "errstate",
        "fill_diagonal",
        "flatnonzero",
        "float64",
        "frombuffer",
        "full",
        "inf",
        "int32",
        "int64",
        "isfinite",
        "isnan",
        "maximum",
        "minimum",
        "nan",
        "ndarray",
        "nonzero",
        "ones",
        "outer",
        "searchsorted",
        "sign",
        "sqrt",
        "trunc",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "where",
        "zeros",
        "zeros_like",
    ]
)
"""Element by element, or no arithmetic at all."""
REDUCTIONS = frozenset({"sum", "mean", "dot", "prod", "cumsum", "std", "var", "einsum", "matmul"})
IMPURE_CALLS = frozenset({"breakpoint", "compile", "eval", "exec", "hash", "id", "input", "open", "print", "vars"})


def modules(root: Path) -> dict[str, str]:
    """Return name → source of every module of the layers, at any depth; a name is relative to `root`."""
    paths = (path for layer in LAYERS for path in sorted((root / layer).rglob("*.py")))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


MODULES = modules(ROOT)
CORE = [name for name in MODULES if name.split("/")[0] in PURE]


def layer_of(name: str) -> str:
    """Return the layer a module belongs to, however deep it stands."""
    return name.split("/", maxsplit=1)[0]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import, wherever it stands; a relative import starts with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


# -- layers ----------------------------------------------------------------------------------------------------------
def wrong_imports(name: str, source: str) -> list[str]:
    """Return the imports of a module that point up, or are relative."""
    layer = layer_of(name)
    above = (*LAYERS[LAYERS.index(layer) + 1 :], *OUTSIDE)
    return [
        f"line {line}: {layer} imports {module}"
        for line, module in imported(ast.parse(source, name))
        if module.startswith(".") or module.split(".")[0] in above
    ]


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    assert wrong_imports(name, MODULES[name]) == []


# -- purity ----------------------------------------------------------------------------------------------------------
class Impurity(ast.NodeVisitor):
    """Collects what may differ between two machines, two runs or two moments."""

    def __init__(self, *, numbers: bool) -> None:
        """`numbers`: hold the rules of exact arithmetic too."""
        self.numbers = numbers
        self.found: list[str] = []

    def note(self, node: ast.AST, what: str) -> None:
        self.found.append(f"line {getattr(node, 'lineno', 0)}: {what}")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._module(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._module(node, node.module or "")
        for alias in node.names:
            self._member(node, node.module or "", alias.name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name):
            self._member(node, {"np": "numpy"}.get(node.value.id, node.value.id), node.attr)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if self.numbers and isinstance(node.op, ast.Pow) and not _is_constant(node):
            self.note(node, "** calls the C library's pow")
        if self.numbers and isinstance(node.op, ast.MatMult):
            self.note(node, "@ calls BLAS")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_CALLS:
                self.note(node, f"{node.func.id}() reaches outside")
            if self.numbers and node.func.id == "pow":
                self.note(node, "pow calls the C library's")
            if node.func.id in {"list", "tuple", "sum", "enumerate", "iter", "map", "fsum"}:
                self._ordered(node, node.args)
        self._summed(node)
        self.generic_visit(node)

    def _summed(self, node: ast.Call) -> None:
        if self.numbers and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCTIONS:
            axis = [keyword for keyword in node.keywords if keyword.arg == "axis"]
            first = bool(axis) and isinstance(axis[0].value, ast.Constant) and axis[0].value.value == 0
            if node.func.attr != "sum" or not first:
                self.note(node, f".{node.func.attr} may go in another order")

    def visit_For(self, node: ast.For) -> None:
        self._ordered(node, [node.iter])
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._ordered(node.iter, [node.iter])
        self.generic_visit(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.note(node, "a set comprehension has no order")

    def visit_Global(self, node: ast.Global) -> None:
        self.note(node, "module state")

    def _ordered(self, node: ast.AST, sources: list[ast.expr]) -> None:
        for source in sources:
            unordered = isinstance(source, ast.Set | ast.SetComp) or (
                isinstance(source, ast.Call)
                and isinstance(source.func, ast.Name)
                and source.func.id in {"set", "frozenset"}
            )
            if unordered:
                self.note(node, "a set is gone through: it has no order")

    def _module(self, node: ast.AST, module: str) -> None:
        first = module.split(".", maxsplit=1)[0]
        if first in IMPURE_MODULES or (self.numbers and first in INEXACT_MODULES):
            self.note(node, f"imports {module}")

    def _member(self, node: ast.AST, module: str, name: str) -> None:
        if self.numbers and module == "math" and name not in EXACT_MATH:
            self.note(node, f"math.{name} is the C library's")
        if self.numbers and module == "numpy" and name not in EXACT_NUMPY:
            self.note(node, f"numpy.{name} is not known to be exact")


def _is_constant(node: ast.BinOp) -> bool:
    """Return whether a power is one of literals with a whole exponent: 2.0**-40 is exact."""
    exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
    base_is_two = isinstance(node.left, ast.Constant) and node.left.value in {2, 10}
    return base_is_two and isinstance(exponent, ast.Constant) and isinstance(exponent.value, int)


def impurities(source: str, *, numbers: bool) -> list[str]:
    visitor = Impurity(numbers=numbers)
    visitor.visit(ast.parse(source))
    return visitor.found


def impure(name: str, source: str) -> list[str]:
    """Return what makes a module of the core depend on more than its inputs."""
    if layer_of(name) not in PURE or name in TOOLS:
        return []
    return impurities(source, numbers=layer_of(name) == EXACT)


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_pure(name):
    assert impure(name, MODULES[name]) == []


@pytest.mark.parametrize(
    "source",
    [
        "from math import exp",
        "import math\nmath.log(2.0)",
        "y = x ** 2",
        "y = 3.1 ** 2",
        "y = pow(x, 2)",
        "import numpy as np\nnp.exp(x)",
        "y = a @ b",
        "y = a.sum()",
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "z = [x for x in frozenset(y)]",
        "z = sum(set(y))",
        "z = {x for x in y}",
        "import time",
        "from random import random",
        "import os.path",
        "import logging",
        "import asyncio",
        "print(1)",
        "open('f')",
        "hash('a')",
        "def f():\n    global g",
    ],
)
def test_what_is_not_pure_is_seen(source):
    assert impurities(source, numbers=True)


@pytest.mark.parametrize(
    "source", ["from math import sqrt, fsum", "y = a.sum(axis=0)", "y = 2.0**-40", "y = x * x", "z = sorted(set(y))"]
)
def test_what_is_pure_passes(source):
    assert impurities(source, numbers=True) == []


def module_state(name: str, source: str) -> list[str]:
    """Return the names of a core module that hold a list or a set; constants and tables never written to pass."""
    found = []
    for node in ast.parse(source, name).body if layer_of(name) in PURE else []:
        value = getattr(node, "value", None) if isinstance(node, ast.Assign | ast.AnnAssign) else None
        exported = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        if not exported and isinstance(value, ast.List | ast.Set):
            found.append(f"line {node.lineno}: module state")
    return found


@pytest.mark.parametrize("name", CORE)
def test_the_core_keeps_no_state_in_modules(name):
    assert module_state(name, MODULES[name]) == []


# -- every engine is tested and sourced ------------------------------------------------------------------------------
SOURCES_PAGE = (ROOT / "docs/sources.md").read_text(encoding="utf-8")


def unsourced(name: str, source: str, page: str = SOURCES_PAGE, root: Path = ROOT) -> list[str]:
    """Return what an engine lacks: a line in docs/sources.md that names a test, which exists.

    An `__init__.py` needs none, as long as it holds a docstring alone.
    """
    if layer_of(name) != "engines":
        return []
    if name.endswith("/__init__.py"):
        return [f"line {node.lineno}: a package holds a docstring alone" for node in ast.parse(source, name).body[1:]]
    lines = [line for line in page.splitlines() if f"`{name}`" in line]
    tests = [test for line in lines for test in re.findall(r"`(tests/[^`]+)`", line)]
    if not tests:
        return [f"docs/sources.md has no line for {name} with a test"]
    return [f"docs/sources.md names {test}, which does not exist" for test in tests if not (root / test).exists()]


@pytest.mark.parametrize("name", [name for name in MODULES if layer_of(name) == "engines"])
def test_every_engine_has_a_line_in_the_sources_and_a_test_that_stands(name):
    assert unsourced(name, MODULES[name]) == []


def test_every_line_of_the_sources_names_a_file_that_stands():
    rows = re.findall(r"`((?:engines|streams|schemas|config|tests)/[^`]+)`", SOURCES_PAGE)
    assert [row for row in rows if not (ROOT / row).exists()] == []


# -- metrics and settings --------------------------------------------------------------------------------------------
def test_every_metric_family_is_documented():
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    missing = [family.name for family in FAMILIES if f"`{PREFIX}{family.name}" not in text]
    assert missing == []


def test_every_setting_stands_in_the_file_with_its_default_and_a_comment():
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    written = leaves(yaml.safe_load(text))
    assert written == leaves(Settings().model_dump())
    bare = [line for line in text.splitlines() if re.match(r"\s*[a-z0-9_]+: \S", line) and "#" not in line]
    assert [line for line in bare if not line.strip().startswith(("bootstrap_servers", "data_dir"))] == []
    sections = [i for i, line in enumerate(text.splitlines()) if re.match(r"\s*[a-z0-9_]+:$", line)]
    above = text.splitlines()
    assert [above[i] for i in sections if not above[i - 1].strip().startswith("#")] == []


# -- the text of the house -------------------------------------------------------------------------------------------
def tracked() -> list[Path]:
    """Return the files of the repository: those git knows, or all where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = done.stdout.decode().split("\0") if done.returncode == 0 else []
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, int, str]]:
    """Yield (file, line, text) of all tracked text but this file."""
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        yield from ((path.relative_to(ROOT).as_posix(), number, line) for number, line in enumerate(lines, 1))


STALE = re.compile(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b")
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp/[a-z]+)/(?!\.)\w")
REGISTRIES = re.compile(
    r"(?:index-url|find-links|registry\.npmjs|artifactory|nexus|pypi\.[a-z]+\.(?!org)|trusted-host)"
)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (STALE, "what is not done is said in an issue"),
        (MACHINE, "a path of one machine"),
        (REGISTRIES, "a registry of one machine"),
    ],
    ids=["stale notes", "machine paths", "registries"],
)
def test_no_file_holds(rule, why):
    found = [f"{name}:{number}: {line.strip()}" for name, number, line in texts() if rule.search(line[:2_000])]
    assert found == [], why


def test_the_rules_of_the_text_see_what_they_look_for():
    assert STALE.search("# TODO later")
    assert MACHINE.search("cd /home/me/src")
    assert not MACHINE.search("../shared/data and config/home/me")
    assert REGISTRIES.search("--index-url https://x")


# -- sizes -----------------------------------------------------------------------------------------------------------
SCREEN = 60
LONG_FILE = 400
LONG = {
    "streams/monitoring/families.py": "a table: one row a metric family",
}
"""Files above 400 lines, and why."""
LONG_FUNCTIONS: dict[str, str] = {
    "engines/pipeline/decide.py:decide": "the order of the stages, once, from top to bottom",
}
"""Functions above a screen, and why."""


def too_long(name: str, source: str) -> list[str]:
    """Return the file, and its functions, where they are longer than a reader takes in."""
    lines = len(source.splitlines())
    found = [] if lines <= LONG_FILE or name in LONG else [f"{name} has {lines} lines, more than {LONG_FILE}"]
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > SCREEN and f"{name}:{node.name}" not in LONG_FUNCTIONS:
                found.append(f"line {node.lineno}: {node.name} has {length} lines, more than {SCREEN}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_fit(name):
    assert too_long(name, MODULES[name]) == []


def test_the_core_can_be_imported_without_the_shell():
    """engines and schemas bring in neither Faust nor a broker's client nor anything else of the outside."""
    dotted = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in CORE if name not in TOOLS
    ]
    code = (
        f"import importlib, sys\nfor name in {dotted}: importlib.import_module(name)\n"
        "bad = [m for m in ('faust', 'aiokafka', 'aiohttp', 'rocksdict', 'prometheus_client', 'streams', 'config') "
        "if m in sys.modules]\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# -- the rules hold at any depth -------------------------------------------------------------------------------------
Rule = Callable[[str, str], list[str]]
RULES: tuple[Rule, ...] = (wrong_imports, impure, module_state, unsourced, too_long)

SINS: dict[str, tuple[str, Rule, str]] = {
    "a power": ("def f(x):\n    return x ** 2\n", impure, "line 2: ** calls the C library's pow"),
    "a matrix product": ("def f(a, b):\n    return a @ b\n", impure, "line 2: @ calls BLAS"),
    "a call of BLAS": ("import numpy as np\ny = np.linalg\n", impure, "line 2: numpy.linalg is not known to be exact"),
    "a dot product": ("def f(a, b):\n    return a.dot(b)\n", impure, "line 2: .dot may go in another order"),
    "a logarithm": ("import math\ny = math.log(2.0)\n", impure, "line 2: math.log is the C library's"),
    "a clock": ("import time\n", impure, "line 1: imports time"),
    "a clock inside": ("def f():\n    from datetime import datetime\n", impure, "line 2: imports datetime"),
    "chance": ("from random import random\n", impure, "line 1: imports random"),
    "a set gone through": ("for x in {1, 2}:\n    pass\n", impure, "line 1: a set is gone through: it has no order"),
    "a file": ("y = open('f')\n", impure, "line 1: open() reaches outside"),
    "module state": ("seen = []\n", module_state, "line 1: module state"),
    "an import upwards": ("from streams import driver\n", wrong_imports, "line 1: engines imports streams"),
    "an import of the facade": ("import himari\n", wrong_imports, "line 1: engines imports himari"),
    "a relative import": ("from .. import fold\n", wrong_imports, "line 1: engines imports .."),
    "a long function": ("def f():\n" + "    pass\n" * 60, too_long, "line 1: f has 61 lines, more than 60"),
    "no source": ("X = 1\n", unsourced, "docs/sources.md has no line for {name} with a test"),
}
"""What → a module that does it, the rule that must see it, and what the rule says."""

DEPTHS = ("engines", "engines/models", "engines/pipeline", "engines/state", "engines/a/b/c")


@pytest.mark.parametrize("folder", DEPTHS)
@pytest.mark.parametrize(("source", "rule", "said"), SINS.values(), ids=SINS)
def test_a_sin_planted_at_any_depth_is_seen(tmp_path, folder, source, rule, said):
    """Through the search for modules and the rules, as the tests above use them."""
    name = f"{folder}/planted.py"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(source, encoding="utf-8")
    (found,) = modules(tmp_path).items()
    assert found == (name, source)
    assert said.format(name=name) in rule(*found)


@pytest.mark.parametrize("folder", DEPTHS)
def test_a_module_in_order_passes_at_any_depth(folder):
    name = f"{folder}/planted.py"
    page = f"| planted | a paper | `{name}` | `tests/test_tidy.py` |"
    source = "from math import sqrt\n\nTABLE = (1.0, 2.0)\n\n\ndef f(x):\n    return sqrt(x * x)\n"
    assert [found for rule in RULES if rule is not unsourced for found in rule(name, source)] == []
    assert unsourced(name, source, page) == []
    assert unsourced(name, source, page.replace("test_tidy", "test_none")) == [
        "docs/sources.md names tests/test_none.py, which does not exist"
    ]
    assert unsourced(f"{folder}/__init__.py", '"""Doc."""\nimport math\n')


def test_the_layers_below_and_above_the_engines_have_their_own_rules():
    """schemas: pure, with the C library's mathematics; streams: neither; a tool is one file, not any of its name."""
    power, clock = SINS["a power"][0], SINS["a clock"][0]
    assert impure("schemas/deep/planted.py", power) == []
    assert impure("schemas/deep/planted.py", clock)
    assert impure("streams/deep/planted.py", clock) == []
    assert impure("schemas/__main__.py", clock) == []
    assert impure("engines/models/__main__.py", clock)
    assert wrong_imports("schemas/deep/planted.py", "from engines import fold\n")
    assert wrong_imports("streams/deep/planted.py", "from engines import fold\n") == []


# -- names -----------------------------------------------------------------------------------------------------------
def defined(name: str, source: str) -> Iterator[tuple[str, str]]:
    """Yield (public name, what it is) of each class and type alias that a module defines at its top."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, f"class of {name}"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            alias = node.targets[0].id
            if alias[0].isupper() and not alias.isupper():
                yield alias, ast.unparse(node.value)


def ambiguous(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Return each public name that means two things: two classes, a class and an alias, or two different aliases."""
    meanings: dict[str, dict[str, None]] = {}
    for name, source in sources.items():
        for found, meaning in defined(name, source):
            meanings.setdefault(found, {})[meaning] = None
    return {name: sorted(found) for name, found in meanings.items() if len(found) > 1}


def test_a_public_name_means_one_thing():
    assert ambiguous(MODULES) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("class Place: ...", "class Place: ..."),
        ("class Place: ...", "Place = tuple[str, int]"),
        ("Place = tuple[str, int]", "Place = list[str]"),
    ],
)
def test_a_name_with_two_meanings_is_found(first, second):
    assert list(ambiguous({"streams/a.py": first, "streams/deep/er/b.py": second})) == ["Place"]
    assert ambiguous({"streams/a.py": "Place = list[str]", "streams/b.py": "Place = list[str]"}) == {}


# -- the front door --------------------------------------------------------------------------------------------------
def test_the_front_door_has_no_logic_and_nothing_of_ours_goes_through_it():
    tree = ast.parse((ROOT / "himari/__init__.py").read_text(encoding="utf-8"))
    assert [path.name for path in (ROOT / "himari").glob("*.py")] == ["__init__.py"]
    first, *rest = tree.body
    assert isinstance(first, ast.Expr), "a docstring"
    assigned = [node.targets[0].id for node in rest if isinstance(node, ast.Assign)]
    assert assigned == ["__version__", "__all__"]
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in rest)
    assert [
        name for name, source in MODULES.items() if any(m == "himari" for _, m in imported(ast.parse(source)))
    ] == []
