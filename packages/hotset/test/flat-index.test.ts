/** FlatIndex on the backends that are installed: the same answers, ids and bits, as the plain search in JavaScript. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "@hotset/core/testing/cases";
import { FormatError, findHotset, type HostBackend, openIndex, saveIndex, search } from "hotset";
import { afterAll, describe, expect, it } from "vitest";
import { bruteForce, fills } from "../../core/test/flat-index-data.js";

const hotset = await findHotset();
const folder = mkdtempSync(join(tmpdir(), "hotset-index-"));
afterAll(() => {
  hotset.dispose();
  rmSync(folder, { recursive: true, force: true });
});
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

  it("opens a file, mapped where the backend can, and changes no byte of it", async () => {
    const random = new Random(`file on ${backend}`);
    const dim = 33;
    const vectors = random.values(800 * dim, () => random.normal());
    for (const dtype of ["f32", "f16", "i8"] as const) {
      const index = new search.FlatIndex(hotset, { dim, dtype, backend, certify: true });
      index.add(
        vectors,
        Array.from({ length: 800 }, (_, i) => `row ${i}`),
      );
      const path = join(folder, `${backend} ${dtype}`);
      saveIndex(index, path);
      const before = readFileSync(path);
      const ask = (one: search.FlatIndex) =>
        one.search(vectors.subarray(0, 5 * dim), { k: 7 }).map(({ ids, scores }) => ({ ids, scores: [...scores] }));
      for (const map of [true, false]) {
        const again = await openIndex(path, { hotset, backend, certify: true, map });
        expect(ask(again)).toEqual(ask(index));
        again.update("row 3", vectors.subarray(0, dim));
        again.remove(Array.from({ length: 150 }, (_, i) => `row ${100 + i}`));
        again.add(vectors.subarray(0, dim), ["more"]);
        expect(again.search(vectors.subarray(0, dim), { k: 3 })[0]?.ids).toEqual(["row 0", "row 3", "more"]);
        saveIndex(again, `${path} again`);
        expect((await openIndex(`${path} again`, { hotset, backend, map })).size).toBe(651);
        again.dispose();
      }
      expect(readFileSync(path)).toEqual(before);
      writeFileSync(path, before.subarray(0, before.length - 64));
      await expect(openIndex(path, { hotset, backend })).rejects.toThrow(FormatError);
      before[before.length >> 1] = (before[before.length >> 1] as number) ^ 4;
      writeFileSync(path, before);
      await expect(openIndex(path, { hotset, backend })).rejects.toThrow(/with checksum/);
    }
  });

  it.runIf(backend === "native" && process.platform !== "win32")("maps files, and no more of them than there is", () => {
    const native = hotset.backends.find(({ id }) => id === "native") as HostBackend;
    const path = join(folder, "to map");
    writeFileSync(
      path,
      Uint8Array.from({ length: 5000 }, (_, i) => i % 251),
    );
    const file = openSync(path, "r");
    const mapped = native.map?.(file, 5000) as Uint8Array;
    expect([native.map?.(file, 5001), native.map?.(file, 0), native.map?.(9999, 10)]).toEqual([undefined, undefined, undefined]);
    closeSync(file);
    expect(mapped).toEqual(new Uint8Array(readFileSync(path)));
    mapped[7] = 99;
    expect(readFileSync(path)[7]).toBe(7);
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
