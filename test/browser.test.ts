import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { type Browser, chromium as playwright } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ops } from "../packages/core/dist/ops.js";
import { kernels as shaders } from "../packages/kernels-webgpu/dist/kernels.js";
import { root } from "./support/installed.js";
import { chromium, without } from "./support/missing.js";

/** Every fourth case of every op, on wasm, in a page; and a search that never blocks the page. */
const page = `
import { createHotset, search } from "hotset";
import { wasm } from "@hotset/kernels-wasm";
import { webgpu } from "@hotset/kernels-webgpu";
import { suiteOf } from "@hotset/core/testing/cases";

globalThis.conformance = async () => {
  const backend = await wasm();
  const { items, coverage } = await suiteOf(backend);
  const failures = [];
  let ran = 0;
  for (const [i, { name, run }] of items.entries()) {
    if (i % 4) continue;
    ran++;
    try { await run(); } catch (error) { failures.push(name + ": " + error.message); }
  }
  const { name, target, threads } = backend;
  backend.dispose();
  return { isolated: globalThis.crossOriginIsolated, name, target, threads, ran, variants: coverage.kernels.size, failures: failures.slice(0, 5) };
};

globalThis.searchAsync = async () => {
  const hotset = await createHotset({ backends: [{ id: "wasm", load: () => wasm() }] });
  const axes = { batch: 4, count: 60000, dim: 128, k: 5 };
  const plan = await hotset.plan(search.scan, axes, { rows: "f32" }, { backend: "wasm" });
  const rows = plan.alloc("rows");
  for (let i = 0; i < rows.data.length; i++) rows.data[i] = Math.sin(i);
  const step = plan.bind({ queries: rows.data.slice(128 * 100, 128 * 104), rows });
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const { ids } = await step.runAsync();
  clearInterval(timer);
  return { first: [...ids].filter((_, i) => i % 5 === 0), ticks, kernel: plan.kernel };
};
`;

/** An index in the page: filled, searched, written to bytes and opened from them; the plain search is the reference in js. */
const indexPage = `
globalThis.searchIndex = async () => {
  const hotset = await createHotset({ backends: [{ id: "wasm", load: () => wasm() }] });
  const [dim, count] = [40, 2000];
  const rows = Float32Array.from({ length: count * dim }, (_, i) => Math.sin(i * i));
  const index = await search.FlatIndex.create({ dim, hotset, backend: "wasm" });
  index.add(rows, Array.from({ length: count }, (_, i) => "row " + i));
  const opened = await search.FlatIndex.fromBytes(index.toBytes(), { hotset, backend: "wasm" });
  const queries = rows.slice(0, 4 * dim);
  const { ids, scores } = await hotset.call(search.scan, { queries, rows, dim, k: 5, metric: "cos", backend: "js" });
  const hits = opened.search(queries, { k: 5 });
  return {
    same: String(hits.map((hit) => hit.ids)) === String([...ids].map((id) => "row " + id)) && String(hits.map((hit) => [...hit.scores])) === String([...scores]),
    certified: opened.counters.certified,
    backend: opened.backend,
  };
};
`;

