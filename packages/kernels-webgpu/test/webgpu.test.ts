import { readFileSync } from "node:fs";
import { BackendLoadError } from "@hotset/core";
import { ops } from "@hotset/core/ops";
import { plannedRows, type SupportRow } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";
import { kernels, webgpu } from "../dist/index.js";

const claims = JSON.parse(readFileSync(new URL("../../../support.json", import.meta.url), "utf8")) as SupportRow[];

describe("the place of the WebGPU backend", () => {
  it("has an empty table, and says so instead of loading", async () => {
    expect(Object.keys(kernels)).toEqual([]);
    await expect(webgpu()).rejects.toThrow(BackendLoadError);
    await expect(webgpu()).rejects.toThrow(/at least one kernel but received 0: no WGSL kernel yet/);
  });

  it("is claimed nowhere: every op and variant has its reason in support.json", () => {
    const rows = claims.filter(({ target }) => target === "webgpu");
    expect(rows.length).toBe(plannedRows("webgpu", () => "").length);
    for (const { op, kernels: claimed, reason, verified } of rows) {
      expect(claimed).toBeUndefined();
      expect(verified).toBeNull();
      expect(reason).toMatch(ops.find(({ id }) => id === op)?.cpuByDesign ? /^cpu by design: .*us/ : /^no WGSL kernel yet$/);
    }
  });

  it("has its parameter structs", () => {
    const wgsl = readFileSync(new URL("../src/gen/params.wgsl", import.meta.url), "utf8");
    expect(wgsl).toContain("struct SearchScanParams {");
  });
});
