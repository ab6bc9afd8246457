"""FarmHash's Fingerprint64: the hash behind BigQuery's FARM_FINGERPRINT, the same on every machine.

Written from the description of ``farmhashna::Hash64`` in Google's FarmHash (https://github.com/google/farmhash, MIT).  All sums
and products are modulo 2**64; words are read little-endian.
"""

from __future__ import annotations

from collections.abc import Callable

_MASK = (1 << 64) - 1
_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F


def fingerprint64(data: bytes) -> int:
    """The fingerprint of some bytes, 0 … 2**64 - 1."""
    n = len(data)
    if n <= 16:
        return _short(data, n)
    if n <= 32:
        return _medium(data, n)
    if n <= 64:
        return _long(data, n)
    return _blocks(data, n)


def _word(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _turn(value: int, by: int) -> int:
    """Rotate right."""
    value &= _MASK
    return (value >> by) | (value << (64 - by)) & _MASK


def _fold(value: int) -> int:
    value &= _MASK
    return value ^ (value >> 47)


def _mix(u: int, v: int, mul: int) -> int:
    """Two words to one."""
    a = _fold(((u ^ v) & _MASK) * mul)
    b = _fold(((v ^ a) & _MASK) * mul)
    return b * mul & _MASK


def _short(data: bytes, n: int) -> int:
    if n >= 8:
        mul = _K2 + n * 2
        a, b = _word(data, 0) + _K2, _word(data, n - 8)
        return _mix(_turn(b, 37) * mul + a, (_turn(a, 25) + b) * mul, mul)
    if n >= 4:
        return _mix(n + (_word(data, 0, 4) << 3), _word(data, n - 4, 4), _K2 + n * 2)
    if n:
        y = data[0] + (data[n >> 1] << 8)
        z = n + (data[n - 1] << 2)
        return _fold(y * _K2 ^ z * _K0) * _K2 & _MASK
    return _K2


def _medium(data: bytes, n: int) -> int:
    mul = _K2 + n * 2
    a, b = _word(data, 0) * _K1, _word(data, 8)
    c, d = _word(data, n - 8) * mul, _word(data, n - 16) * _K2
    return _mix(_turn(a + b, 43) + _turn(c, 30) + d, a + _turn(b + _K2, 18) + c, mul)


def _long(data: bytes, n: int) -> int:
    mul = _K2 + n * 2
    a, b = _word(data, 0) * _K2, _word(data, 8)
    c, d = _word(data, n - 8) * mul, _word(data, n - 16) * _K2
    y = _turn(a + b, 43) + _turn(c, 30) + d
    z = _mix(y, a + _turn(b + _K2, 18) + c, mul)
    e, f = _word(data, 16) * mul, _word(data, 24)
    g, h = (y + _word(data, n - 32)) * mul, (z + _word(data, n - 24)) * mul
    return _mix(_turn(e + f, 43) + _turn(g, 30) + h, e + _turn(f + a, 18) + g, mul)


def _weak(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    """32 bytes and two seeds to two words."""
    w, x, y, z = (_word(data, at + 8 * i) for i in range(4))
    a += w
    b = _turn(b + a + z, 21)
    c = a
    a += x + y
    b += _turn(a, 44)
    return (a + z) & _MASK, (b + c) & _MASK


def _blocks(data: bytes, n: int) -> int:
    seed = 81
    state = (seed * _K2 + _word(data, 0), seed * _K1 + 113, _fold((seed * _K1 + 113) * _K2 + 113) * _K2, (0, 0), (0, 0))
    end = (n - 1) // 64 * 64
    for at in range(0, end, 64):
        state = _round(data, at, state, _K1, 1)
    x, y, z, v, w = state
    mul = _K1 + ((z & 0xFF) << 1)
    w = (w[0] + ((n - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    x, y, z, v, w = _round(data, n - 64, (x, y, z, v, w), mul, 9)
    return _mix(_mix(v[0], w[0], mul) + _fold(y) * _K0 + z, _mix(v[1], w[1], mul) + x, mul)


_State = tuple[int, int, int, tuple[int, int], tuple[int, int]]


def _round(data: bytes, at: int, state: _State, mul: int, factor: int) -> _State:
    """One block of 64 bytes."""
    x, y, z, v, w = state
    read: Callable[[int], int] = lambda offset: _word(data, at + offset)  # noqa: E731
    x = _turn(x + y + v[0] + read(8), 37) * mul
    y = _turn(y + v[1] + read(48), 42) * mul
    x = (x ^ w[1] * factor) & _MASK
    y = (y + v[0] * factor + read(40)) & _MASK
    z = _turn(z + w[0], 33) * mul & _MASK
    v = _weak(data, at, v[1] * mul, x + w[0])
    w = _weak(data, at + 32, z + w[1], y + read(16))
    return z, y, x, v, w
