#!/usr/bin/env python3
"""Vectors for kv-cache/pool-apply, from a model with a plain list as the free queue and a dict of references.

  python3 vectors/kv-cache/pool-apply.py            writes pool-apply.json beside this file
  python3 vectors/kv-cache/pool-apply.py --check    fails where the committed file differs
"""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit  # noqa: E402

ALLOCATE, RETAIN, RELEASE, DISCARD = range(4)


class Pool:
    def __init__(self, blocks):
        self.free = list(range(blocks))
        self.references = {b: 0 for b in range(blocks)}

    def apply(self, opcode, block):
        if opcode == ALLOCATE:
            if not self.free:
                return -1
            block = self.free.pop(0)
            self.references[block] = 1
            return block
        if opcode == RETAIN:
            if self.references[block] == 0:
                self.free.remove(block)
            self.references[block] += 1
            return self.references[block]
        self.references[block] -= 1
        if self.references[block] == 0:
            self.free.insert(len(self.free) if opcode == RELEASE else 0, block)
        return self.references[block]


def case(blocks, count, rng):
    pool, commands, results = Pool(blocks), [], []
    for _ in range(count):
        held = [b for b, n in pool.references.items() if n > 0]
        opcode = rng.choice([ALLOCATE, ALLOCATE, RETAIN, RELEASE, DISCARD] if held else [ALLOCATE, RETAIN])
        block = rng.choice(held) if opcode in (RELEASE, DISCARD) else rng.randrange(blocks)
        commands.append([opcode, block])
        results.append(pool.apply(opcode, block))
    return {"blocks": blocks, "commands": commands, "results": results, "free": list(pool.free), "references": list(pool.references.values())}


def main():
    rng = random.Random(20261121)
    cases = [case(blocks, count, rng) for blocks, count in [(1, 12), (2, 30), (5, 60), (16, 150), (40, 200)]]
    emit(__file__, {"pool-apply.json": cases})


main()
