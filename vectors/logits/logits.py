#!/usr/bin/env python3
"""Vectors for the ops of the logits family, independent of the JavaScript references: exponentials and logarithms of 60
digits, and Philox4x32-10 on Python's whole numbers.

  python3 vectors/logits/logits.py            writes sample.json and logprob.json beside this file
  python3 vectors/logits/logits.py --check    fails where a committed file differs
"""
import os
import random
import sys
from decimal import Decimal, getcontext

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit, f32  # noqa: E402

getcontext().prec = 60


def philox(seed, position):
    """The first two words of Philox4x32-10 with counter (position, 0, 0, 0) and key (seed, 0)."""
    c, k = [position, 0, 0, 0], [seed, 0]
    for _ in range(10):
        x, y = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(y >> 32) ^ c[1] ^ k[0], y & 0xFFFFFFFF, (x >> 32) ^ c[3] ^ k[1], x & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[0], c[1]


def draw(logits, seed, position, temperature, top_k, top_p, min_p):
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if temperature == 0:
        return order[0], 1
    top = Decimal(logits[order[0]])
    weights = [((Decimal(x) - top) / Decimal(temperature)).exp() for x in logits]
    kept = order[: top_k or len(order)]
    if top_p < 1:
        total, mass, last = sum(weights[i] for i in kept), Decimal(0), 0
        while last < len(kept) and (last == 0 or mass < Decimal(top_p) * total):
            mass += weights[kept[last]]
            last += 1
        kept = kept[:last]
    kept = sorted(i for i in kept if weights[i] >= Decimal(min_p))
    high, low = philox(seed, position)
    target = Decimal(high * 2**21 + (low >> 11)) / Decimal(2**53) * sum(weights[i] for i in kept)
    passed = Decimal(0)
    for i in kept:
        passed += weights[i]
        if passed > target:
            break
    return i, len(kept)


def sample(name, rows, vocab, rng, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0):
    logits = [f32(rng.gauss(0, 2)) for _ in range(rows * vocab)]
    seeds = [rng.getrandbits(32) for _ in range(rows)]
    positions = [rng.getrandbits(20) for _ in range(rows)]
    scalars = {"temperature": f32(temperature), "topK": top_k, "topP": f32(top_p), "minP": f32(min_p)}
    drawn = [draw(logits[r * vocab : (r + 1) * vocab], seeds[r], positions[r], *scalars.values()) for r in range(rows)]
    expected = {"ids": [i for i, _ in drawn], "kept": [n for _, n in drawn]}
    return {"name": name, "axes": {"rows": rows, "vocab": vocab}, "variant": {}, "scalars": scalars, "inputs": {"logits": logits, "seeds": seeds, "positions": positions}, "expected": expected}


def logprob(name, tokens, vocab, k, compared, rng):
    logits = [f32(rng.gauss(0, 3)) for _ in range(tokens * vocab)]
    against = [f32(rng.gauss(0, 3)) for _ in range(tokens * vocab)]
    targets = [rng.randrange(-1, vocab) for _ in range(tokens)]
    expected = {"chosen": [], "entropy": [], "ids": [], "best": []} | ({"kl": []} if compared else {})
    for t in range(tokens):
        row, other = logits[t * vocab : (t + 1) * vocab], against[t * vocab : (t + 1) * vocab]
        log_p = [Decimal(x) - sum(Decimal(y).exp() for y in row).ln() for x in row]
        log_q = [Decimal(x) - sum(Decimal(y).exp() for y in other).ln() for x in other]
        expected["chosen"].append(float(log_p[targets[t]]) if targets[t] >= 0 else 0)
        expected["entropy"].append(float(-sum(p.exp() * p for p in log_p)))
        order = sorted(range(vocab), key=lambda i: (-row[i], i))[:k]
        expected["ids"] += order
        expected["best"] += [float(log_p[i]) for i in order]
        if compared:
            expected["kl"].append(float(sum(p.exp() * (p - q) for p, q in zip(log_p, log_q))))
    inputs = {"logits": logits, "targets": targets} | ({"against": against} if compared else {})
    return {"name": name, "axes": {"tokens": tokens, "vocab": vocab, "k": k}, "variant": {"against": compared}, "scalars": {}, "inputs": inputs, "expected": expected}


def main():
    rng = random.Random(20261121)
    # The authors' known answer for a counter and a key of 0.
    assert philox(0, 0) == (0x6627E8D5, 0xE169C58D)
    samples = [
        sample("greedy", 4, 30, rng),
        sample("all tokens", 8, 30, rng, 1.0),
        sample("top-k", 8, 30, rng, 0.7, top_k=5),
        sample("top-p", 8, 30, rng, 1.3, top_p=0.7),
        sample("min-p", 8, 30, rng, 1.0, min_p=0.1),
        sample("all filters", 16, 60, rng, 0.9, 20, 0.9, 0.02),
    ]
    emit(__file__, {"sample.json": samples, "logprob.json": [logprob("alone", 3, 17, 4, False, rng), logprob("compared", 3, 17, 4, True, rng)]})


main()
