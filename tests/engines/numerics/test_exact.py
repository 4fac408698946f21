"""exp, ln, powers, roots and the normal quantile, against mpmath at 300 bits and more."""

import ast
import inspect
import math
import random
import sys

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.numerics import exact

mpf = mpmath.mpf
SMALLEST = 5e-324
LARGEST = sys.float_info.max
CHANCE = random.Random(20_200_312)

positive = st.floats(min_value=SMALLEST, max_value=LARGEST)


def off_by_ulps(got, true):
    """Distance in units of the last place of the true value."""
    return float(abs(mpf(got) - true) / mpf(math.ulp(float(true))))


def any_positive():
    return math.ldexp(CHANCE.uniform(0.5, 1.0), CHANCE.randint(-1073, 1024))


def close_to_one():
    return 1.0 + CHANCE.uniform(-1.0, 1.0) * exact.exp(CHANCE.uniform(-36.0, -0.7))


@pytest.fixture(autouse=True)
def _three_hundred_bits():
    with mpmath.workprec(300):
        yield


def test_exp_is_within_one_ulp_over_its_whole_range():
    points = [CHANCE.uniform(-745.0, exact.EXP_MAX) for _ in range(4000)]
    points += [CHANCE.uniform(-1.0, 1.0) * exact.exp(CHANCE.uniform(-40.0, 0.0)) for _ in range(2000)]
    points += [0.0, SMALLEST, -SMALLEST, exact.EXP_MAX, -708.4, -745.13, 0.5 * math.log(2), -0.5 * math.log(2)]
    assert max(off_by_ulps(exact.exp(x), mpmath.exp(mpf(x))) for x in points) < 1.0


def test_ln_is_within_one_ulp_from_the_smallest_double_to_the_largest():
    points = [any_positive() for _ in range(4000)] + [close_to_one() for _ in range(2000)]
    points += [SMALLEST, LARGEST, math.nextafter(1.0, 0.0), math.nextafter(1.0, 2.0), math.sqrt(0.5)]
    assert max(off_by_ulps(exact.ln(x), mpmath.log(mpf(x))) for x in points) < 1.0
    assert exact.ln(1.0) == 0.0


def test_power_is_within_one_ulp_wherever_its_result_is_a_normal_number():
    worst, points = 0.0, 0
    while points < 3000:
        x = any_positive() if points % 2 else close_to_one()
        y = CHANCE.choice((-1.0, 1.0)) * exact.exp(CHANCE.uniform(-8.0, 40.0 if points % 2 == 0 else 6.0))
        if -708.0 < y * math.log(x) < 709.0:
            worst, points = max(worst, off_by_ulps(exact.power(x, y), mpmath.power(mpf(x), mpf(y)))), points + 1
    assert worst < 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17, 64, 1000])
def test_roots_are_within_one_ulp(n):
    points = [any_positive() for _ in range(400)] + [close_to_one() for _ in range(200)] + [SMALLEST, LARGEST, 1.0]
    assert max(off_by_ulps(exact.root(x, n), mpmath.root(mpf(x), n)) for x in points) < 1.0


def test_cube_roots_of_cubes_are_exact():
    assert [exact.root(float(n * n * n), 3) for n in range(3000)] == [float(n) for n in range(3000)]


def test_half_life_is_within_two_ulp_even_after_a_thousand_lives():
    points = [
        (CHANCE.uniform(0.0, 1.0) * exact.exp(CHANCE.uniform(-9.0, 7.0)), CHANCE.uniform(0.5, 1.5)) for _ in range(4000)
    ]
    points += [(21_600.0, 21_600.0), (10_800.0, 21_600.0), (1.0, 3.0), (SMALLEST, 1.0), (1.0, LARGEST)]
    live = [(age, life) for age, life in points if age < 1021.0 * life]
    assert max(off_by_ulps(exact.half_life(a, b), mpmath.power(2, -mpf(a) / mpf(b))) for a, b in live) < 2.0
    assert [exact.half_life(n * 3.0, 3.0) for n in (0, 1, 2, 10)] == [1.0, 0.5, 0.25, 2.0**-10]


def test_what_decays_never_grows_and_ends_at_zero():
    assert exact.half_life(-5.0, 3.0) == 1.0
    assert exact.half_life(1e9, 1.0) == 0.0


