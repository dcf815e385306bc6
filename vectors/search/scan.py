#!/usr/bin/env python3
"""Vectors for search/scan, independent of the JavaScript reference: exact rational sums, 60-digit square roots.

  python3 vectors/search/scan.py            writes scan.json beside this file
  python3 vectors/search/scan.py --check    fails where the committed file differs
"""
import math
import os
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import bf16, bf16_bits, emit, f16, f16_bits, f32  # noqa: E402

getcontext().prec = 60


def score(metric, query, row):
    """The score as a Decimal of 60 digits, or None for one that is not a number."""
    if any(math.isnan(v) for v in query) or any(math.isnan(v) for v in row):
        return None
    if any(math.isinf(v) for v in row) or any(math.isinf(v) for v in query):
        raise ValueError("infinite values have stated answers, tested elsewhere")
    q = [Fraction(v) for v in query]
    x = [Fraction(v) for v in row]

    def decimal(value):
        return Decimal(value.numerator) / Decimal(value.denominator)

    if metric == "l2":
        return decimal(sum((a - b) ** 2 for a, b in zip(q, x)))
    dot = sum(a * b for a, b in zip(q, x))
    if metric == "ip":
        return decimal(dot)
    norms = sum(a * a for a in q) * sum(b * b for b in x)
    return Decimal(0) if norms == 0 else decimal(dot) / decimal(norms).sqrt()


def rows_of(dtype, values, dim, rng):
    """(stored rows, scales or None, the rows as exact numbers)"""
    if dtype == "f32":
        stored = [f32(v) for v in values]
        return stored, None, stored
    if dtype == "f16":
        stored = [f16_bits(v) for v in values]
        return stored, None, [f16(b) for b in stored]
    if dtype == "bf16":
        stored = [bf16_bits(v) for v in values]
        return stored, None, [bf16(b) for b in stored]
    stored = [rng.randint(-128, 127) for _ in values]
    count = len(values) // dim
    scales = [f32(rng.choice([1, -1]) * 2 ** rng.randint(-6, 3) * rng.uniform(1, 2)) for _ in range(count)]
    exact = [Fraction(v) * Fraction(scales[i // dim]) for i, v in enumerate(stored)]
    return stored, scales, exact


def case(name, dtype, metric, batch, count, dim, k, rng, filtered, grid):
    def value():
        return rng.randint(-6, 6) / 4 if grid else rng.gauss(0, 1)

    queries = [f32(value()) for _ in range(batch * dim)]
    stored, scales, exact = rows_of(dtype, [value() for _ in range(count * dim)], dim, rng)
    allowed = [r for r in range(count) if not filtered or rng.random() < 0.6]
    ids, scores, found = [], [], []
    for q in range(batch):
        query = queries[q * dim : (q + 1) * dim]
        results = []
        for r in allowed:
            s = score(metric, query, exact[r * dim : (r + 1) * dim])
            if s is not None:
                results.append((-s if metric != "l2" else s, r, s))
        # Rows whose scores round to the same f32 tie in the op; here they must be exactly equal or well apart.
        ordered = sorted(results)
        for a, b in zip(ordered, ordered[1:]):
            assert a[0] == b[0] or f32(float(a[2])) != f32(float(b[2])), f"{name}: rows {a[1]} and {b[1]} are too close"
        best = ordered[:k]
        worst = math.inf if metric == "l2" else -math.inf
        ids.append([r for _, r, _ in best] + [-1] * (k - len(best)))
        scores.append([float(s) for _, _, s in best] + [worst] * (k - len(best)))
        found.append(len(best))
    return {
        "name": name,
        "axes": {"batch": batch, "count": count, "dim": dim, "k": k},
        "variant": {"metric": metric, "rows": dtype, "filter": filtered},
        "inputs": {"queries": queries, "rows": stored, **({"rowScale": scales} if scales else {}), **({"allowed": allowed} if filtered else {})},
        "expected": {"ids": ids, "scores": [[("Infinity" if s > 0 else "-Infinity") if math.isinf(s) else s for s in row] for row in scores], "found": found},
    }


def main():
    rng = random.Random(20261121)
    shapes = [(1, 7, 5, 3), (3, 20, 13, 6), (2, 33, 24, 10)]
    cases = []
    for dtype in ["f32", "f16", "bf16", "i8"]:
        for metric in ["cos", "ip", "l2"]:
            for i, (batch, count, dim, k) in enumerate(shapes):
                filtered, grid = i == 1, i == 2 and metric != "cos" and dtype != "i8"
                cases.append(case(f"{dtype} {metric} {batch} x {count} x {dim}", dtype, metric, batch, count, dim, k, rng, filtered, grid))
    cases.append(case("fewer rows pass than k", "f32", "ip", 2, 6, 4, 6, rng, True, False))
    emit(__file__, {"scan.json": cases})


main()
