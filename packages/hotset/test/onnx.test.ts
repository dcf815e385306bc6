/** `hotset attention onnx`: made node tests against f64, ONNX's own where they are, and files that are damaged. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createHotset, FormatError, HotsetError, js } from "@hotset/core";
import { native } from "@hotset/kernels-native";
import { wasm } from "@hotset/kernels-wasm";
import { afterAll, describe, expect, it } from "vitest";
import { findCases } from "../src/onnx/cases.js";
import { readModel, readTensor } from "../src/onnx/proto.js";
import { runCase } from "../src/onnx/run.js";
import { attentionCases, otherCases } from "./support/onnx-cases.js";
import { bytes, joined, type MadeTensor, modelBytes, number, tensorBytes, varint, writeCase } from "./support/onnx-files.js";

const folder = mkdtempSync(join(tmpdir(), "hotset-onnx-"));
const hotset = await createHotset({ backends: [await native(), await wasm(), js()] });
afterAll(() => {
  hotset.dispose();
  rmSync(folder, { recursive: true, force: true });
});
const made = [...attentionCases, ...otherCases];
const pathOf = (name: string): string => join(folder, name.replaceAll(/[^a-z0-9]+/g, "_"));
for (const { name, node, inputs, outputs } of made) writeCase(pathOf(name), node, inputs, outputs);

const only = (path: string) => findCases(path)[0] as ReturnType<typeof findCases>[number];

describe("made cases", () => {
  it.each(made.map((one) => [one.name, one] as const))("%s: passes on every backend, through the ops it should", async (name, { via }) => {
    for (const { id } of hotset.backends) {
      const result = await runCase(only(pathOf(name)), hotset, id);
      expect([id, result.status, result.reason]).toEqual([id, "passed", null]);
      for (const op of via) expect(result.via.join("; ")).toContain(op);
    }
  });

  it.each(made.map((one) => [one.name, one] as const))(
    "%s: fails where a result is a little off",
    async (name, { node, inputs, outputs, sees }) => {
      for (const which of outputs.keys()) {
        const wanted = outputs[which];
        const at = wanted?.values.findIndex((value) => Number.isFinite(value) && Math.abs(value) > 0.05) ?? -1;
        if (!wanted || at < 0) continue;
        const values = wanted.values.map((value, i) => (i === at ? value + (wanted.type === "int64" ? 1 : sees * Math.abs(value)) : value));
        const path = writeCase(
          pathOf(`${name} off ${which}`),
          node,
          inputs,
          outputs.map((one, i) => (i === which ? ({ ...wanted, values } as MadeTensor) : one)),
        );
        const result = await runCase(only(path), hotset, "js");
        expect(result.status).toBe("failed");
        expect(result.reason).toContain(`output ${which} (${wanted.name})[${at}] is `);
      }
    },
  );

  it("a NaN that is expected and a number are not equal", async () => {
    const { node, inputs, outputs } = made[0] as (typeof made)[number];
    const [y] = outputs as [MadeTensor];
    const path = writeCase(pathOf("nan"), node, inputs, [{ ...y, values: y.values.map((value, i) => (i === 3 ? Number.NaN : value)) }]);
    expect((await runCase(only(path), hotset, "js")).reason).toContain("output 0 (Y)[3] is ");
  });
});

describe("what has no op", () => {
  const input: MadeTensor = { name: "x", type: "float32", shape: [2], values: [1, 2] };
  const [plain] = attentionCases;
  it.each([
    ["LogSoftmax", { operator: "LogSoftmax" }, [input], "LogSoftmax"],
    ["of com.microsoft", { operator: "QAttention", domain: "com.microsoft" }, [input], "QAttention"],
    [
      "whole numbers",
      { operator: "TopK" },
      [
        { ...input, type: "uint64" as const },
        { ...input, name: "k", type: "int64" as const, values: [1, 1] },
      ],
      "TopK of uint64",
    ],
    ["a window", { operator: "Attention", attributes: { left_window_size: 4 } }, plain?.inputs ?? [], "Attention with left_window_size"],
    [
      "double precision",
      { operator: "Attention" },
      (plain?.inputs ?? []).map((one) => one && { ...one, type: "float64" as const }),
      "Attention of float64",
    ],
  ])("%s is unsupported, by name", async (name, node, inputs, kind) => {
    const path = writeCase(pathOf(`unsupported ${name}`), node, inputs, [input]);
    expect(await runCase(only(path), hotset, "js")).toMatchObject({ status: "unsupported", kind });
  });

  it("a graph of several nodes is", async () => {
    const path = writeCase(pathOf("two nodes"), { operator: "Softmax" }, [input], [input]);
    writeFileSync(join(path, "model.onnx"), modelBytes({ operator: "Softmax" }, ["x"], ["y"], 2));
    expect(await runCase(only(path), hotset, "js")).toMatchObject({ status: "unsupported", kind: "a graph of 2 nodes" });
  });
});

describe("files", () => {
  const { node, inputs, outputs } = attentionCases[4] as (typeof made)[number];
  const path = writeCase(pathOf("files"), node, inputs, outputs);
  const files = ["model.onnx", "test_data_set_0/input_0.pb", "test_data_set_0/output_1.pb"].map((name) => join(path, name));

  /** What comes of it: no other error than Hotset's own, which says where; and what was read can be run. */
  async function read(file: string, content: Uint8Array): Promise<"read" | "refused"> {
    const before = readFileSync(file);
    writeFileSync(file, content);
    try {
      const found = only(path).load();
      await runCase({ name: file, load: () => found }, hotset, "js");
      return "read";
    } catch (error) {
      expect(error).toBeInstanceOf(HotsetError);
      expect((error as Error).message).toMatch(/: expected .+ but received /s);
      return "refused";
    } finally {
      writeFileSync(file, before);
    }
  }

  it("cut at any byte are refused", () => {
    for (const file of files) {
      const whole = readFileSync(file);
      const parse = (content: Uint8Array) => (file.endsWith(".onnx") ? readModel(content, file) : readTensor(content, file));
      expect(() => parse(whole)).not.toThrow();
      for (let length = 0; length < whole.length; length++) {
        expect(() => parse(whole.subarray(0, length)), `${length} bytes of ${file}`).toThrow(FormatError);
      }
    }
  });

  it("with any byte changed are read or refused, and never crash", async () => {
    let refused = 0;
    for (const file of files) {
      const whole = readFileSync(file);
      for (let at = 0; at < Math.min(whole.length, file.endsWith(".onnx") ? 300 : 24); at++)
        for (const change of [0xff, (whole[at] as number) ^ 0x80]) {
          const changed = Uint8Array.from(whole);
          changed[at] = change;
          if ((await read(file, changed)) === "refused") refused++;
        }
    }
    expect(refused).toBeGreaterThan(200);
  });

  const raw = bytes(9, new Uint8Array(8));
  it.each([
    ["a shape of 2^62 elements", joined([number(1, 2n ** 31n), number(1, 2n ** 31n), number(2, 1), raw])],
    ["a shape of 2^40 elements in 8 bytes", joined([number(1, 2n ** 40n), number(2, 1), raw])],
    ["a negative size", joined([number(1, -2n), number(1, -1n), number(2, 1), raw])],
    ["sizes that overflow to what there is", joined([number(1, 2n ** 63n), number(1, 2), number(2, 1), raw])],
    ["a length of 2^64 - 1", joined([number(1, 2), number(2, 1), varint((9n << 3n) | 2n), varint(2n ** 64n - 1n)])],
    ["a number of eleven bytes", joined([new Uint8Array([8, ...new Array(10).fill(255), 1])])],
    ["field 0", joined([number(0, 1)])],
    ["a group", Uint8Array.of((1 << 3) | 3, (1 << 3) | 4)],
    ["a type that there is none of", joined([number(1, 2), number(2, 99), raw])],
    ["a shape of bytes of another type", joined([number(1, 3), number(2, 1), raw])],
    ["half an element", joined([number(1, 2), number(2, 1), bytes(9, new Uint8Array(7))])],
    ["numbers in the list of another type", joined([number(1, 2), number(2, 1), bytes(7, Uint8Array.of(1, 2))])],
    ["data in another file", joined([number(1, 2), number(2, 1), raw, number(14, 1)])],
    ["a name that is no text", joined([number(1, 2), number(2, 1), bytes(8, Uint8Array.of(0xc3, 0x28)), raw])],
    ["nothing", new Uint8Array(0)],
  ])("a tensor with %s is refused", (_, content) => {
    expect(() => readTensor(content, "a.pb")).toThrow(HotsetError);
    expect(() => readTensor(content, "a.pb")).toThrow(/^a\.pb: expected /);
  });

  it("hold numbers as bytes or as lists", () => {
    for (const type of ["float32", "float16", "int64"] as const) {
      const tensor: MadeTensor = { name: "t", type, shape: [2, 3], values: [1, -2, 3, 4, 5, type === "int64" ? 2 ** 40 : 6] };
      expect(readTensor(tensorBytes(tensor, true), "a.pb")).toEqual(readTensor(tensorBytes(tensor), "a.pb"));
    }
  });

  it("that are missing, or not asked for, are named", () => {
    expect(() => findCases(join(folder, "nowhere"))).toThrow(/nowhere: expected a folder or a file but received nothing there/);
    expect(() => findCases(join(path, "test_data_set_0"))).toThrow("expected a model.onnx in the folder");
    rmSync(join(path, "test_data_set_0/input_1.pb"));
    expect(() => only(path).load()).toThrow(/expected 5 inputs: .* but received 4 files input_N\.pb/);
  });
});

