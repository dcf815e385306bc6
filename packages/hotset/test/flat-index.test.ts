/** FlatIndex on the backends that are installed: the same answers, ids and bits, as the plain search in JavaScript. */
import { Random } from "@hotset/core/testing/cases";
import { findHotset, search } from "hotset";
import { afterAll, describe, expect, it } from "vitest";
import { bruteForce, fills } from "../../core/test/flat-index-data.js";

const hotset = await findHotset();
afterAll(() => hotset.dispose());
const backends = ["native", "wasm", "js"].filter((id) => hotset.backends.some((backend) => backend.id === id));

describe.each(backends)("FlatIndex on %s", (backend) => {
  it.each(Object.keys(fills))("%s", async (name) => {
    const fill = fills[name] as (typeof fills)[string];
    for (const metric of ["cos", "ip", "l2"] as const) {
      const random = new Random(`${backend} ${name} ${metric}`);
      const [count, dim] = [900, 1 + random.below(130)];
      const vectors = fill(random, count, dim);
      const queries = Float32Array.from([...vectors.slice(0, 2 * dim), ...fill(random, 8, dim)]);
      const index = new search.FlatIndex(hotset, { dim, metric, backend, certify: true });
      expect(index.backend).toBe(backend);
      index.add(vectors.subarray(0, 500 * dim));
      index.add(vectors.subarray(500 * dim));
      index.remove(Array.from({ length: 100 }, (_, i) => 3 * i + 1));
      const live = (row: number): boolean => index.has(row);
      for (const [batch, k] of [
        [1, 1],
        [3, 12],
        [10, 5],
      ] as const) {
        const asked = queries.subarray(0, batch * dim);
        const expected = await bruteForce(metric, "f32", vectors, dim, asked, k, live);
        expect(index.search(asked, { k }).map(({ ids, scores }) => ({ rows: ids, scores: [...scores] }))).toEqual(expected);
      }
      index.dispose();
    }
  });

  it("grows and shrinks in the backend's memory without losing a row", async () => {
    const random = new Random(`growth on ${backend}`);
    const dim = 48;
    const index = new search.FlatIndex(hotset, { dim, backend, certify: true });
    for (let round = 0; round < 12; round++) {
      const vectors = random.values(700 * dim, () => random.normal());
      const ids = index.add(vectors);
      const [hit] = index.search(vectors.subarray(5 * dim, 6 * dim), { k: 1 });
      expect(hit?.ids).toEqual([ids[5]]);
      if (round % 2) index.remove(ids.slice(10));
    }
    expect(index.size).toBe(6 * 700 + 6 * 10);
    index.dispose();
  });
});
