#!/usr/bin/env python3
"""Vectors for kv-cache/append and kv-cache/compact, from nested lists: pages[page][head][place] is a row.

  python3 vectors/kv-cache/append.py            writes append.json and compact.json beside this file
  python3 vectors/kv-cache/append.py --check    fails where a committed file differs
"""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import bf16_bits, emit, f16_bits, f32  # noqa: E402


def stored(row, dtype):
    """The row as the cache holds it, and its scale."""
    if dtype == "f32":
        return list(row), 0.0
    if dtype == "f16":
        return [f16_bits(x) for x in row], 0.0
    if dtype == "bf16":
        return [bf16_bits(x) for x in row], 0.0
    scale = f32(max(abs(x) for x in row) / 127)
    # Python rounds ties to even.
    return [max(-127, min(127, round(x / scale))) if scale > 0 else 0 for x in row], scale


def pages_of(rng, dtype, pages, heads, size, dim):
    def cell():
        return f32(rng.gauss(0, 1)) if dtype == "f32" else rng.randrange(-127, 128) if dtype == "i8" else f16_bits(rng.gauss(0, 1))

    return [[[[cell() for _ in range(dim)] for _ in range(size)] for _ in range(heads)] for _ in range(pages)]


def flat(value):
    return [x for part in value for x in flat(part)] if isinstance(value, list) else [value]


def caches(rng, dtype, pages, heads, size, dims):
    keys, values = (pages_of(rng, dtype, pages, heads, size, dim) for dim in dims)
    scales = [[[[f32(rng.uniform(0.01, 1)) for _ in range(size)] for _ in range(heads)] for _ in range(pages)] for _ in range(2)]
    return {"keyPages": keys, "valuePages": values}, {"keyScale": scales[0], "valueScale": scales[1]}


def flattened(pages, scales, dtype):
    return {name: flat(value) for name, value in {**pages, **(scales if dtype == "i8" else {})}.items()}


def append_case(rng, dtype, tokens, heads, dims, pages, size):
    cache, scales = caches(rng, dtype, pages, heads, size, dims)
    new = [[[[f32(rng.gauss(0, 2)) for _ in range(dim)] for _ in range(heads)] for _ in range(tokens)] for dim in dims]
    slots = [slot if rng.random() < 0.8 else -1 for slot in rng.sample(range(pages * size), tokens)]
    inputs = {"keys": flat(new[0]), "values": flat(new[1]), "slots": slots, **flattened(cache, scales, dtype)}
    for t, slot in enumerate(slots):
        for head in range(heads) if slot >= 0 else []:
            for side, name in enumerate(("key", "value")):
                row, scale = stored(new[side][t][head], dtype)
                cache[name + "Pages"][slot // size][head][slot % size] = row
                scales[name + "Scale"][slot // size][head][slot % size] = scale
    axes = {"tokens": tokens, "kvHeads": heads, "headDim": dims[0], "valueDim": dims[1], "pages": pages, "pageSize": size}
    return {"name": f"{tokens} tokens in {dtype}", "axes": axes, "variant": {"keyPages": dtype}, "inputs": inputs, "expected": flattened(cache, scales, dtype)}


def compact_case(rng, dtype, batch, heads, dims, size, most):
    pages = batch * most + 1
    cache, scales = caches(rng, dtype, pages, heads, size, dims)
    order = rng.sample(range(pages), batch * most)
    table = [order[b * most : (b + 1) * most] for b in range(batch)]
    lengths = [most * size - rng.randrange(size) for _ in range(batch)]
    kept = [[sorted(rng.sample(range(n), rng.randrange(n + 1))) for _ in range(heads)] for n in lengths]
    width = most * size
    inputs = {
        "pageTable": flat(table),
        "lengths": lengths,
        "kept": flat([[k + [-1] * (width - len(k)) for k in per] for per in kept]),
        "keptCount": flat([[len(k) for k in per] for per in kept]),
        **flattened(cache, scales, dtype),
    }
    for b in range(batch):
        for head in range(heads):
            for tensor in (*cache.values(), *scales.values()):
                rows = [tensor[table[b][t // size]][head][t % size] for t in kept[b][head]]
                for i, row in enumerate(rows):
                    tensor[table[b][i // size]][head][i % size] = row
    axes = {"batch": batch, "kvHeads": heads, "headDim": dims[0], "valueDim": dims[1], "pages": pages, "pageSize": size, "maxPages": most, "maxKept": width}
    return {"name": f"{batch} sequences in {dtype}", "axes": axes, "variant": {"keyPages": dtype}, "inputs": inputs, "expected": flattened(cache, scales, dtype)}


def main():
    rng = random.Random(20261122)
    dtypes = ["f32", "f16", "bf16", "i8"]
    emit(
        __file__,
        {
            "append.json": [append_case(rng, dtype, 5, 2, (6, 4), 3, 3) for dtype in dtypes],
            "compact.json": [compact_case(rng, dtype, 2, 2, (4, 3), 3, 2) for dtype in dtypes],
        },
    )


main()
