"""exp, ln, powers, roots and the normal quantile with the same bits on every machine.

The C library's transcendental functions differ in their last bits between CPUs and builds. These use only `+ − × ÷` on
doubles, `frexp`, `ldexp`, `floor` and integers: operations whose results IEEE 754 or arithmetic defines exactly.

There are two kinds of arithmetic. `exp` and `ln`, which are called often, use doubles (error below 1 ulp). Functions
whose intermediate results would lose digits in doubles (`power`, `normal_quantile`) use integers: n stands for
`n · 2**-128`. Infinity and NaN are neither accepted nor returned: a `ValueError` names the argument. Results below
2⁻¹⁰²² are subnormal: correct to one unit of 2⁻¹⁰⁷⁴, and 0 below half a unit.

Source: argument reduction and the rational form of exp after fdlibm (Sun Microsystems 1993); the coefficients are the
exact ones of the series (Bernoulli numbers for z·coth z, odd reciprocals for artanh), not fitted.
"""

from math import floor, frexp, inf, ldexp, sqrt
from typing import Final, NoReturn

__all__ = ["exp", "half_life", "ln", "normal_quantile", "power", "root"]

LN2_HIGH: Final = float.fromhex("0x1.62e42fee00000p-1")
"""The first 32 bits of ln 2: its product with an exponent is exact."""
LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
"""ln 2 − LN2_HIGH."""
PER_LN2: Final = float.fromhex("0x1.71547652b82fep+0")
SQRT_HALF: Final = float.fromhex("0x1.6a09e667f3bcdp-1")
EXP_MAX: Final = float.fromhex("0x1.62e42fefa39efp+9")
"""The largest x with a finite exp(x): 709.78."""
EXP_MIN: Final = -746.0
"""exp(x) is 0 below this; 2⁻¹⁰⁷⁵ is exp(−745.13)."""


def exp(x: float) -> float:
    """Return eˣ.

    Raises:
        ValueError: x is above 709.78, where the result is not finite, or NaN.
    """
    if not x <= EXP_MAX:
        _refuse("exp: x", "at most 709.78", x)
    if x < EXP_MIN:
        return 0.0
    k = floor(x * PER_LN2 + 0.5)
    return _scaled_exp(x - k * LN2_HIGH, k * LN2_LOW, k)


def ln(x: float) -> float:
    """Return the natural logarithm of a positive finite x.

    Raises:
        ValueError: x is zero, negative, infinite or NaN.
    """
    if not 0.0 < x < inf:
        _refuse("ln: x", "positive and finite", x)
    m, k = frexp(x)
    if m < SQRT_HALF:
        m += m
        k -= 1
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    # 2·artanh(s) = f − s·(f − rest), where rest = 2·s²·(1/3 + s²/5 + …); f²/2 is split off to keep its digits.
    rest = z * (
        L3 + z * (L5 + z * (L7 + z * (L9 + z * (L11 + z * (L13 + z * (L15 + z * (L17 + z * (L19 + z * L21))))))))
    )
    half_square = 0.5 * f * f
    return k * LN2_HIGH - ((half_square - (s * (half_square + rest) + k * LN2_LOW)) - f)


