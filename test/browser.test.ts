import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { type Browser, chromium as playwright } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { root } from "./support/installed.js";
import { chromium, without } from "./support/missing.js";

/** Every fourth case of every op, on wasm, in a page; and a search that never blocks the page. */
const page = `
import { createHotset, search } from "hotset";
import { wasm } from "@hotset/kernels-wasm";
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

describe.skipIf(without(chromium !== undefined))("headless Chromium (needs chromium)", () => {
  let folder: string;
  let server: Server;
  let browser: Browser;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "hotset-page-"));
    writeFileSync(join(folder, "page.mjs"), page);
    await build({
      entryPoints: [join(folder, "page.mjs")],
      bundle: true,
      format: "esm",
      platform: "browser",
      outfile: join(folder, "bundle.js"),
      nodePaths: [join(root, "bench/node_modules"), join(root, "examples/node_modules")],
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
      ],
    });
  }, 120_000);

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

  it("searches off the page's thread", async () => {
    const { first, ticks } = await inPage<{ first: number[]; ticks: number }>("/isolated/", "searchAsync()");
    expect(first).toEqual([100, 101, 102, 103]);
    expect(ticks).toBeGreaterThan(0);
  }, 120_000);
});