/** WebGPU in the page: one case of every op, and a search recorded into a pass of the page's own, over its own buffers. */
const gpuPage = `
globalThis.conformanceGpu = async () => {
  const backend = await webgpu();
  const { items, coverage } = await suiteOf(backend);
  const failures = [];
  const seen = new Set();
  for (const { name, op, run } of items) {
    if (seen.has(op.id)) continue;
    seen.add(op.id);
    try { await run(); } catch (error) { failures.push(name + ": " + error.message); }
  }
  const reasons = [...coverage.reasons.keys()].map((key) => key.split(" | ")[0]);
  return { name: backend.name, software: backend.device.software, kernels: [...coverage.kernels.keys()], reasons, ops: seen.size, failures };
};

globalThis.ownPass = async () => {
  // A page that has a device and its data there already.
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  const make = (size, more) => device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | more });
  const rows = Float32Array.from({ length: 500 * 16 }, (_, i) => Math.sin(i * 1.7));
  const rowBuffer = make(rows.byteLength, GPUBufferUsage.COPY_DST);
  device.queue.writeBuffer(rowBuffer, 0, rows);
  // Its own kernel makes the queries: rows 100 and 200, halved.
  const queries = make(128, 0);
  const own = device.createComputePipeline({ layout: "auto", compute: { module: device.createShaderModule({ code: \`
    @group(0) @binding(0) var<storage, read> rows: array<f32>;
    @group(0) @binding(1) var<storage, read_write> queries: array<f32>;
    @compute @workgroup_size(32) fn main(@builtin(local_invocation_index) i: u32) {
      queries[i] = 0.5 * rows[(100 + 100 * (i / 16)) * 16 + i % 16];
    }\` }) } });
  const ownGroup = device.createBindGroup({ layout: own.getBindGroupLayout(0), entries: [
    { binding: 0, resource: { buffer: rowBuffer } }, { binding: 1, resource: { buffer: queries } } ] });

  const hotset = await createHotset({ backends: [await webgpu({ device })] });
  const plan = await hotset.plan(search.scan, { batch: 2, count: 500, dim: 16, k: 3 }, { rows: "f32" }, { backend: "webgpu" });
  const [ids, scores, found] = [make(24, GPUBufferUsage.COPY_SRC), make(24, 0), make(8, 0)];
  const step = plan.bind(
    { queries: { data: queries, dtype: "f32" }, rows: { data: rowBuffer, dtype: "f32" } },
    { ids: { data: ids, dtype: "i32" }, scores: { data: scores, dtype: "f32" }, found: { data: found, dtype: "u32" } },
  );
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(own);
  pass.setBindGroup(0, ownGroup);
  pass.dispatchWorkgroups(1);
  step.encode(pass);
  pass.end();
  const staging = device.createBuffer({ size: 24, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  encoder.copyBufferToBuffer(ids, 0, staging, 0, 24);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const got = [...new Int32Array(staging.getMappedRange())];
  return { first: [got[0], got[3]], auto: (await hotset.plan(search.scan, { batch: 2, count: 500, dim: 16, k: 3 }, { rows: "f32" })).backend };
};
`;

/** The example, against the reference over a cache to which the token was appended. */
const attendPage = `
import { attendInOwnPass, axes, pageTable } from ${JSON.stringify(join(root, "examples/webgpu-own-pass.js"))};
import { attention, js } from "@hotset/core";

globalThis.attendOwnPass = async () => {
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  const waves = (length, step) => Float32Array.from({ length }, (_, i) => Math.sin(i * step));
  const cache = 4 * 2 * 16 * 64;
  const given = { queries: waves(256, 1.1), keyPages: waves(cache, 1.7), valuePages: waves(cache, 2.3), token: waves(256, 0.7) };
  const out = await attendInOwnPass(device, given);
  const [keyPages, valuePages] = [given.keyPages.slice(), given.valuePages.slice()];
  for (const head of [0, 1]) {
    const at = ((2 * 2 + head) * 16 + 7) * 64;
    keyPages.set(given.token.subarray(head * 64, head * 64 + 64), at);
    valuePages.set(given.token.subarray(128 + head * 64, 192 + head * 64), at);
  }
  const hotset = await createHotset({ backends: [js()] });
  const wanted = await hotset.call(attention.decode, {
    ...axes, queries: given.queries, keyPages, valuePages, pageTable, lengths: Int32Array.of(40), backend: "js",
  });
  return { length: out.length, apart: Math.max(...out.map((value, i) => Math.abs(value - wanted.out[i]))) };
};
`;

