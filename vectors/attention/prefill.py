#!/usr/bin/env python3
"""Vectors for attention/prefill and attention/rope, independent of the JavaScript references: exact rational products,
exponentials of 50 digits, sines and cosines by their series in 60 digits.

  python3 vectors/attention/prefill.py            writes prefill.json and rope.json beside this file
  python3 vectors/attention/prefill.py --check    fails where a committed file differs
"""
import os
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import bf16, bf16_bits, emit, f16, f16_bits, f32  # noqa: E402

getcontext().prec = 60


def decimal(x):
    x = Fraction(x)
    return Decimal(x.numerator) / Decimal(x.denominator)


def stored(dtype, count, rng):
    values = [rng.gauss(0, 1) for _ in range(count)]
    if dtype == "f32":
        return [f32(v) for v in values], [f32(v) for v in values]
    bits = [(f16_bits if dtype == "f16" else bf16_bits)(v) for v in values]
    return bits, [(f16 if dtype == "f16" else bf16)(b) for b in bits]


def prefill(name, dtype, shape, heads, width, page_size, rng, window=0, cap=0.0):
    query_heads, kv_heads = heads
    batch, max_pages = len(shape), max(-(-n // page_size) for _, n in shape)
    pages, tokens = batch * max_pages + 1, sum(q for q, _ in shape)
    scale = f32(width**-0.5)
    rows = pages * kv_heads * page_size
    keys, k = stored(dtype, rows * width, rng)
    values, v = stored(dtype, rows * width, rng)
    queries = [f32(rng.gauss(0, 1)) for _ in range(tokens * query_heads * width)]
    table = list(range(pages))
    rng.shuffle(table)
    table = table[: batch * max_pages]
    out, lse, offsets = [], [], [0]
    for b, (n, length) in enumerate(shape):
        offsets.append(offsets[-1] + n)
        for i in range(n):
            seen = max(0, length - n + i + 1)
            for h in range(query_heads):
                q = queries[((offsets[b] + i) * query_heads + h) * width :][:width]
                logits, attended = [], []
                for t in range(max(0, seen - window) if window else 0, seen):
                    slot = (table[b * max_pages + t // page_size] * kv_heads + h * kv_heads // query_heads) * page_size + t % page_size
                    x = decimal(sum(Fraction(a) * Fraction(c) for a, c in zip(q, k[slot * width : (slot + 1) * width])) * Fraction(scale))
                    if cap:
                        e = (2 * x / decimal(cap)).exp()
                        x = decimal(cap) * (e - 1) / (e + 1)
                    logits.append(x)
                    attended.append([decimal(a) for a in v[slot * width : (slot + 1) * width]])
                top = max(logits, default=Decimal(0))
                weights = [(x - top).exp() for x in logits]
                total = sum(weights)
                out += [float(sum(w * a[d] for w, a in zip(weights, attended)) / total) if seen else 0 for d in range(width)]
                lse.append(float(top + total.ln()) if seen else "-Infinity")
    axes = {"tokens": tokens, "batch": batch, "queryHeads": query_heads, "kvHeads": kv_heads, "headDim": width, "valueDim": width, "pages": pages, "pageSize": page_size, "maxPages": max_pages}
    inputs = {"queries": queries, "keyPages": keys, "valuePages": values, "pageTable": table, "queryOffsets": offsets, "lengths": [n for _, n in shape]}
    return {"name": name, "axes": axes, "variant": {"keyPages": dtype}, "scalars": {"scale": scale, "softCap": cap, "window": window}, "inputs": inputs, "expected": {"out": out, "lse": lse}}


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")


def sine(x):
    """The sine and cosine of a decimal."""
    x -= 2 * PI * (x / (2 * PI)).to_integral_value()
    s = c = Decimal(0)
    term = Decimal(1)
    for n in range(60):
        if n % 2:
            s += term if n % 4 == 1 else -term
        else:
            c += term if n % 4 == 0 else -term
        term = term * x / (n + 1)
    return s, c


def rope(name, pairs, heads, width, turned, theta, given, rng):
    tokens = 3
    theta = f32(theta)
    x = [f32(rng.gauss(0, 1)) for _ in range(tokens * heads * width)]
    positions = [rng.randint(0, 3000) for _ in range(tokens)]
    frequencies = [f32(rng.random()) for _ in range(turned)] if given else None
    out = list(x)
    for t in range(tokens):
        for h in range(heads):
            for i in range(turned):
                frequency = decimal(frequencies[i]) if given else decimal(theta) ** (-Decimal(i) / turned)
                s, c = sine(positions[t] * frequency)
                a = (t * heads + h) * width + (i if pairs == "half" else 2 * i)
                b = a + (turned if pairs == "half" else 1)
                out[a] = float(decimal(x[a]) * c - decimal(x[b]) * s)
                out[b] = float(decimal(x[a]) * s + decimal(x[b]) * c)
    inputs = {"x": x, "positions": positions} | ({"frequencies": frequencies} if given else {})
    axes = {"tokens": tokens, "heads": heads, "headDim": width, "rotaryPairs": turned}
    return {"name": name, "axes": axes, "variant": {"pairs": pairs, "frequencies": given}, "scalars": {"theta": theta}, "inputs": inputs, "expected": {"out": out}}


def main():
    rng = random.Random(20261121)
    prefills = [prefill(f"{dtype}, grouped, ragged", dtype, [(3, 8), (4, 4), (3, 2)], (4, 2), 6, 3, rng) for dtype in ["f32", "f16", "bf16"]]
    prefills.append(prefill("window and soft cap", "f32", [(5, 9)], (2, 1), 5, 4, rng, window=3, cap=1.5))
    ropes = [
        rope(f"{pairs}{', given frequencies' if given else ''}", pairs, 2, 10, 4, 10000 if pairs == "half" else 500000, given, rng)
        for pairs in ["interleaved", "half"]
        for given in [False, True]
    ]
    emit(__file__, {"prefill.json": prefills, "rope.json": ropes})


main()
