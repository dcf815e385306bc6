#!/usr/bin/env python3
"""Vectors for attention/continual-single and attention/continual-retroactive, independent of the JavaScript references: streams
are fed token by token to a list that forgets its first, with exact rational products and exponentials of 50 digits. A
case is the step after the last but one token; its rows are the exact ones, so that kernels of any form may start from them.

  python3 vectors/attention/continual.py            writes continual-single.json and continual-retroactive.json beside this file
  python3 vectors/attention/continual.py --check    fails where a committed file differs
"""
import os
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit, f32  # noqa: E402

getcontext().prec = 50


def decimal(x):
    x = Fraction(x)
    return Decimal(x.numerator) / Decimal(x.denominator)


def attend(query, tokens, scale):
    """(logits, sum of exp(logit), values weighted by exp(logit))"""
    logits = [decimal(Fraction(scale) * sum(Fraction(a) * Fraction(b) for a, b in zip(query, key))) for _, key, _ in tokens]
    weights = [x.exp() for x in logits]
    weighted = [sum(w * Decimal(v[d]) for w, (_, _, v) in zip(weights, tokens)) for d in range(len(query))]
    return logits, sum(weights), weighted


class Stream:
    """The tokens of a window, oldest first, and where a ring would have each."""

    def __init__(self, window):
        self.window, self.tokens, self.count = window, [], 0

    def arrive(self, token):
        self.tokens = (self.tokens + [token])[-self.window :]
        self.count += 1

    def slots(self):
        return [(self.count - len(self.tokens) + i) % self.window for i in range(len(self.tokens))]

    def steps(self):
        return self.count if self.count < 2 * self.window else self.window + self.count % self.window

    def ring(self, width, item):
        out = [0.0] * (self.window * width)
        for slot, value in zip(self.slots(), map(item, self.tokens)):
            out[slot * width : (slot + 1) * width] = value
        return out


def case(name, heads, window, dim, counts, spread, rng):
    """One state for each number of tokens, the last of them arriving now."""
    scale = f32(dim**-0.5)
    inputs = {key: [] for key in ("query", "key", "value", "keyRing", "valueRing", "queryRing", "rows", "steps")}
    expected = {key: [] for key in ("keyRing", "valueRing", "queryRing", "steps", "out")}
    single = {"out": [], "lse": []}
    for count in counts:
        for head in range(heads):
            stream = Stream(window)

            def token():
                return tuple([f32(size * rng.gauss(0, 1)) for _ in range(dim)] for size in (spread, 1, 1))

            def rings(into):
                for i, ring in enumerate(("queryRing", "keyRing", "valueRing")):
                    into[ring] += stream.ring(dim, lambda t: t[i])

            for _ in range(count - 1):
                stream.arrive(token())
            rings(inputs)
            kept = []
            for query, _, _ in stream.tokens:
                logits, total, weighted = attend(query, stream.tokens, scale)
                power = int((max(logits) / Decimal(2).ln()).to_integral_value())
                kept.append([f32(float(x / Decimal(2) ** power)) for x in weighted] + [float(power), f32(float(total / Decimal(2) ** power)), 0.0])
            rows = [0.0] * (window * (dim + 3))
            for slot, row in zip(stream.slots(), kept):
                rows[slot * (dim + 3) : (slot + 1) * (dim + 3)] = row
            inputs["rows"] += rows
            if head == 0:
                inputs["steps"].append(stream.steps())
            newest = token()
            for i, port in enumerate(("query", "key", "value")):
                inputs[port] += newest[i]
            stream.arrive(newest)
            rings(expected)
            if head == 0:
                expected["steps"].append(stream.steps())
            answers = [attend(query, stream.tokens, scale) for query, _, _ in stream.tokens]
            out = [float(x / total) for _, total, weighted in answers for x in weighted]
            expected["out"] += out + [0.0] * (window * dim - len(out))
            single["out"] += out[-dim:]
            single["lse"].append(float(answers[-1][1].ln()))
    axes = {"streams": len(counts), "heads": heads, "window": window, "headDim": dim}
    plain = {key: value for key, value in inputs.items() if key not in ("queryRing", "rows")}
    common = {"name": name, "axes": axes, "variant": {}}
    state = {key: value for key, value in expected.items() if key not in ("queryRing", "out")}
    return (
        {**common, "scalars": {"scale": scale}, "inputs": plain, "expected": {**state, **single}},
        {**common, "scalars": {"scale": scale, "tolerance": f32(1e-5)}, "inputs": inputs, "expected": expected},
    )


def main():
    rng = random.Random(20261122)
    pairs = [
        case("first, middle and full windows", 2, 5, 6, [1, 2, 4, 5, 6, 9, 10, 11, 28], 1.0, rng),
        case("large logits", 1, 7, 8, [3, 8, 20], 16.0, rng),
        case("a window of one", 2, 1, 4, [1, 2, 3], 2.0, rng),
    ]
    emit(__file__, {"continual-single.json": [a for a, _ in pairs], "continual-retroactive.json": [b for _, b in pairs]})


main()
