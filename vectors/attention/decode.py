#!/usr/bin/env python3
"""Vectors for attention/decode and attention/merge, independent of the JavaScript references: exact rational products,
exponentials and logarithms of 50 digits.

  python3 vectors/attention/decode.py            writes decode.json and merge.json beside this file
  python3 vectors/attention/decode.py --check    fails where a committed file differs
"""
import os
import random
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
    """(elements, scales or None, each row as exact numbers)"""
    values = [rng.gauss(0, 1) for _ in range(rows * width)]
    scales = None
    if dtype == "f32":
        elements = exact = [f32(v) for v in values]
    elif dtype == "f16":
        elements = [f16_bits(v) for v in values]
        exact = [f16(b) for b in elements]
    elif dtype == "bf16":
        elements = [bf16_bits(v) for v in values]
        exact = [bf16(b) for b in elements]
    else:
        elements = [rng.randint(-127, 127) for _ in values]
        scales = [f32(rng.uniform(0.002, 0.03)) for _ in range(rows)]
        exact = [Fraction(v) * Fraction(scales[i // width]) for i, v in enumerate(elements)]
    return elements, scales, [exact[r * width : (r + 1) * width] for r in range(rows)]


def tanh(x):
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


def join(logits, values, width, sink=None):
    """(out, lse) of weights exp(logit); None stands for a log-sum-exp of minus infinity."""
    every = logits + ([sink] if sink is not None else [])
    if not every:
        return [Decimal(0)] * width, None
    top = max(every)
    total = sum((x - top).exp() for x in every)
    out = [sum((x - top).exp() * v[i] for x, v in zip(logits, values)) / total if logits else Decimal(0) for i in range(width)]
    return out, top + total.ln()


def bias(mask, row, t, width):
    """What a mask adds to a logit: None hides it."""
    if mask is None:
        return Decimal(0)
    dtype, elements = mask
    if dtype == "f32":
        value = elements[row * width + t]
        return None if value == "-Infinity" else decimal(value)
    word = elements[row * -(-width // 32) + t // 32]
    return Decimal(0) if word >> (t % 32) & 1 else None


def masked(dtype, rows, width, rng):
    seen = [rng.random() < 0.6 for _ in range(rows * width)]
    if dtype == "f32":
        return [f32(rng.gauss(0, 2)) if s else "-Infinity" for s in seen]
    words = -(-width // 32)
    return [sum(seen[r * width + t] << (t % 32) for t in range(w * 32, min(width, w * 32 + 32))) for r in range(rows) for w in range(words)]


def decode(name, dtype, heads, dims, page, lengths, rng, sinks=False, cap=0.0, window=0, scale=None, slopes=False, mask=False, mask_heads=1):
    (query_heads, kv_heads), (head_dim, value_dim), (page_size, max_pages) = heads, dims, page
    batch, pages = len(lengths), len(lengths) * max_pages + 2
    scale = f32(head_dim**-0.5 if scale is None else scale)
    rows = pages * kv_heads * page_size
    keys, key_scale, k = stored(dtype, rows, head_dim, rng)
    values, value_scale, v = stored(dtype, rows, value_dim, rng)
    queries = [f32(rng.gauss(0, 1)) for _ in range(batch * query_heads * head_dim)]
    order = list(range(pages))
    rng.shuffle(order)
    table = [order[i] for i in range(batch * max_pages)]
    sink = [f32(rng.gauss(1, 1)) for _ in range(query_heads)] if sinks else None
    slope = [f32(rng.uniform(-0.2, 0.5)) for _ in range(query_heads)] if slopes else None
    capacity = page_size * max_pages
    hidden = (mask, masked(mask, batch * mask_heads, capacity, rng)) if mask else None
    out, lse = [], []
    for b in range(batch):
        for h in range(query_heads):
            q = queries[(b * query_heads + h) * head_dim :][:head_dim]
            logits, attended = [], []
            for t in range(max(0, lengths[b] - window) if window else 0, lengths[b]):
                slot = (table[b * max_pages + t // page_size] * kv_heads + h // (query_heads // kv_heads)) * page_size + t % page_size
                x = decimal(sum(Fraction(a) * Fraction(c) for a, c in zip(q, k[slot])) * Fraction(scale))
                x = decimal(cap) * tanh(x / decimal(cap)) if cap else x
                if slopes:
                    x -= decimal(slope[h]) * (lengths[b] - 1 - t)
                added = bias(hidden, b * mask_heads + (h if mask_heads > 1 else 0), t, capacity)
                if added is None:
                    continue
                logits.append(x + added)
                attended.append([decimal(value) for value in v[slot]])
            o, l = join(logits, attended, value_dim, decimal(sink[h]) if sinks else None)
            out += [float(x) for x in o]
            lse.append("-Infinity" if l is None else float(l))
    inputs = {"queries": queries, "keyPages": keys, "valuePages": values, "pageTable": table, "lengths": lengths}
    if dtype == "i8":
        inputs |= {"keyScale": key_scale, "valueScale": value_scale}
    if sinks:
        inputs["sinks"] = sink
    if slopes:
        inputs["slopes"] = slope
    if mask:
        inputs["mask"] = hidden[1]
    return {
        "name": name,
        "axes": {"batch": batch, "queryHeads": query_heads, "kvHeads": kv_heads, "headDim": head_dim, "valueDim": value_dim, "pages": pages, "pageSize": page_size, "maxPages": max_pages, "maskHeads": mask_heads},
        "variant": {"keyPages": dtype, "sinks": sinks, "slopes": slopes, "mask": mask},
        "scalars": {"scale": scale, "softCap": cap, "window": window},
        "inputs": inputs,
        "expected": {"out": out, "lse": lse},
    }


def merge(name, parts, rows, width, empty, rng):
    part_out = [f32(rng.gauss(0, 1)) for _ in range(parts * rows * width)]
    part_lse = ["-Infinity" if rng.random() < empty else f32(rng.gauss(0, 4)) for _ in range(parts * rows)]
    out, lse = [], []
    for row in range(rows):
        seen = [p for p in range(parts) if part_lse[p * rows + row] != "-Infinity"]
        o, l = join([decimal(part_lse[p * rows + row]) for p in seen], [[decimal(x) for x in part_out[(p * rows + row) * width :][:width]] for p in seen], width)
        out += [float(x) for x in o]
        lse.append("-Infinity" if l is None else float(l))
    return {"name": name, "axes": {"parts": parts, "rows": rows, "valueDim": width}, "variant": {}, "scalars": {}, "inputs": {"partOut": part_out, "partLse": part_lse}, "expected": {"out": out, "lse": lse}}


def main():
    rng = random.Random(20261121)
    decodes = []
    for dtype in ["f32", "f16", "bf16", "i8"]:
        decodes.append(decode(f"{dtype}, grouped, ragged", dtype, (4, 2), (8, 8), (4, 3), [11, 0, 5], rng))
        decodes.append(decode(f"{dtype}, sinks", dtype, (3, 1), (5, 7), (3, 2), [6, 0], rng, sinks=True))
        decodes.append(decode(f"{dtype}, window and soft cap", dtype, (2, 2), (6, 4), (5, 2), [9, 3], rng, cap=1.5, window=4, scale=0.9))
    merges = [merge("all parts", 3, 4, 6, 0, rng), merge("empty parts", 4, 6, 3, 0.5, rng)]
    decodes.append(decode("f32, slopes", "f32", (4, 2), (8, 8), (4, 3), [11, 0, 5], rng, slopes=True))
    decodes.append(decode("f16, mask of bits a head, sinks", "f16", (4, 2), (6, 4), (7, 5), [34, 9], rng, sinks=True, mask="bits", mask_heads=4))
    decodes.append(decode("i8, everything", "i8", (4, 2), (6, 4), (5, 3), [15, 9], rng, sinks=True, cap=1.5, window=11, slopes=True, mask="f32"))
    emit(__file__, {"decode.json": decodes, "merge.json": merges})


main()