def true_quantile(p, start):
    """Newton's method on the distribution itself, at so many bits that Φ − p keeps its digits close to 1."""
    with mpmath.workprec(1300):
        z = mpf(start)
        for _ in range(2):
            z -= (mpmath.erfc(-z / mpmath.sqrt(2)) / 2 - mpf(p)) / mpmath.npdf(z)
        return z


def test_the_normal_quantile_is_correctly_rounded():
    points = [SMALLEST, 1e-300, 3.1e-5, 0.25, 0.5 - 2**-54, 0.5 + 2**-53, 0.75, 0.95, 1.0 - 2**-53]
    points += [CHANCE.random() for _ in range(80)] + [exact.exp(CHANCE.uniform(-700.0, -1.0)) for _ in range(60)]
    found = [(p, exact.normal_quantile(p)) for p in points]
    assert max(off_by_ulps(z, true_quantile(p, z)) for p, z in found) < 0.501


def test_the_quantile_of_the_usual_coverage():
    assert exact.normal_quantile(0.95) == 1.6448536269514722
    assert exact.normal_quantile(0.5) == 0.0


@given(st.floats(min_value=1e-12, max_value=0.5))
def test_the_normal_quantile_is_odd(p):
    upper = 1.0 - p
    assert exact.normal_quantile(1.0 - upper) == -exact.normal_quantile(upper)


@given(positive)
def test_ln_and_exp_undo_each_other(x):
    assert exact.exp(exact.ln(x)) == pytest.approx(x, rel=3e-13, abs=1e-323) or exact.ln(x) > 709.78


@given(positive, positive)
def test_ln_grows(x, y):
    assert x >= y or exact.ln(x) <= exact.ln(y)


@given(positive)
def test_the_first_power_changes_nothing(x):
    assert exact.power(x, 1.0) == x
    assert exact.power(x, 0.0) == 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: exact.exp(709.79), "exp: x must be at most 709.78, was 709.79"),
        (lambda: exact.exp(math.inf), "was inf"),
        (lambda: exact.exp(math.nan), "was nan"),
        (lambda: exact.ln(0.0), "ln: x must be positive and finite, was 0.0"),
        (lambda: exact.ln(-1.0), "was -1.0"),
        (lambda: exact.ln(math.inf), "was inf"),
        (lambda: exact.ln(math.nan), "was nan"),
        (lambda: exact.power(0.0, 2.0), "power: x must be positive"),
        (lambda: exact.power(2.0, math.nan), "power: y must be finite"),
        (lambda: exact.power(2.0, 1024.0), "finite, was 2.0 to the power 1024.0"),
        (lambda: exact.power(LARGEST, LARGEST), "must be finite"),
        (lambda: exact.root(-1.0, 3), "root: x must be non-negative"),
        (lambda: exact.root(8.0, 0), "root: n must be in"),
        (lambda: exact.half_life(1.0, 0.0), "half_life: life must be positive"),
        (lambda: exact.half_life(math.inf, 1.0), "half_life: age must be finite"),
        (lambda: exact.normal_quantile(0.0), "normal_quantile: p must be between 0 and 1, was 0.0"),
        (lambda: exact.normal_quantile(1.0), "was 1.0"),
    ],
)
def test_what_has_no_finite_result_is_refused_with_its_name(call, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        call()


def test_what_is_too_small_becomes_subnormal_and_then_zero():
    assert exact.exp(-745.0) == SMALLEST
    assert exact.exp(-745.2) == exact.exp(-1e308) == exact.exp(-math.inf) == 0.0
    assert exact.power(2.0, -1074.0) == SMALLEST
    assert exact.power(2.0, -1e300) == 0.0
    assert exact.power(LARGEST, 1.0) == LARGEST
    assert exact.root(0.0, 3) == 0.0


def test_the_integer_tables_are_the_constants_they_stand_for():
    one = mpf(2) ** 128
    for j, entry in enumerate(exact.LN_TABLE, start=64):
        assert abs(entry / one - mpmath.log(mpf(j) / 64)) < mpf(2) ** -120
    assert abs(exact.SQRT_HALF_PI / one - mpmath.sqrt(mpmath.pi / 2)) < mpf(2) ** -128
    assert abs(exact.LN_SQRT_TAU / one - mpmath.log(2 * mpmath.pi) / 2) < mpf(2) ** -128


def test_only_operations_with_one_possible_result_are_imported():
    imported = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(exact)))
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "typing"
        for alias in node.names
    }
    assert imported == {"floor", "frexp", "inf", "ldexp", "sqrt"}
