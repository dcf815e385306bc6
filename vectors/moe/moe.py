#!/usr/bin/env python3
"""Vectors for the moe ops, independent of the JavaScript references: exact rational products, exponentials of 50 digits.

  python3 vectors/moe/moe.py            writes align.json, combine.json, grouped-ffn.json and route.json beside this file
  python3 vectors/moe/moe.py --check    fails where a committed file differs
"""
import os
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit, f16, f16_bits, f32  # noqa: E402

getcontext().prec = 50


def decimal(x):
    x = Fraction(x)
    return Decimal(x.numerator) / Decimal(x.denominator)


def floats(n, rng, spread=1.0):
    return [f32(rng.gauss(0, spread)) for _ in range(n)]


def vector(name, axes, variant, scalars, inputs, expected):
    return {"name": name, "axes": axes, "variant": variant, "scalars": scalars, "inputs": inputs, "expected": expected}


def route(name, tokens, experts, top_k, score, renormalise, rng, groups=(1, 1), bias=False, scale=1.0):
    count, kept = groups
    scale = f32(scale)
    logits = floats(tokens * experts, rng, 2)
    biases = floats(experts, rng, 0.3) if bias else None
    ids, weights = [], []
    for t in range(tokens):
        z = [decimal(v) for v in logits[t * experts : (t + 1) * experts]]
        if score == "softmax":
            total = sum(v.exp() for v in z)
            s = [v.exp() / total for v in z]
        else:
            s = [1 / (1 + (-v).exp()) for v in z]
        compared = [a + decimal(b) for a, b in zip(s, biases)] if bias else z
        size = experts // count

        def worth(group):
            best = sorted(compared[group * size : (group + 1) * size], reverse=True)
            return sum(best[:2]) if bias else best[0]

        good = sorted(range(count), key=worth, reverse=True)[:kept]
        chosen = sorted((e for e in range(experts) if e // size in good), key=lambda e: compared[e], reverse=True)[:top_k]
        by = decimal(scale) / (sum(s[e] for e in chosen) + Decimal(10) ** -20 if renormalise else 1)
        ids += chosen
        weights += [float(s[e] * by) for e in chosen]
    axes = {"tokens": tokens, "experts": experts, "topK": top_k, "groups": count, "keptGroups": kept}
    variant = {"score": score, "renormalise": renormalise, "bias": bias}
    inputs = {"logits": logits} | ({"bias": biases} if bias else {})
    return vector(name, axes, variant, {"scale": scale}, inputs, {"ids": ids, "weights": weights})


def align(name, ids, experts, block, spare=0):
    tokens, top_k = len(ids), len(ids[0])
    flat = sum(ids, [])
    rows, blocks = [], []
    for expert in range(experts):
        own = [i for i, e in enumerate(flat) if e == expert]
        own += [-1] * (-len(own) % block)
        rows += own
        blocks += [expert] * (len(own) // block)
    capacity = len(flat) + min(experts, len(flat)) * (block - 1) + spare
    expected = {"sorted": rows + [-1] * (capacity - len(rows)), "blockExpert": blocks + [-1] * (-(-capacity // block) - len(blocks)), "total": [len(rows)]}
    axes = {"tokens": tokens, "topK": top_k, "experts": experts, "blockSize": block, "capacity": capacity}
    return vector(name, axes, {}, {}, {"ids": flat}, expected)


def combine(name, tokens, top_k, dim, rng):
    rows, weights = floats(tokens * top_k * dim, rng), floats(tokens * top_k, rng)
    weights[0] = 0.0
    out = []
    for t in range(tokens):
        for i in range(dim):
            terms = [Fraction(weights[t * top_k + k]) * Fraction(rows[(t * top_k + k) * dim + i]) for k in range(top_k)]
            out.append(float(sum(terms)))
    return vector(name, {"tokens": tokens, "topK": top_k, "dim": dim}, {}, {}, {"rows": rows, "weights": weights}, {"out": out})


def matrix(dtype, rows, columns, rng):
    """(elements as stored, exact rows)"""
    if dtype == "f32":
        values = floats(rows * columns, rng)
        return values, [values[r * columns : (r + 1) * columns] for r in range(rows)]
    if dtype == "f16":
        bits = [f16_bits(v) for v in floats(rows * columns, rng)]
        return bits, [[f16(b) for b in bits[r * columns : (r + 1) * columns]] for r in range(rows)]
    stored, exact = [], []
    for _ in range(rows):
        row = []
        for _ in range(-(-columns // 32)):
            scale = f16_bits(rng.uniform(0.002, 0.03))
            q = [rng.randint(-127, 127) for _ in range(32)]
            stored += [scale & 255, scale >> 8] + [v & 255 for v in q]
            row += [Fraction(f16(scale)) * v for v in q]
        exact.append(row[:columns])
    return stored, exact


def ffn(name, dtype, tokens, top_k, experts, slots, dim, hidden, block, rng):
    x = floats(tokens * dim, rng)
    ids = [rng.randrange(experts) for _ in range(tokens * top_k)]
    expert_slot = [-1] * experts
    for i, e in enumerate(rng.sample(range(experts), min(slots, experts))):
        expert_slot[e] = i
    aligned = align("", [ids[t * top_k : (t + 1) * top_k] for t in range(tokens)], experts, block)
    gate, gates = matrix(dtype, slots * hidden, dim, rng)
    up, ups = matrix(dtype, slots * hidden, dim, rng)
    down, downs = matrix(dtype, slots * dim, hidden, rng)
    out = []
    for i, e in enumerate(ids):
        slot = expert_slot[e]
        if slot < 0:
            out += [0.0] * dim
            continue
        row = [Fraction(v) for v in x[i // top_k * dim : (i // top_k + 1) * dim]]
        inside = []
        for h in range(hidden):
            g = decimal(sum(a * Fraction(b) for a, b in zip(row, gates[slot * hidden + h])))
            u = decimal(sum(a * Fraction(b) for a, b in zip(row, ups[slot * hidden + h])))
            inside.append(g / (1 + (-g).exp()) * u)
        out += [float(sum(a * decimal(b) for a, b in zip(inside, downs[slot * dim + c]))) for c in range(dim)]
    axes = {"tokens": tokens, "topK": top_k, "experts": experts, "slots": slots, "dim": dim, "hidden": hidden, "blockSize": block, "capacity": aligned["axes"]["capacity"]}
    inputs = {"x": x, "sorted": aligned["expected"]["sorted"], "blockExpert": aligned["expected"]["blockExpert"], "expertSlot": expert_slot, "gate": gate, "up": up, "down": down}
    return vector(name, axes, {"gate": dtype}, {}, inputs, {"out": out})


def main():
    rng = random.Random(20261121)
    routes = [
        route("softmax", 3, 8, 3, "softmax", False, rng),
        route("softmax, renormalised", 3, 12, 4, "softmax", True, rng),
        route("softmax in groups, scaled", 3, 12, 3, "softmax", False, rng, groups=(4, 2), scale=16),
        route("sigmoid", 3, 7, 2, "sigmoid", False, rng),
        route("sigmoid with a bias in groups, renormalised, scaled", 3, 16, 4, "sigmoid", True, rng, groups=(4, 2), bias=True, scale=2.5),
        route("softmax with a bias", 3, 9, 3, "softmax", False, rng, bias=True),
    ]
    aligns = [
        align("vLLM's example", [[2, 3, 4], [1, 2, 4], [1, 3, 4], [1, 2, 3]], 5, 4),
        align("experts that are not here, room to spare", [[0, -1], [-1, 2], [0, 0], [1, -1]], 3, 2, 5),
        align("blocks of one", [[5, 1, 3]], 6, 1),
    ]
    combines = [combine("two experts", 3, 2, 5, rng), combine("one expert", 2, 1, 4, rng)]
    ffns = [
        ffn("f32", "f32", 3, 2, 4, 4, 6, 5, 2, rng),
        ffn("f16, slots for half", "f16", 3, 2, 4, 2, 5, 7, 4, rng),
        ffn("q8_0", "q8_0", 2, 2, 3, 3, 37, 33, 1, rng),
    ]
    emit(__file__, {"align.json": aligns, "combine.json": combines, "grouped-ffn.json": ffns, "route.json": routes})


main()
