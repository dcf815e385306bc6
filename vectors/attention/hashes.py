#!/usr/bin/env python3
"""Vectors for attention/key-hashes and attention/hash-scores, independent of the JavaScript references: hashes as strings of
digits, compared letter by letter.

  python3 vectors/attention/hashes.py            writes key-hashes.json and hash-scores.json beside this file
  python3 vectors/attention/hashes.py --check    fails where a committed file differs
"""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit, f32  # noqa: E402


def signs(row):
    return "".join("1" if x < 0 else "0" for x in row)


def words(text):
    """The first letter is bit 0 of the first word."""
    return [int(text[i : i + 32][::-1], 2) for i in range(0, len(text), 32)]


def hashes_case(name, heads, bits, pages, page_size, slots, seed):
    rng = random.Random(seed)
    width = bits // 32
    keys = [f32(rng.gauss(0, 1)) for _ in range(len(slots) * heads * bits)]
    before = [rng.getrandbits(32) for _ in range(pages * heads * page_size * width)]
    after = list(before)
    for t, slot in enumerate(slots):
        for head in range(heads):
            if slot < 0:
                continue
            row = keys[(t * heads + head) * bits : (t * heads + head + 1) * bits]
            at = ((slot // page_size * heads + head) * page_size + slot % page_size) * width
            after[at : at + width] = words(signs(row))
    return {
        "name": name,
        "axes": {"tokens": len(slots), "kvHeads": heads, "bits": bits, "pages": pages, "pageSize": page_size},
        "variant": {},
        "scalars": {},
        "inputs": {"keys": keys, "slots": slots, "hashPages": before},
        "expected": {"hashPages": after},
    }


def scores_case(name, heads, bits, page_size, granularity, max_pages, lengths, seed):
    rng = random.Random(seed)
    query_heads, kv_heads = heads
    pages = len(lengths) * max_pages + 1
    cached = ["".join(rng.choice("01") for _ in range(bits)) for _ in range(pages * kv_heads * page_size)]
    table = list(range(pages))
    rng.shuffle(table)
    table = table[: len(lengths) * max_pages]
    queries = [f32(rng.gauss(0, 1)) for _ in range(len(lengths) * query_heads * bits)]
    scores = []
    for b, length in enumerate(lengths):
        for kv_head in range(kv_heads):
            for first in range(0, max_pages * page_size, granularity):
                distances = []
                for t in range(first, min(length, first + granularity)):
                    slot = (table[b * max_pages + t // page_size] * kv_heads + kv_head) * page_size + t % page_size
                    distance = 0
                    for h in range(query_heads):
                        if h * kv_heads // query_heads == kv_head:
                            row = queries[(b * query_heads + h) * bits : (b * query_heads + h + 1) * bits]
                            distance += sum(x != y for x, y in zip(signs(row), cached[slot]))
                    distances.append(distance)
                scores.append(-min(distances) if distances else "-Infinity")
    axes = {"batch": len(lengths), "queryHeads": query_heads, "kvHeads": kv_heads, "bits": bits, "pages": pages}
    return {
        "name": name,
        "axes": axes | {"pageSize": page_size, "maxPages": max_pages, "granularity": granularity},
        "variant": {},
        "scalars": {},
        "inputs": {"queries": queries, "hashPages": [w for h in cached for w in words(h)], "pageTable": table, "lengths": lengths},
        "expected": {"scores": scores},
    }


emit(
    __file__,
    {
        "key-hashes.json": [
            hashes_case("32 bits", 2, 32, 2, 3, [5, -1, 0], 1),
            hashes_case("96 bits", 1, 96, 1, 2, [1, 0], 2),
        ],
        "hash-scores.json": [
            scores_case("64 bits, pages", (4, 2), 64, 4, 4, 3, [12, 7], 3),
            scores_case("32 bits, tokens", (2, 2), 32, 3, 1, 2, [5, 0], 4),
            scores_case("96 bits, granules of 2", (3, 1), 96, 4, 2, 2, [8, 3], 5),
        ],
    },
)
