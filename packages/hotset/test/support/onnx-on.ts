/** A few made ONNX cases on a device backend. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHotset, type Hotset } from "@hotset/core";
import type { DeviceBackend } from "@hotset/core/backend";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findCases } from "../../src/onnx/cases.js";
import { runCase } from "../../src/onnx/run.js";
import { attentionCases, otherCases } from "./onnx-cases.js";
import { writeCase } from "./onnx-files.js";

/** Of the ops that the command calls those about attention, with grouped heads, masks of both kinds, lengths of all kinds. */
const few = [
  "sequences of other lengths, causal",
  "a cap and a mask that adds, shorter than the keys",
  "a mask of bools for each head",
  "rotary: interleaved, a part of the head, flat",
  "softmax: the first axis",
];

export function onnxOn(name: string, load: () => DeviceBackend | Promise<DeviceBackend>): void {
  describe(`ONNX's cases on ${name}`, () => {
    const folder = mkdtempSync(join(tmpdir(), "hotset-onnx-"));
    let hotset: Hotset;
    beforeAll(async () => {
      hotset = await createHotset({ backends: [await load()] });
    });
    afterAll(() => {
      hotset.dispose();
      rmSync(folder, { recursive: true, force: true });
    });

    it.each(few)("%s", async (wanted) => {
      const { node, inputs, outputs } = [...attentionCases, ...otherCases].find(
        (one) => one.name === wanted,
      ) as (typeof attentionCases)[number];
      const [found] = findCases(writeCase(join(folder, wanted.replaceAll(/[^a-z]+/g, "_")), node, inputs, outputs));
      const { status, reason } = await runCase(found as NonNullable<typeof found>, hotset, hotset.backends[0]?.id as string);
      expect([status, reason]).toEqual(["passed", null]);
    });
  });
}
