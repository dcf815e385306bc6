#!/usr/bin/env python3
"""Vectors for attention/page-stats and attention/page-scores, independent of the JavaScript references: exact rational sums,
roots of 50 digits, the bound of minmax as Quest states it.

  python3 vectors/attention/pages.py            writes page-stats.json and page-scores.json beside this file
  python3 vectors/attention/pages.py --check    fails where a committed file differs
"""
import os
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import bf16, bf16_bits, emit, f16, f16_bits, f32  # noqa: E402

getcontext().prec = 50


def stored(dtype, count, width, rng):
    """Elements as they lie in memory, their scales, and the rows they stand for."""
    values = [rng.gauss(0.3, 1) for _ in range(count * width)]
    scales = None
    if dtype == "i8":
        elements = [rng.randint(-127, 127) for _ in values]
        scales = [f32(rng.uniform(0.002, 0.03)) for _ in range(count)]
        exact = [Fraction(v) * Fraction(scales[i // width]) for i, v in enumerate(elements)]
    elif dtype == "f32":
        elements = [f32(v) for v in values]
        exact = [Fraction(v) for v in elements]
    else:
        bits, number = (f16_bits, f16) if dtype == "f16" else (bf16_bits, bf16)
        elements = [bits(v) for v in values]
        exact = [Fraction(number(b)) for b in elements]
    return elements, scales, [exact[r * width : (r + 1) * width] for r in range(count)]


def describe(kind, keys):
    """The two numbers of each component."""
    columns = list(zip(*keys))
    if kind == "minmax":
        return [min(c) for c in columns], [max(c) for c in columns]
    means = [sum(c) / len(c) for c in columns]
    variances = [sum((x - m) ** 2 for x in c) / len(c) for c, m in zip(columns, means)]
    return means, [(Decimal(v.numerator) / Decimal(v.denominator)).sqrt() for v in variances]


def stats_case(name, kind, dtype, heads, width, page_size, granularity, max_pages, lengths, kept, seed):
    rng = random.Random(seed)
    pages = len(lengths) * max_pages + 1
    elements, scales, rows = stored(dtype, pages * heads * page_size, width, rng)
    table = list(range(pages))
    rng.shuffle(table)
    table = table[: len(lengths) * max_pages]
    before = [f32(rng.gauss(50, 1)) for _ in range(2 * pages * heads * page_size // granularity * width)]
    after = list(before)
    for b, length in enumerate(lengths):
        for first in range(0, length, granularity):
            if first + granularity <= kept[b]:
                continue
            page = table[b * max_pages + first // page_size]
            for head in range(heads):
                slot = (page * heads + head) * page_size + first % page_size
                low, high = describe(kind, rows[slot : slot + min(granularity, length - first)])
                at = slot // granularity * 2 * width
                after[at : at + 2 * width] = [float(x) for x in [*low, *high]]
    inputs = {"keyPages": elements, "pageTable": table, "lengths": lengths, "from": kept, "pageStats": before}
    if scales:
        inputs["keyScale"] = scales
    axes = {"batch": len(lengths), "kvHeads": heads, "headDim": width, "pages": pages, "pageSize": page_size}
    return {
        "name": name,
        "axes": axes | {"maxPages": max_pages, "granularity": granularity},
        "variant": {"statistics": kind, "keyPages": dtype},
        "scalars": {},
        "inputs": inputs,
        "expected": {"pageStats": after},
    }


def scores_case(name, kind, pool, heads, width, page_size, granularity, max_pages, lengths, spread, seed):
    rng = random.Random(seed)
    query_heads, kv_heads = heads
    pages = len(lengths) * max_pages + 1
    per_page = page_size // granularity
    first = [f32(rng.gauss(0, 1)) for _ in range(pages * kv_heads * per_page * width)]
    second = [f32(abs(rng.gauss(0, 1)) + (x if kind == "minmax" else 0)) for x in first]
    stats = []
    for row in range(pages * kv_heads * per_page):
        stats += first[row * width : (row + 1) * width] + second[row * width : (row + 1) * width]
    table = list(range(pages))
    rng.shuffle(table)
    table = table[: len(lengths) * max_pages]
    queries = [f32(rng.gauss(0, 1)) for _ in range(len(lengths) * query_heads * width)]
    scores = []
    for b, length in enumerate(lengths):
        for kv_head in range(kv_heads):
            for g in range(max_pages * per_page):
                if g * granularity >= length:
                    scores.append("-Infinity")
                    continue
                row = (table[b * max_pages + g // per_page] * kv_heads + kv_head) * per_page + g % per_page
                low = [Fraction(x) for x in first[row * width : (row + 1) * width]]
                high = [Fraction(x) for x in second[row * width : (row + 1) * width]]
                each = []
                for h in range(query_heads):
                    if h * kv_heads // query_heads != kv_head:
                        continue
                    q = [Fraction(x) for x in queries[(b * query_heads + h) * width : (b * query_heads + h + 1) * width]]
                    if kind == "minmax":
                        each.append(sum(max(x * n, x * m) for x, n, m in zip(q, low, high)))
                    else:
                        each.append(sum(x * m + Fraction(spread) * abs(x) * d for x, m, d in zip(q, low, high)))
                scores.append(float(max(each) if pool == "max" else sum(each)))
    axes = {"batch": len(lengths), "queryHeads": query_heads, "kvHeads": kv_heads, "headDim": width, "pages": pages}
    return {
        "name": name,
        "axes": axes | {"pageSize": page_size, "maxPages": max_pages, "granularity": granularity},
        "variant": {"statistics": kind, "pool": pool},
        "scalars": {"spread": spread},
        "inputs": {"queries": queries, "pageStats": stats, "pageTable": table, "lengths": lengths},
        "expected": {"scores": scores},
    }


emit(
    __file__,
    {
        "page-stats.json": [
            stats_case("means of f32", "meanstd", "f32", 2, 3, 4, 4, 3, [12, 7], [0, 5], 1),
            stats_case("bounds of f16", "minmax", "f16", 2, 3, 4, 2, 3, [12, 7], [0, 5], 2),
            stats_case("means of i8", "meanstd", "i8", 1, 5, 6, 3, 2, [12, 4, 0], [3, 0, 0], 3),
            stats_case("bounds of i8", "minmax", "i8", 1, 5, 3, 3, 2, [6, 5], [0, 4], 4),
            stats_case("means of bf16", "meanstd", "bf16", 1, 4, 8, 8, 1, [7], [0], 5),
        ],
        "page-scores.json": [
            scores_case("means, summed", "meanstd", "sum", (4, 2), 5, 4, 4, 3, [12, 7], 0.5, 6),
            scores_case("means, the largest", "meanstd", "max", (4, 2), 5, 4, 2, 3, [12, 7], 0.5, 7),
            scores_case("bounds, summed", "minmax", "sum", (3, 1), 4, 4, 4, 3, [9, 0], 0.5, 8),
            scores_case("bounds, the largest", "minmax", "max", (6, 2), 4, 8, 4, 2, [16, 3], 0.5, 9),
            scores_case("means less than a deviation", "meanstd", "sum", (2, 2), 3, 2, 1, 2, [4, 1], -0.75, 10),
        ],
    },
)