describe("ONNX Runtime's JSON", () => {
  const file = join(folder, "ops.jsonc");
  const attention = (outputs: string): string => `[ // of one operator
    { "name": "one", "operator": "MultiHeadAttention", "opset": { "domain": "com.microsoft", "version": 1 },
      "attributes": [{ "name": "num_heads", "data": 1, "type": "int" }], /* and
      more */ "cases": [{ "name": "a // b", "inputs": [
        { "data": [1], "dims": [1, 1, 1], "type": "float32" }, { "data": [2], "dims": [1, 1, 1], "type": "float32" },
        { "data": [3], "dims": [1, 1, 1], "type": "float32" }, { "data": null, "type": "float32" }, ],
        "outputs": [{ "data": [${outputs}], "dims": [1, 1, 1], "type": "float32" }] }] } ]`;

  it("is read with comments and commas at ends, and judged", async () => {
    writeFileSync(file, attention("3.0"));
    expect(only(file).name).toBe("ops.jsonc: one, a // b");
    expect(await runCase(only(file), hotset, "js")).toMatchObject({ status: "passed", operator: "com.microsoft.MultiHeadAttention" });
    writeFileSync(file, attention("3.01"));
    expect(await runCase(only(file), hotset, "js")).toMatchObject({ status: "failed" });
  });

  it("that is none is refused", () => {
    for (const text of ["[", "{}", '[{ "name": 1 }]', "[null]", attention('"three"'), attention("3, 4")]) {
      writeFileSync(file, text);
      expect(() => only(file).load()).toThrow(HotsetError);
    }
  });
});

