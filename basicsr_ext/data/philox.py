"""Random numbers that are counted, not drawn: those of many samples at once.

A generator for every sample would take longer to make than the sample's crops take to read.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
_KEY_STEPS = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


def philox4x64(key: tuple[int, int], counters: np.ndarray) -> np.ndarray:
    """Turns counters into random numbers: Philox-4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3".

    Args:
        key: Two integers, taken modulo 2^64.
        counters: uint64 array of shape (4, ...); the lowest word comes first.

    Returns:
        uint64 array of the same shape: four random numbers for each counter.
    """
    shape = (2,) + (1,) * (counters.ndim - 1)
    words = np.array([word & (2**64 - 1) for word in key], np.uint64).reshape(shape)
    even, odd = counters[::2], counters[1::2]
    for _ in range(_ROUNDS):
        high, low = _product(even, _MULTIPLIERS.reshape(shape))
        even, odd = high[::-1] ^ odd ^ words, low[::-1]
        words = words + _KEY_STEPS.reshape(shape)
    return np.stack([even[0], odd[0], even[1], odd[1]])


def _product(numbers: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiplies to 128 bits; returns the upper and the lower 64."""
    (high, low), (factor_high, factor_low) = ((x >> _HALF, x & _LOW) for x in (numbers, factors))
    middle = high * factor_low + (low * factor_low >> _HALF)
    upper = high * factor_high + (middle >> _HALF) + (low * factor_high + (middle & _LOW) >> _HALF)
    return upper, numbers * factors


def unit_doubles(words: np.ndarray) -> np.ndarray:
    """Makes float64 in [0, 1) of random uint64, as NumPy's generators do."""
    return (words >> np.uint64(11)) * 2.0**-53