describe.skipIf(without(chromium !== undefined))("headless Chromium (needs chromium)", () => {
  let folder: string;
  let server: Server;
  let browser: Browser;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "hotset-page-"));
    writeFileSync(join(folder, "page.mjs"), page + indexPage + gpuPage + attendPage);
    await build({
      entryPoints: [join(folder, "page.mjs")],
      bundle: true,
      format: "esm",
      platform: "browser",
      outfile: join(folder, "bundle.js"),
      nodePaths: [join(root, "packages/hotset/node_modules"), join(root, "bench/node_modules"), join(root, "examples/node_modules")],
      logLevel: "error",
      conditions: ["browser"],
    });
    server = createServer(({ url }, response) => {
      const isolated = url?.startsWith("/isolated")
        ? { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" }
        : {};
      const script = url?.endsWith("bundle.js");
      response.writeHead(200, {
        "content-type": script ? "text/javascript" : "text/html",
        "cross-origin-resource-policy": "same-origin",
        ...isolated,
      });
      response.end(script ? readFileSync(join(folder, "bundle.js")) : '<!doctype html><script type="module" src="bundle.js"></script>');
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    browser = await playwright.launch({
      executablePath: chromium as string,
      headless: true,
      args: [
        "--no-sandbox",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // Without a GPU: SwiftShader.
        "--enable-unsafe-webgpu",
      ],
    });
  });

  afterAll(async () => {
    await browser?.close();
    server?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function inPage<T>(path: string, call: string): Promise<T> {
    const tab = await browser.newPage();
    try {
      await tab.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`);
      await tab.waitForFunction("globalThis.conformance !== undefined");
      return (await tab.evaluate(call)) as T;
    } finally {
      await tab.close();
    }
  }

  interface Report {
    isolated: boolean;
    name: string;
    target: string;
    threads: number;
    ran: number;
    variants: number;
    failures: string[];
  }

  it("runs the cases with threads in a cross-origin-isolated page", async () => {
    const report = await inPage<Report>("/isolated/", "conformance()");
    expect(report.failures).toEqual([]);
    expect(report.isolated).toBe(true);
    expect(report.target).toMatch(/-threads$/);
    expect(report.ran).toBeGreaterThan(200);
  }, 300_000);

  it("runs the cases on one thread in any other page", async () => {
    const report = await inPage<Report>("/", "conformance()");
    expect(report.failures).toEqual([]);
    expect(report.isolated).toBe(false);
    expect(report.target).toMatch(/^(simd|relaxed)$/);
    expect(report.threads).toBe(1);
  }, 300_000);

  it("runs a case of every op on WebGPU", async () => {
    const report = await inPage<{ name: string; software: boolean; kernels: string[]; reasons: string[]; ops: number; failures: string[] }>(
      "/",
      "conformanceGpu()",
    );
    expect(report.failures).toEqual([]);
    expect(report.name).toMatch(/^webgpu /);
    expect(report.ops).toBe(ops.length);
    // Every op ran, or has no shader and said so.
    const ran = new Set([...report.kernels.map((key) => key.split(" | ")[0]), ...report.reasons]);
    expect([...ran].sort()).toEqual(ops.map(({ id }) => id).sort());
    expect(report.reasons).toEqual(ops.filter(({ id }) => !(id in shaders)).map(({ id }) => id));
  });

  it("records a search into the page's own pass, over its own buffers", async () => {
    const { first, auto } = await inPage<{ first: number[]; auto: string }>("/", "ownPass()");
    expect(first).toEqual([100, 200]);
    expect(auto).toBe("js");
  });

  it("runs the example: attention in a runtime's own pass, behind its own kernel, over its own buffers", async () => {
    const { length, apart } = await inPage<{ length: number; apart: number }>("/", "attendOwnPass()");
    expect(length).toBe(256);
    expect(apart).toBeLessThan(1e-5);
  });

  it("keeps an index, as bytes too", async () => {
    expect(await inPage("/", "searchIndex()")).toEqual({ same: true, certified: 4, backend: "wasm" });
  });

  it("searches off the page's thread", async () => {
    const { first, ticks } = await inPage<{ first: number[]; ticks: number }>("/isolated/", "searchAsync()");
    expect(first).toEqual([100, 101, 102, 103]);
    expect(ticks).toBeGreaterThan(0);
  });
});