describe("hotset attention onnx", () => {
  const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [command, "attention", "onnx", ...args], {
      encoding: "utf8",
      env: { ...process.env, HOTSET_CACHE_DIR: folder },
    });
  const good = pathOf((made[0] as (typeof made)[number]).name);
  const bad = join(folder, "off");

  it("prints each case, a summary of each backend, and what is not here; 1 where something fails", () => {
    const { node, inputs, outputs } = made[0] as (typeof made)[number];
    const [y] = outputs as [MadeTensor];
    writeCase(join(bad, "a"), node, inputs, [{ ...y, values: y.values.map((value) => value + 0.01) }]);
    writeCase(join(bad, "b"), { operator: "LogSoftmax" }, [y], [y]);
    const passed = run(good);
    expect([passed.status, passed.stderr]).toEqual([0, ""]);
    expect(passed.stdout).toMatch(/^native \(.+\)\n {2}passed {2}plain {2}attention\/decode; attention\/prefill$/m);
    expect(passed.stdout).toMatch(/^js: 1 passed, 0 failed, 0 unsupported$/m);
    const failed = run(bad, good, "--backend", "js");
    expect(failed.status).toBe(1);
    expect(failed.stdout).toMatch(/^ {2}failed +a +output 0 \(Y\)\[\d+\] is .+ times too far\), by attention\/decode; output 0/m);
    expect(failed.stdout.trimEnd().split("\n").at(-1)).toBe("js: 1 passed, 1 failed, 1 unsupported (1 LogSoftmax)");
  });

  it("gives one document with --json, and says what a backend lacks", () => {
    const { status, stdout } = run(bad, "--backend", "js", "--json");
    expect(status).toBe(1);
    expect(JSON.parse(stdout).backends).toMatchObject([
      {
        backend: "js",
        passed: 0,
        failed: 1,
        unsupported: 1,
        kinds: { LogSoftmax: 1 },
        cases: [{ name: "a", operator: "Attention", status: "failed" }, { name: "b" }],
      },
    ]);
    const none = run(good, "--backend", "abacus");
    expect([none.status, none.stdout]).toEqual([1, ""]);
    expect(none.stderr).toContain("--backend: expected one of native, wasm, js but received abacus");
  });
});

describe("ONNX's and ONNX Runtime's own", () => {
  const nodes = fileURLToPath(new URL("../../../../shared/data/onnx_attention", import.meta.url));
  const runtime = fileURLToPath(new URL("../../../../shared/data/ort_js_tests", import.meta.url));
  const results = (paths: readonly string[], backend: string) =>
    Promise.all(paths.flatMap(findCases).map((one) => runCase(one, hotset, backend)));

  it.skipIf(!existsSync(nodes))("node tests: what has an op passes, the rest is named (needs ../shared/data/onnx_attention)", async () => {
    for (const { id } of hotset.backends) {
      const all = await results([nodes], id);
      expect(all.filter(({ status }) => status === "failed")).toEqual([]);
      const unsupported = all.filter(({ status }) => status === "unsupported");
      for (const { name } of unsupported) expect(name).toMatch(/^test_(linear_attention|logsoftmax|top_k_(same|uint64))/);
      expect([all.length - unsupported.length, unsupported.length]).toEqual([75, 25]);
    }
  });

  it.skipIf(!existsSync(runtime))("ONNX Runtime's (needs ../shared/data/ort_js_tests)", async () => {
    const files = readdirSync(runtime).filter((name) => name.endsWith(".jsonc"));
    for (const { id } of hotset.backends) {
      const all = await results(
        files.map((name) => join(runtime, name)),
        id,
      );
      expect(all.filter(({ status }) => status !== "passed")).toEqual([]);
      expect(all.length).toBe(61);
    }
  });
});