def power(x: float, y: float) -> float:
    """Return x to the power y, for a positive x.

    Raises:
        ValueError: x is not positive and finite, y is not finite, or the result is not finite.
    """
    if not 0.0 < x < inf:
        _refuse("power: x", "positive and finite", x)
    if not -inf < y < inf:
        _refuse("power: y", "finite", y)
    top, bottom = y.as_integer_ratio()
    try:
        return _exp_of_fixed(_ln_of_double(x) * top // bottom)
    except OverflowError:
        _refuse("power: x to the power y", "finite", f"{x} to the power {y}")


def root(x: float, n: int) -> float:
    """Return the n-th root of x, for a non-negative x and n in 1 … 1,000.

    Raises:
        ValueError: x is negative or not finite, or n is out of range.
    """
    if not 0.0 <= x < inf:
        _refuse("root: x", "non-negative and finite", x)
    if not 1 <= n <= 1000:
        _refuse("root: n", "in 1 … 1,000", n)
    if x == 0.0:
        return 0.0
    m, e = frexp(x)
    k, rest = divmod(e, n)
    m = ldexp(m, rest)
    y = exp(ln(m) / n)
    below = 1.0
    for _ in range(n - 1):
        below *= y
    return ldexp(y + (m / below - y) / n, k)  # one step of Newton


def half_life(age: float, life: float) -> float:
    """Return 2 to the power −age/life, the share that is left after `age`; both in the same unit.

    A negative age (a reading stamped slightly ahead of the clock) counts as 0, so the result never exceeds 1.

    Raises:
        ValueError: life is not positive and finite, or age is infinite or NaN.
    """
    if not 0.0 < life < inf:
        _refuse("half_life: life", "positive and finite", life)
    if not age < inf:
        _refuse("half_life: age", "finite", age)
    if age <= 0.0:
        return 1.0
    if age >= 1080.0 * life:
        return 0.0
    whole, rest = divmod(age, life)  # exact, unlike the fraction of a rounded quotient
    part = rest / life
    k = int(whole)
    if part > 0.5:
        k += 1
        part -= 1.0
    high = part * LN2_HIGH
    return _scaled_exp(-high, part * LN2_LOW, -k)


def normal_quantile(p: float) -> float:
    """Return z with Φ(z) = p for 0 < p < 1, correctly rounded except for ties. Takes about 45 µs: call it rarely.

    Newton's method on ln Q(z) = ln q, where q is the smaller tail. The function is concave, so it converges from any
    start; its slope is −1/M, where M = Q/φ is Mills' ratio.

    Raises:
        ValueError: p is not between 0 and 1.

    Source: start from Abramowitz and Stegun 1964, 26.2.23 (error below 4.5e-4).
    """
    if not 0.0 < p < 1.0:
        _refuse("normal_quantile: p", "between 0 and 1", p)
    if p == 0.5:
        return 0.0
    q = p if p < 0.5 else 1.0 - p  # exact
    ln_q = _ln_of_double(q)
    z = _fixed(_rough_quantile(ldexp(float(-ln_q), -FRACTION)))
    for _ in range(QUANTILE_STEPS):
        mills = _mills(z)
        ln_tail = _ln_of_fixed(mills) - LN_SQRT_TAU - (z * z >> (FRACTION + 1))
        z += mills * (ln_tail - ln_q) >> FRACTION
    size = ldexp(float(z), -FRACTION)
    return size if p > 0.5 else -size


# -- in doubles --------------------------------------------------------------------------------------------------------
def _scaled_exp(high: float, low: float, k: int) -> float:
    """Return exp(high − low)·2ᵏ, for |high| at most .35 and a small low.

    eʳ = 1 + r + r·c/(2 − c) with c = r − (r·coth(r/2) − 2).
    """
    r = high - low
    t = r * r
    c = r - t * (B2 + t * (B4 + t * (B6 + t * (B8 + t * (B10 + t * B12)))))
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    return ldexp(y, k)


# Coefficients of r·coth(r/2) − 2 = 2·Σ B₂ₙ·r²ⁿ/(2n)!; the next term is below 2⁻⁵⁶ of r.
B2: Final = 1.0 / 6.0
B4: Final = -1.0 / 360.0
B6: Final = 1.0 / 15_120.0
B8: Final = -1.0 / 604_800.0
B10: Final = 1.0 / 23_950_080.0
B12: Final = -691.0 / 653_837_184_000.0

# Coefficients of 2·artanh(s)/s − 2 in s².
L3: Final = 2.0 / 3.0
L5: Final = 2.0 / 5.0
L7: Final = 2.0 / 7.0
L9: Final = 2.0 / 9.0
L11: Final = 2.0 / 11.0
L13: Final = 2.0 / 13.0
L15: Final = 2.0 / 15.0
L17: Final = 2.0 / 17.0
L19: Final = 2.0 / 19.0
L21: Final = 2.0 / 21.0


def _rough_quantile(minus_ln_tail: float) -> float:
    t = sqrt(2.0 * minus_ln_tail)
    top = 2.515517 + t * (0.802853 + t * 0.010328)
    return max(0.0, t - top / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))))


