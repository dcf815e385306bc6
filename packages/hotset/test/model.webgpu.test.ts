/** Models on the WebGPU kernels, on a driver that computes on the CPU; and `hotset run` there. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { webgpu } from "@hotset/kernels-webgpu";
import { afterAll, describe, expect, it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { modelsOn } from "./support/on-device.js";
import { tinyModel, tinyTokenizer } from "./support/tiny-model.js";

if (without(swiftshader !== undefined)) it.skip("models on WebGPU (needs chromium's vk_swiftshader)", () => {});
else {
  modelsOn("webgpu", () => webgpu());

  describe("hotset run --backend webgpu", () => {
    const folder = mkdtempSync(join(tmpdir(), "hotset-webgpu-"));
    afterAll(() => rmSync(folder, { recursive: true, force: true }));
    const model = join(folder, "tiny.bin");
    writeFileSync(model, tinyModel("a model to run", { dim: 64, hidden: 96, heads: 8 }));
    writeFileSync(join(folder, "tok300.bin"), tinyTokenizer());
    const policy = join(folder, "policy.json");
    const layers = [{ kind: "anchor", k: 16 }, { kind: "reuse", source: 0 }, { kind: "full" }];
    writeFileSync(policy, JSON.stringify({ layers, granularity: 4, recent: 4 }));
    const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
    const run = (backend: string, ...args: string[]) => {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [command, "run", model, "--prompt", "abcd ".repeat(9), "--max-tokens", "8", "--backend", backend, "--json", ...args],
        { encoding: "utf8", env: { ...process.env, HOTSET_CACHE_DIR: folder }, timeout: 120_000 },
      );
      expect([status, stderr]).toEqual([0, ""]);
      return JSON.parse(stdout);
    };

    it.each([[], ["--policy", policy], ["--evict", "streaming-llm", "--budget", "20"], ["--evict", "snapkv", "--budget", "36"]])(
      "gives the text of js %s %s %s %s",
      (...args) => {
        const given = args.filter((one): one is string => typeof one === "string");
        const [found, wanted] = [run("webgpu", ...given), run("js", ...given)];
        expect([found.backend, found.why]).toEqual(["webgpu", "webgpu was asked for"]);
        expect([found.text, found.tokens, found.eviction]).toEqual([wanted.text, wanted.tokens, wanted.eviction]);
        expect(found.policy).toEqual(wanted.policy && { ...wanted.policy, massKept: null });
      },
    );
  });
}
