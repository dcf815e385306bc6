#!/usr/bin/env python3
"""Vectors for linalg/ridge, independent of the JavaScript reference: exact rational sums and Gauss elimination.

  python3 vectors/linalg/ridge.py            writes ridge.json beside this file
  python3 vectors/linalg/ridge.py --check    fails where the committed file differs
"""
import os
import random
import sys
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import emit, f32  # noqa: E402


def eliminate(matrix, right):
    """The exact solution of matrix x = right, for every column of right."""
    n = len(matrix)
    rows = [list(matrix[i]) + list(right[i]) for i in range(n)]
    for k in range(n):
        lead = next(i for i in range(k, n) if rows[i][k] != 0)
        rows[k], rows[lead] = rows[lead], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for i in range(n):
            if i != k:
                factor = rows[i][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k])]
    return [row[n:] for row in rows]


def ridge(name, rows, features, outputs, penalty, rng):
    penalty = f32(penalty)
    x = [[f32(rng.gauss(0, 1)) for _ in range(features)] for _ in range(rows)]
    y = [[f32(rng.gauss(0, 1)) for _ in range(outputs)] for _ in range(rows)]
    xs, ys = ([[Fraction(v) for v in row] for row in m] for m in (x, y))
    gram = [[sum(r[i] * r[j] for r in xs) + (Fraction(penalty) if i == j else 0) for j in range(features)] for i in range(features)]
    right = [[sum(r[i] * s[c] for r, s in zip(xs, ys)) for c in range(outputs)] for i in range(features)]
    weights = eliminate(gram, right)
    return {
        "name": name,
        "axes": {"rows": rows, "features": features, "outputs": outputs},
        "variant": {},
        "scalars": {"penalty": penalty},
        "inputs": {"x": sum(x, []), "y": sum(y, [])},
        "expected": {"weights": [float(v) for row in weights for v in row]},
    }


def main():
    rng = random.Random(20261121)
    emit(__file__, {"ridge.json": [
        ridge("one of each", 1, 1, 1, 1, rng),
        ridge("more rows than features", 12, 4, 3, 0.5, rng),
        ridge("fewer rows than features", 3, 6, 2, 20, rng),
        ridge("a small penalty", 9, 3, 1, 0.01, rng),
    ]})


main()
