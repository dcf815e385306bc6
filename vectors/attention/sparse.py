#!/usr/bin/env python3
"""Vectors for attention/select, attention/decode-sparse and attention/decode-anchor, independent of the JavaScript
references: exact rational products, exponentials and logarithms of 50 digits; ranks by counting.

  python3 vectors/attention/sparse.py            writes select.json, decode-sparse.json and decode-anchor.json beside this file
  python3 vectors/attention/sparse.py --check    fails where a committed file differs
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


def tanh(x):
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


class Cache:
    """A paged cache with exact rows, queries and, perhaps, sinks."""

    def __init__(self, dtype, heads, dims, page, lengths, sinks, rng, slopes=False, mask=False, mask_heads=1):
        self.query_heads, self.kv_heads = heads
        self.head_dim, self.value_dim = dims
        self.page_size, self.max_pages = page
        self.dtype, self.lengths, self.batch = dtype, lengths, len(lengths)
        self.pages = self.batch * self.max_pages + 1
        rows = self.pages * self.kv_heads * self.page_size
        self.inputs = {}
        self.rows = {}
        for name, width in (("key", self.head_dim), ("value", self.value_dim)):
            self.rows[name] = self.stored(name, rows, width, rng)
        order = list(range(self.pages))
        rng.shuffle(order)
        self.queries = [f32(rng.gauss(0, 1)) for _ in range(self.batch * self.query_heads * self.head_dim)]
        self.table = order[: self.batch * self.max_pages]
        self.sinks = [f32(rng.gauss(1, 1)) for _ in range(self.query_heads)] if sinks else None
        self.inputs |= {"queries": self.queries, "pageTable": self.table, "lengths": lengths}
        if sinks:
            self.inputs["sinks"] = self.sinks
        self.slopes = [f32(rng.uniform(-0.2, 0.5)) for _ in range(self.query_heads)] if slopes else None
        self.mask, self.mask_heads = mask, mask_heads
        if slopes:
            self.inputs["slopes"] = self.slopes
        if mask:
            tokens = self.page_size * self.max_pages
            self.seen = [[rng.random() < 0.6 for _ in range(tokens)] for _ in range(self.batch * mask_heads)]
            self.added = [[f32(rng.gauss(0, 2)) for _ in row] for row in self.seen]
            if mask == "f32":
                self.inputs["mask"] = [a if s else "-Infinity" for row, adds in zip(self.seen, self.added) for s, a in zip(row, adds)]
            else:
                self.inputs["mask"] = [sum(row[t] << (t % 32) for t in range(w, min(tokens, w + 32))) for row in self.seen for w in range(0, tokens, 32)]

    def bias(self, b, h, t):
        """What joins a logit behind the cap; None where the token is hidden."""
        x = -decimal(self.slopes[h]) * (self.lengths[b] - 1 - t) if self.slopes else Decimal(0)
        if not self.mask:
            return x
        row = b * self.mask_heads + (h if self.mask_heads > 1 else 0)
        if not self.seen[row][t]:
            return None
        return x + decimal(self.added[row][t]) if self.mask == "f32" else x

    def variant(self):
        return {"keyPages": self.dtype, "sinks": self.sinks is not None, "slopes": self.slopes is not None, "mask": self.mask}

    def stored(self, name, rows, width, rng):
        values = [rng.gauss(0, 1) for _ in range(rows * width)]
        if self.dtype == "i8":
            elements = [rng.randint(-127, 127) for _ in values]
            scales = [f32(rng.uniform(0.002, 0.03)) for _ in range(rows)]
            self.inputs[f"{name}Scale"] = scales
            exact = [Fraction(v) * Fraction(scales[i // width]) for i, v in enumerate(elements)]
        elif self.dtype == "f32":
            elements = exact = [f32(v) for v in values]
        else:
            bits, number = (f16_bits, f16) if self.dtype == "f16" else (bf16_bits, bf16)
            elements = [bits(v) for v in values]
            exact = [number(b) for b in elements]
        self.inputs[f"{name}Pages"] = elements
        return [exact[r * width : (r + 1) * width] for r in range(rows)]

    def attend(self, b, h, tokens, scale, cap):
        """out, lse (None: minus infinity) and the weight of each token."""
        q = self.queries[(b * self.query_heads + h) * self.head_dim :][: self.head_dim]
        logits, values = [], []
        for t in tokens:
            page = self.table[b * self.max_pages + t // self.page_size]
            slot = (page * self.kv_heads + h * self.kv_heads // self.query_heads) * self.page_size + t % self.page_size
            x = decimal(sum(Fraction(a) * Fraction(c) for a, c in zip(q, self.rows["key"][slot])) * Fraction(scale))
            bias = self.bias(b, h, t)
            if bias is None:
                logits.append(None)
                values.append(None)
                continue
            logits.append((decimal(cap) * tanh(x / decimal(cap)) if cap else x) + bias)
            values.append([decimal(v) for v in self.rows["value"][slot]])
        every = [x for x in logits if x is not None] + ([decimal(self.sinks[h])] if self.sinks else [])
        if not every:
            return [0.0] * self.value_dim, "-Infinity", [Decimal(0) for _ in logits]
        top = max(every)
        total = sum((x - top).exp() for x in every)
        weights = [Decimal(0) if x is None else (x - top).exp() / total for x in logits]
        out = [float(sum((w * v[i] for w, v in zip(weights, values) if v is not None), Decimal(0))) for i in range(self.value_dim)]
        return out, float(top + total.ln()), weights

    def axes(self):
        names = "batch queryHeads kvHeads headDim valueDim pages pageSize maxPages maskHeads".split()
        return dict(zip(names, (self.batch, self.query_heads, self.kv_heads, self.head_dim, self.value_dim, self.pages, self.page_size, self.max_pages, self.mask_heads)))

    def visible(self, b, window):
        return range(max(0, self.lengths[b] - window) if window else 0, self.lengths[b])


def sparse(name, cache, granularity, lists, k, rng, cap=0.0, window=0):
    scale = f32(cache.head_dim**-0.5)
    selected, out, lse = [], [], []
    for b in range(cache.batch):
        granules = -(-cache.lengths[b] // granularity)
        for _ in range(lists):
            held = sorted(rng.sample(range(granules), min(granules, rng.randint(0, k))))
            selected += held + [-1] * (k - len(held))
        for h in range(cache.query_heads):
            row = (b * lists + h * lists // cache.query_heads) * k
            tokens = [t for g in selected[row : row + k] if g >= 0 for t in range(g * granularity, (g + 1) * granularity) if t in cache.visible(b, window)]
            o, l, _ = cache.attend(b, h, tokens, scale, cap)
            out += o
            lse.append(l)
    return {
        "name": name,
        "axes": cache.axes() | {"granularity": granularity, "lists": lists, "k": k},
        "variant": cache.variant(),
        "scalars": {"scale": scale, "softCap": cap, "window": window},
        "inputs": cache.inputs | {"selected": selected},
        "expected": {"out": out, "lse": lse},
    }


def anchor(name, cache, granularity, cap=0.0, window=0):
    scale = f32(cache.head_dim**-0.5)
    granules = -(-cache.max_pages * cache.page_size // granularity)
    group = cache.query_heads // cache.kv_heads
    masses = [Decimal(0)] * (cache.batch * cache.kv_heads * granules)
    out, lse = [], []
    for b in range(cache.batch):
        for h in range(cache.query_heads):
            tokens = list(cache.visible(b, window))
            o, l, weights = cache.attend(b, h, tokens, scale, cap)
            out += o
            lse.append(l)
            for t, w in zip(tokens, weights):
                masses[(b * cache.kv_heads + h // group) * granules + t // granularity] += w / group
    return {
        "name": name,
        "axes": cache.axes() | {"granularity": granularity},
        "variant": cache.variant(),
        "scalars": {"scale": scale, "softCap": cap, "window": window},
        "inputs": cache.inputs,
        "expected": {"out": out, "lse": lse, "masses": [float(m) for m in masses]},
    }


def select(name, batch, heads, lists, granules, granularity, k, score, lengths, rng, budget=0, sink=0, recent=0):
    scores = [score(rng) for _ in range(batch * heads * granules)]
    number = [float(s) for s in scores]
    selected, counts = [], []
    for b in range(batch):
        count = -(-lengths[b] // granularity)
        for listing in range(lists):
            total = min(budget or k, k, count)
            pooled = []
            for g in range(count):
                at = [(b * heads + h) * granules + g for h in (range(heads) if lists == 1 else [listing])]
                value = number[at[0]]
                for i in at[1:]:
                    value = f32(value + number[i])
                pooled.append(value)
            # Granules of the last tokens, latest first; of the first ones; then whoever has fewest before them.
            late = [g for g in reversed(range(count)) if (g + 1) * granularity > lengths[b] - recent and recent > 0][:total]
            early = [g for g in range(count) if g * granularity < sink and g not in late][: total - len(late)]

            def before(i, j):
                a, c = pooled[i], pooled[j]
                if a != a or c != c:
                    return (c != c and a == a) or (a != a and c != c and i < j)
                return a > c or (a == c and i < j)

            rest = [g for g in range(count) if g not in late and g not in early]
            ranks = {g: sum(before(other, g) for other in rest) for g in rest}
            best = [g for g in rest if ranks[g] < total - len(late) - len(early)]
            held = sorted(late + early + best)
            selected += held + [-1] * (k - len(held))
            counts.append(len(held))
    return {
        "name": name,
        "axes": {"batch": batch, "heads": heads, "granules": granules, "granularity": granularity, "lists": lists, "k": k},
        "variant": {},
        "scalars": {"budget": budget, "sink": sink, "recent": recent},
        "inputs": {"scores": scores, "lengths": lengths},
        "expected": {"selected": selected, "counts": counts},
    }


def main():
    rng = random.Random(20261121)
    smooth = lambda r: f32(r.gauss(0, 1))  # noqa: E731
    coarse = lambda r: r.choice([-1.0, 0.0, 0.5, 2.0])  # noqa: E731
    odd = lambda r: r.choice(["NaN", "Infinity", "-Infinity", 0.0, 1.0, f32(r.random())])  # noqa: E731
    selects = [
        select("a list per head", 2, 3, 3, 20, 16, 6, smooth, [320, 101], rng, sink=4, recent=20),
        select("equal scores", 2, 2, 2, 30, 4, 12, coarse, [120, 57], rng, recent=1),
        select("one list for all heads", 3, 4, 1, 25, 1, 9, smooth, [25, 0, 7], rng, sink=2, recent=3),
        select("NaN and infinities", 2, 2, 2, 24, 8, 15, odd, [192, 100], rng),
        select("one list, NaN and infinities", 1, 3, 1, 24, 8, 15, odd, [190], rng),
        select("a smaller budget", 2, 2, 2, 16, 64, 10, coarse, [1000, 64], rng, budget=5, sink=70, recent=64),
        select("more forced than the budget", 1, 1, 1, 16, 2, 4, smooth, [31], rng, sink=5, recent=7),
    ]
    sparses, anchors = [], []
    for dtype in ["f32", "f16", "bf16", "i8"]:
        grouped = Cache(dtype, (4, 2), (6, 5), (4, 3), [11, 5], False, rng)
        sunk = Cache(dtype, (3, 1), (5, 4), (3, 3), [8, 0], True, rng)
        sparses.append(sparse(f"{dtype}, a list per KV head", grouped, 2, 2, 4, rng))
        sparses.append(sparse(f"{dtype}, a list per query head, sinks", sunk, 1, 3, 6, rng))
        sparses.append(sparse(f"{dtype}, one list, window and soft cap", grouped, 3, 1, 4, rng, cap=1.5, window=6))
        anchors.append(anchor(f"{dtype}, granules across pages", grouped, 3))
        anchors.append(anchor(f"{dtype}, sinks", sunk, 2))
        anchors.append(anchor(f"{dtype}, window and soft cap", grouped, 1, cap=1.5, window=6))
    masked = Cache("f32", (4, 2), (6, 5), (4, 3), [11, 7], False, rng, slopes=True, mask="bits", mask_heads=4)
    added = Cache("f16", (4, 2), (6, 5), (5, 3), [14, 9], True, rng, slopes=True, mask="f32")
    for cache, of in ((masked, "bits of each head"), (added, "an f32 mask, sinks")):
        sparses.append(sparse(f"slopes and {of}", cache, 2, 2, 4, rng, cap=1.5, window=9))
        anchors.append(anchor(f"slopes and {of}", cache, 3, cap=1.5, window=9))
    emit(__file__, {"select.json": selects, "decode-sparse.json": sparses, "decode-anchor.json": anchors})


main()
