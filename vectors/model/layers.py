#!/usr/bin/env python3
"""Vectors for the ops of the model family, independent of the JavaScript references: exact rational products,
exponentials and roots of 50 digits.

  python3 vectors/model/layers.py            writes linear.json, rms-norm.json, swiglu.json, embedding.json beside this file
  python3 vectors/model/layers.py --check    fails where a committed file differs
"""
import os
import random
import struct
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import bf16, bf16_bits, emit, f16, f16_bits, f32  # noqa: E402

getcontext().prec = 50


def decimal(x):
    x = Fraction(x)
    return Decimal(x.numerator) / Decimal(x.denominator)


def stored(dtype, rows, width, rng):
    """(storage elements, each row as exact numbers)"""
    if dtype == "q8_0":
        elements, exact = [], []
        for _ in range(rows):
            row = []
            for _ in range(width // 32):
                scale = f16_bits(rng.uniform(-0.02, 0.02))
                values = [rng.randint(-127, 127) for _ in range(32)]
                elements += list(struct.pack("<H32b", scale, *values))
                row += [Fraction(f16(scale)) * v for v in values]
            exact.append(row)
        return elements, exact
    values = [rng.gauss(0, 1) for _ in range(rows * width)]
    if dtype == "f32":
        elements = exact = [f32(v) for v in values]
    elif dtype == "f16":
        elements = [f16_bits(v) for v in values]
        exact = [f16(b) for b in elements]
    else:
        elements = [bf16_bits(v) for v in values]
        exact = [bf16(b) for b in elements]
    return elements, [[Fraction(v) for v in exact[r * width : (r + 1) * width]] for r in range(rows)]


def case(name, axes, variant, inputs, expected, scalars=None):
    return {"name": name, "axes": axes, "variant": variant, "scalars": scalars or {}, "inputs": inputs, "expected": expected}


def linear(dtype, tokens, in_dim, out_dim, besides, rng):
    elements, rows = stored(dtype, out_dim, in_dim, rng)
    x = [f32(rng.gauss(0, 1)) for _ in range(tokens * in_dim)]
    b = [f32(rng.gauss(0, 1)) for _ in range(out_dim)]
    out = [
        float(sum(Fraction(x[t * in_dim + i]) * rows[o][i] for i in range(in_dim)) + (Fraction(b[o]) if besides else 0))
        for t in range(tokens)
        for o in range(out_dim)
    ]
    inputs = {"x": x, "weight": elements} | ({"bias": b} if besides else {})
    if besides == "bias and residual":
        residual = [f32(rng.gauss(0, 1)) for _ in range(tokens * out_dim)]
        out = [float(Fraction(sum_) + Fraction(r)) for sum_, r in zip(out, residual)]
        inputs["residual"] = residual
    axes = {"tokens": tokens, "inDim": in_dim, "outDim": out_dim}
    variant = {"weight": dtype, "bias": "bias" in inputs, "residual": "residual" in inputs}
    return case(f"{dtype}, {besides or 'no bias'}", axes, variant, inputs, {"out": out})


def embedding(dtype, rng):
    elements, rows = stored(dtype, 4, 32, rng)
    ids = [3, 0, 3, 1]
    return case(dtype, {"tokens": 4, "vocab": 4, "dim": 32}, {"table": dtype}, {"ids": ids, "table": elements}, {"out": [float(v) for i in ids for v in rows[i]]})


def rms_norm(tokens, dim, epsilon, rng):
    epsilon = f32(epsilon)
    x = [f32(rng.gauss(0, 1)) for _ in range(tokens * dim)]
    weight = [f32(rng.gauss(1, 1)) for _ in range(dim)]
    out = []
    for t in range(tokens):
        row = [decimal(v) for v in x[t * dim : (t + 1) * dim]]
        root = (sum(v * v for v in row) / dim + decimal(epsilon)).sqrt()
        out += [float(decimal(w) * v / root) for w, v in zip(weight, row)]
    return case(f"epsilon {epsilon:.0e}", {"tokens": tokens, "dim": dim}, {}, {"x": x, "weight": weight}, {"out": out}, {"epsilon": epsilon})


def swiglu(spread, rng):
    gate = [f32(rng.gauss(0, spread)) for _ in range(24)]
    up = [f32(rng.gauss(0, 1)) for _ in range(24)]
    out = [float(decimal(g) / (1 + (-decimal(g)).exp()) * decimal(u)) for g, u in zip(gate, up)]
    return case(f"gates of {spread}", {"tokens": 2, "dim": 12}, {}, {"gate": gate, "up": up}, {"out": out})


def main():
    rng = random.Random(20261121)
    kinds = ["f32", "f16", "bf16", "q8_0"]
    emit(
        __file__,
        {
            "linear.json": [linear(dtype, 2, 64, 3, besides, rng) for dtype in kinds for besides in (None, "bias", "bias and residual")],
            "rms-norm.json": [rms_norm(2, 11, 1e-5, rng), rms_norm(3, 7, 0.5, rng)],
            "swiglu.json": [swiglu(1, rng), swiglu(20, rng)],
            "embedding.json": [embedding(dtype, rng) for dtype in kinds],
        },
    )


main()
