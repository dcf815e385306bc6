#!/usr/bin/env python3
"""Vectors for attention/index-scores, independent of the JavaScript reference: exact rational sums.

  python3 vectors/attention/indexer.py            writes index-scores.json beside this file
  python3 vectors/attention/indexer.py --check    fails where the committed file differs
"""
import os
import random
import sys
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit, f32  # noqa: E402


def scores_case(name, heads, width, page_size, granularity, max_pages, lengths, seed):
    rng = random.Random(seed)
    pages = len(lengths) * max_pages + 1
    keys = [[rng.randint(-127, 127) for _ in range(width)] for _ in range(pages * page_size)]
    scales = [f32(rng.uniform(0.002, 0.03)) for _ in keys]
    table = list(range(pages))
    rng.shuffle(table)
    table = table[: len(lengths) * max_pages]
    queries = [[f32(rng.gauss(0, 1)) for _ in range(width)] for _ in range(len(lengths) * heads)]
    weights = [f32(rng.gauss(0.2, 1)) for _ in queries]
    scores = []
    for b, length in enumerate(lengths):
        for first in range(0, max_pages * page_size, granularity):
            tokens = []
            for t in range(first, min(length, first + granularity)):
                slot = table[b * max_pages + t // page_size] * page_size + t % page_size
                total = Fraction(0)
                for j in range(b * heads, (b + 1) * heads):
                    dot = sum(Fraction(q) * k for q, k in zip(queries[j], keys[slot])) * Fraction(scales[slot])
                    if dot > 0:
                        total += Fraction(weights[j]) * dot
                tokens.append(total)
            scores.append(float(max(tokens)) if tokens else "-Infinity")
    axes = {"batch": len(lengths), "heads": heads, "indexDim": width, "pages": pages, "pageSize": page_size}
    return {
        "name": name,
        "axes": axes | {"maxPages": max_pages, "granularity": granularity},
        "variant": {},
        "scalars": {},
        "inputs": {
            "queries": sum(queries, []),
            "weights": weights,
            "indexKeys": sum(keys, []),
            "indexScale": scales,
            "pageTable": table,
            "lengths": lengths,
        },
        "expected": {"scores": scores},
    }


emit(
    __file__,
    {
        "index-scores.json": [
            scores_case("four heads, pages", 4, 6, 4, 4, 3, [12, 7], 1),
            scores_case("one head, tokens", 1, 5, 3, 1, 2, [5, 0], 2),
            scores_case("three heads, granules of 2", 3, 9, 4, 2, 2, [8, 3], 3),
        ],
    },
)
