import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type AnyVariant, layoutOf, symbolOf, variants } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { casesOf, checkMutants, packCases, prepare, variantsOf } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../..", import.meta.url));

describe("every op's declaration", () => {
  it("is found through its family", () => {
    expect(ops.map(({ id }) => id)).toEqual([
      "attention/continual-retroactive",
      "attention/continual-single",
      "attention/decode",
      "attention/decode-anchor",
      "attention/decode-sparse",
      "attention/hash-scores",
      "attention/index-scores",
      "attention/key-hashes",
      "attention/merge",
      "attention/page-scores",
      "attention/page-stats",
      "attention/prefill",
      "attention/rope",
      "attention/select",
      "kv-cache/append",
      "kv-cache/compact",
      "kv-cache/pool-apply",
      "linalg/ridge",
      "logits/logprob",
      "logits/sample",
      "model/embedding",
      "model/linear",
      "model/rms-norm",
      "model/swiglu",
      "moe/align",
      "moe/combine",
      "moe/grouped-ffn",
      "moe/route",
      "search/scan",
    ]);
    expect(new Set(ops.map(({ id }) => symbolOf(id))).size).toBe(ops.length);
  });

  for (const op of ops) {
    describe(op.id, () => {
      it("says what it is, and where it comes from", () => {
        expect(op.id).toMatch(/^[a-z-]+\/[a-z-]+$/);
        for (const text of [
          op.doc,
          op.source,
          ...Object.values(op.axes).map(({ doc }) => doc),
          ...Object.values(op.ports).map(({ doc }) => doc),
        ])
          expect(text.length).toBeGreaterThan(5);
      });

      it("has live axes only outermost, so that no stride depends on them", () => {
        for (const port of Object.values(op.ports)) {
          if (port.kind !== "tensor") continue;
          port.shape.slice(1).forEach((dim) => {
            const names = typeof dim === "string" ? [dim] : typeof dim === "object" ? [dim.axis, dim.times, dim.per] : [];
            for (const name of names) expect(op.axes[name as string]?.live ?? false).toBe(false);
          });
        }
      });

      it("names only ports and axes that exist", () => {
        for (const port of Object.values(op.ports)) {
          if (port.kind !== "tensor") continue;
          if (port.scaleOf) expect(op.ports[port.scaleOf.port]?.kind).toBe("tensor");
          if (port.like) expect(op.ports[port.like]?.kind).toBe("tensor");
          if (port.counted) expect(op.ports[port.counted]?.kind).toBe("tensor");
          for (const dim of port.shape) {
            const names =
              typeof dim === "string"
                ? [dim]
                : typeof dim === "object"
                  ? [dim.axis, dim.times, dim.per].filter((part) => typeof part === "string")
                  : [];
            for (const name of names) expect(op.axes).toHaveProperty(name as string);
          }
        }
        for (const { about } of op.constraints) for (const name of about) expect({ ...op.axes, ...op.ports }).toHaveProperty(name);
      });

      it("has parameter structs without holes, and larger fields first", () => {
        for (const target of ["c64", "wasm32", "wgsl"] as const) {
          const { fields, bytes } = layoutOf(op, target);
          let end = 0;
          for (const field of fields) {
            expect(field.offset).toBe(end);
            expect(field.offset % field.bytes).toBe(0);
            end += field.bytes;
          }
          expect(bytes).toBeGreaterThanOrEqual(end);
        }
      });

      it("gives a cost and roundings for every case", async () => {
        for (const test of (await casesOf(op)).cases)
          for (const variant of variantsOf(op, test)) {
            const { flops, bytes } = op.cost(test.axes, variant);
            expect(flops).toBeGreaterThanOrEqual(0);
            expect(bytes).toBeGreaterThanOrEqual(0);
            for (const [name, steps] of Object.entries(op.rounding(test.axes, variant))) {
              expect(op.ports).toHaveProperty(name);
              expect(steps).toBeGreaterThan(0);
            }
          }
      });

      it("has cases in every variant, each case in at least one", async () => {
        const { cases } = await casesOf(op);
        expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
        for (const test of cases) expect(variantsOf(op, test).length, test.name).toBeGreaterThan(0);
        // Where optional tensors make many variants of each other, one case with all that they do.
        const optional = Object.entries(op.ports).flatMap(([name, port]) =>
          port.kind === "tensor" && port.presence === "optional" ? [name] : [],
        );
        const few = (variant: AnyVariant): boolean => optional.length > 2 && optional.some((name) => variant[name] !== false);
        for (const variant of variants(op))
          expect(
            cases.filter(
              (test) =>
                variantsOf(op, test).includes(variant) ||
                variantsOf(op, test).some((other) => JSON.stringify(other) === JSON.stringify(variant)),
            ).length,
          ).toBeGreaterThan(few(variant) ? 0 : 5);
      });

      it("rejects every mutant in every variant", async () => {
        expect(checkMutants(op, await casesOf(op))).toEqual([]);
      });

      it("makes the same inputs from the same seed, and others from another", async () => {
        const [test] = (await casesOf(op)).cases;
        const [variant] = variants(op);
        if (!test || !variant) throw new Error("no case");
        expect(prepare(op, test, variant, 0).inputs).toEqual(prepare(op, test, variant, 0).inputs);
        expect(prepare(op, test, variant, 0).inputs).not.toEqual(prepare(op, test, variant, 1).inputs);
      });
    });
  }

  it("packs its cases for the runner without Node", async () => {
    const [head, ...rest] = await packCases();
    expect(new TextDecoder().decode(head?.subarray(0, 8))).toBe("HSPACK1\n");
    expect(Number(new DataView((head as Uint8Array).buffer).getBigUint64(8, true))).toBeGreaterThan(500);
    expect(rest.every(({ length }) => length % 8 === 0)).toBe(true);
  });
});