def _refuse(argument: str, rule: str, value: object) -> NoReturn:
    message = f"{argument} must be {rule}, was {value}"
    raise ValueError(message) from None


# -- in integers: n stands for n · 2**-128 -----------------------------------------------------------------------------
FRACTION: Final = 128
ONE: Final = 1 << FRACTION


def _fixed(x: float) -> int:
    """Return x as a fixed-point integer, truncated."""
    top, bottom = x.as_integer_ratio()
    return (top << FRACTION) // bottom


def _twice_artanh(s: int) -> int:
    """Return 2·artanh(s) for |s| at most 1/128; the series ends below 2⁻¹²⁸."""
    z = s * s >> FRACTION
    total = 0
    for reciprocal in ODD_RECIPROCALS:
        total = (total * z >> FRACTION) + reciprocal
    return s * total >> (FRACTION - 1)


def _ln_of_ratio(n: int, exponent: int) -> int:
    """Return ln(n·2^exponent) for a positive n: the nearest 64th from the table, the rest by artanh.

    Close to 1 the table gives 0, or ln 2 − ln 2, so the result keeps the relative precision of n.
    """
    bits = n.bit_length()
    if bits < 8:
        n <<= 8 - bits
        exponent -= 8 - bits
        bits = 8
    step = bits - 7
    j = (n + (1 << (step - 1))) >> step
    centre = j << step
    s = ((n - centre) << FRACTION) // (n + centre)
    return (exponent + bits - 1) * LN2 + LN_TABLE[j - 64] + _twice_artanh(s)


def _ln_of_double(x: float) -> int:
    m, e = frexp(x)
    return _ln_of_ratio(int(ldexp(m, 53)), e - 53)


def _ln_of_fixed(x: int) -> int:
    return _ln_of_ratio(x, -FRACTION)


def _exp_of_fixed(x: int) -> float:
    """Return exp(x) as a double: an exact reduction by ln 2, the rest in two doubles."""
    if x < FIXED_EXP_MIN:
        return 0.0
    k = (2 * x + LN2) // (2 * LN2)
    rest = x - k * LN2
    high = float(rest)
    return _scaled_exp(ldexp(high, -FRACTION), ldexp(float(int(high) - rest), -FRACTION), k)


def _mills(z: int) -> int:
    """Return Q(z)/φ(z) of the standard normal, for z at least about 0.

    Below 4, √(π/2)·exp(z²/2) − Σ z²ᵏ⁺¹/(2k+1)!!; above, Laplace's continued fraction 1/(z + 1/(z + 2/(z + …))).
    """
    if z >= 4 * ONE:
        tail = z
        for k in range(MILLS_TERMS, 0, -1):
            tail = z + (k << 2 * FRACTION) // tail
        return ONE * ONE // tail
    half_square = z * z >> (FRACTION + 1)
    even, odd, k = ONE, z, 0
    even_sum = odd_sum = 0
    while even or odd:
        even_sum += even
        odd_sum += odd
        k += 1
        even = (even * half_square >> FRACTION) // k
        odd = (2 * odd * half_square >> FRACTION) // (2 * k + 1)
    return (SQRT_HALF_PI * even_sum >> FRACTION) - odd_sum


def _ln_table() -> tuple[int, ...]:
    """Return ln(j/64) for j = 64 … 128, each from the one before."""
    table = [0]
    for j in range(64, 128):
        table.append(table[-1] + _twice_artanh(ONE // (2 * j + 1)))
    return tuple(table)


MILLS_TERMS: Final = 60
QUANTILE_STEPS: Final = 3
"""Newton steps, with errors 4.5e-4 → 8e-8 → 3e-15 → 3e-30; near z = 0 the start's error is little above z²."""
SQRT_HALF_PI: Final = 0x1_40D931FF_62705965_7CA41FAE_722CEE30
LN_SQRT_TAU: Final = 0xEB3F8E43_25F5A534_94BC9001_44192024
ODD_RECIPROCALS: Final = tuple(ONE // odd for odd in range(19, 0, -2))
LN_TABLE: Final = _ln_table()
LN2: Final = LN_TABLE[-1]
FIXED_EXP_MIN: Final = -746 * ONE
