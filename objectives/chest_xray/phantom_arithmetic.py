"""Elementary functions and random numbers that are the same to the last bit on every machine.

NumPy and the C library compute powers, exponentials, logarithms and angles by different
instructions on different CPUs, and results may differ in the last bit. One such bit can change a
grey value, and then two machines that train one study have different data. IEEE 754 defines the
results of +, -, *, / and the square root exactly. Everything here uses only these, each in a
separate call, so that no compiler can fuse two of them. The random bits are Philox's, whose stream
NumPy guarantees.

The accuracy suffices for a drawing: about three digits, mostly five.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", float, NDArray[np.float32], NDArray[np.float64])
"""A number, or an array of them."""

LN_2 = 0.6931471805599453
ROOT_HALF = 0.7071067811865476


def power(base: Real, doublings: int) -> Real:
    """Return base ** (2 ** doublings), by squaring."""
    for _ in range(doublings):
        base = base * base
    return base


def exponential(x: Real) -> Real:
    """Return e^x for |x| up to about 20: the Taylor polynomial at x / 64, squared six times."""
    z = x * (1 / 64)
    return power(1 + z * (1 + z * (1 / 2) * (1 + z * (1 / 3) * (1 + z * (1 / 4)))), 6)


def logarithm(x: Real) -> Real:
    """Return ln x for x > 0: of x = m 2^e, ln m by the series of 2 artanh z."""
    parts: tuple[Any, Any] = np.frexp(x)
    mantissa, exponent = parts
    z = (mantissa - ROOT_HALF) / (mantissa + ROOT_HALF)
    square = z * z
    series = 2 * z * (1 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7))))
    result: Real = series + (exponent.astype(mantissa.dtype) - 0.5) * LN_2
    return result


def sine(turns: Real) -> Real:
    """Return the sine of an angle in full turns: sin 2πt = t (1 - 4t²) P(t²) for |t| ≤ 1/2."""
    t = turns - np.floor(turns + 0.5)
    square = t * t
    # Fitted at Chebyshev nodes; the error is at most 2e-5.
    p = 6.283091666542517 + square * (
        -16.196863514165823 + square * (16.523694679214056 - square * 8.006699329577897)
    )
    result: Real = t * (1 - 4 * square) * p
    return result


def rotation(angle: float) -> tuple[float, float]:
    """Return cosine and sine of an angle in radians."""
    turns = angle * 0.15915494309189535
    return float(sine(turns + 0.25)), float(sine(turns))


def angle_of(x: Real, y: Real) -> Real:
    """Return the angle in radians of points with x > 0, by the series of a quarter of it."""
    z = y / (x + np.sqrt(x * x + y * y))
    z = z / (1 + np.sqrt(1 + z * z))
    square = z * z
    angle: Real = 4 * z * (1 - square * (1 / 3 - square * (1 / 5 - square * (1 / 7))))
    return angle


class Draws:
    """Random numbers from a separate stream, whose bits NumPy guarantees."""

    def __init__(self, key: np.random.SeedSequence) -> None:
        self._bits = np.random.Philox(key)
        self._ready: list[float] = []

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Return numbers in [0, 1): the upper 53 of each 64 bits."""
        raw: NDArray[np.uint64] = self._bits.random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def triangular(self, low: float, mode: float, high: float) -> float:
        """Return a triangularly distributed number, by the quantile function."""
        u, width = self.uniform(0, 1), high - low
        if u * width < mode - low:
            return low + float(np.sqrt(u * width * (mode - low)))
        return high - float(np.sqrt((1 - u) * width * (high - mode)))

    def normals(self, *shape: int) -> NDArray[np.float32]:
        """Return standard normal numbers, by the Box-Muller transform."""
        count = int(np.prod(shape))
        pairs = (count + 1) // 2
        u = self.uniforms(2 * pairs)
        far, turns = np.sqrt(-2 * logarithm(1 - u[:pairs])), u[pairs:]
        both = np.concatenate([far * sine(turns), far * sine(turns + 0.25)])
        return both[:count].astype(np.float32).reshape(shape)

    def normal(self, mean: float, spread: float) -> float:
        """Return a normal number; 64 are drawn at a time, which costs little more than one."""
        if not self._ready:
            self._ready = self.normals(64).tolist()
        return mean + spread * self._ready.pop()