describe("the places of an op, as docs/adding-an-op.md counts them", () => {
  const files = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      if (["node_modules", "dist", "build", "prebuilds", "gen"].includes(entry.name) || entry.name.startsWith(".")) return [];
      const path = `${folder}/${entry.name}`;
      return entry.isDirectory() ? files(path) : [path];
    });
  const sources = ["packages", "scripts", "bench"].flatMap((folder) => files(`${root}${folder}`)).map((path) => path.slice(root.length));

  for (const { id } of ops) {
    const [family, name] = id.split("/") as [string, string];
    it(`${id} has its four places in core, its vectors, and a stem and a row in each backend that runs it`, () => {
      for (const file of ["spec", "reference", "cases"]) expect(existsSync(`${root}packages/core/src/${id}/${file}.ts`)).toBe(true);
      expect(readFileSync(`${root}packages/core/src/${family}/index.ts`, "utf8")).toContain(`./${name}/spec.js`);
      expect(existsSync(`${root}vectors/${id}.json`)).toBe(true);
      expect(existsSync(`${root}packages/kernels-native/src/${id}.cc`)).toBe(true);
      expect(readFileSync(`${root}packages/kernels-native/src/kernels.inc`, "utf8")).toContain(`HOTSET_KERNEL(${symbolOf(id)})`);
      expect(existsSync(`${root}packages/kernels-wasm/assembly/${id}.ts`)).toBe(true);
      expect(readFileSync(`${root}packages/kernels-wasm/src/kernels.ts`, "utf8")).toContain(`"${id}"`);
      const onDevices = readFileSync(`${root}packages/kernels-webgpu/src/kernels.ts`, "utf8").includes(`"${id}"`);
      expect(existsSync(`${root}packages/kernels-webgpu/src/${id}.wgsl`)).toBe(onDevices);
      const onCuda = readFileSync(`${root}packages/kernels-cuda/src/kernels.inc`, "utf8").includes(`HOTSET_KERNEL(${symbolOf(id)})`);
      expect(existsSync(`${root}packages/kernels-cuda/src/${id}.cu`)).toBe(onCuda);
      if (ops.find((op) => op.id === id)?.cpuByDesign) expect([onDevices, onCuda]).toEqual([false, false]);
    });

    it(`${id} is named nowhere else in the code`, () => {
      const own = (path: string): boolean => path.includes(`/${id}`) || path.startsWith(`packages/core/src/${family}/`);
      const rows = [
        "packages/kernels-cuda/src/kernels.inc",
        "packages/kernels-native/src/kernels.inc",
        "packages/kernels-wasm/src/kernels.ts",
        "packages/kernels-webgpu/src/kernels.ts",
        // What an engine must get right before its build is used is tried on one op; a new op does not change it.
        "packages/kernels-wasm/assembly/lib/check.ts",
      ];
      const naming = sources.filter(
        (path) =>
          /\.(ts|cc|cu|h|inc|mjs|wgsl|txt)$/.test(path) &&
          !path.includes("/test/") &&
          !own(path) &&
          !rows.includes(path) &&
          !path.startsWith("bench/"),
      );
      const symbol = new RegExp(`\\b${symbolOf(id)}(_|\\b)|["'\`]${id}["'\`]`);
      // Comments may name an op as an example.
      const code = (path: string): string => {
        const text = readFileSync(root + path, "utf8");
        return text.startsWith("// Generated by") ? "" : text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
      };
      expect(naming.filter((path) => symbol.test(code(path)))).toEqual([]);
    });
  }
});
