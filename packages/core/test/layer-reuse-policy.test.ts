import { attention, FormatError, HotsetError, UnsupportedError } from "@hotset/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { kascade } from "./layer-reuse-loop.js";

const { parsePolicy } = attention;

const refusal = (source: unknown, checks = {}): HotsetError => {
  try {
    parsePolicy(source, checks);
  } catch (error) {
    if (error instanceof HotsetError) return error;
    throw error;
  }
  throw new Error("it was accepted");
};
const withLayer = (rule: unknown, rest: object = {}) => ({
  ...kascade,
  ...rest,
  layers: [{ kind: "anchor", k: 8 }, { kind: "full" }, rule],
});

describe("policy.json", () => {
  it("is read from text or an object, with defaults", () => {
    const policy = parsePolicy(JSON.stringify(kascade), { layers: 5, kvHeads: 2 });
    expect(policy).toEqual(parsePolicy(kascade));
    expect(policy.layers[1]).toEqual({ kind: "anchor", k: 32, ratio: 0.1, refreshEvery: 1 });
    expect(parsePolicy({ layers: [{ kind: "full" }] })).toEqual({
      layers: [{ kind: "full" }],
      granularity: 16,
      perHead: true,
      sink: 0,
      recent: 1,
      minContext: 0,
      score: "mass",
    });
  });

  it("cut anywhere, is a format error", () => {
    const text = JSON.stringify(kascade);
    for (let end = 0; end < text.length; end++) expect(refusal(text.slice(0, end)), text.slice(0, end)).toBeInstanceOf(FormatError);
  });

  it.each([
    [null, "policy: expected an object"],
    [[], "policy: expected an object"],
    ["[]", "policy: expected an object"],
    [{}, "layers: expected a list"],
    [{ layers: [] }, "layers: expected a list"],
    [{ layers: [{ kind: "full" }], minContex: 5 }, 'a field "minContex"'],
    [{ ...kascade, granularity: 0 }, "granularity: expected a whole number from 1 to 65536 but received 0"],
    [{ ...kascade, granularity: 1.5 }, "granularity"],
    [{ ...kascade, sink: -1 }, "sink"],
    [{ ...kascade, recent: "8" }, 'recent: expected a whole number from 0 to 2147483646 but received "8"'],
    [{ ...kascade, minContext: Number.NaN }, "minContext"],
    [{ ...kascade, perHead: 1 }, "perHead: expected true or false"],
    [{ ...kascade, score: "magic" }, 'score: expected "mass" but received "magic"'],
    [withLayer({ kind: "rollback" }), 'layers[2].kind: expected "full", "anchor" or "reuse" but received "rollback"'],
    [withLayer(7), "layers[2].kind"],
    [withLayer({ kind: "full", k: 3 }), 'layers[2]: expected kind but received a field "k"'],
    [withLayer({ kind: "anchor" }), "k (tokens) or ratio"],
    [withLayer({ kind: "anchor", k: 0 }), "layers[2].k"],
    [withLayer({ kind: "anchor", ratio: 1.5 }), "layers[2].ratio"],
    [withLayer({ kind: "anchor", k: 4, attends: "list" }), "layers[2].attends: expected version 2 at the top of the file"],
    [withLayer({ kind: "anchor", k: 4, attends: "some" }, { version: 2 }), 'attends: expected "all" or "list" but received "some"'],
    [{ ...kascade, version: 3 }, "version: expected a version from 1 to 2 but received 3. A later version of Hotset reads later files"],
    [{ ...kascade, version: "2" }, 'version: expected a version from 1 to 2 but received "2"'],
    [withLayer({ kind: "anchor", k: 4, refreshEvery: 0 }), "layers[2].refreshEvery"],
    [withLayer({ kind: "reuse" }), "layers[2].source"],
    [withLayer({ kind: "reuse", source: 2 }), "layers[2].source: expected a layer before 2 but received 2"],
    [withLayer({ kind: "reuse", source: 40 }), "expected a layer before 2"],
    [withLayer({ kind: "reuse", source: 1 }), "an anchor, which makes a list but received layer 1, which is full"],
    [withLayer({ kind: "reuse", source: 0, headMap: [0, 2] }), "layers[2].headMap[1]"],
    [withLayer({ kind: "reuse", source: 0, headMap: [] }), "layers[2].headMap"],
    [withLayer({ kind: "reuse", source: 0, headMap: [0] }, { perHead: false }), "perHead"],
  ])("refuses %j", (source, message) => {
    const error = refusal(source);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toContain(message);
  });

  it("of version 2 may have anchors that attend to their list, and is written in the least version that it needs", () => {
    const layers = [
      { kind: "anchor", k: 4, attends: "list" },
      { kind: "reuse", source: 0 },
    ];
    const policy = parsePolicy({ version: 2, layers });
    expect(policy.layers[0]).toEqual({ kind: "anchor", k: 4, refreshEvery: 1, attends: "list" });
    const text = attention.formatPolicy(policy, { made: "by hand" });
    expect(JSON.parse(text)).toMatchObject({ version: 2, about: { made: "by hand" } });
    expect(parsePolicy(text)).toEqual(policy);
    const old = parsePolicy({ version: 1, layers: [{ kind: "anchor", k: 4 }] });
    expect(parsePolicy({ version: 2, layers: [{ kind: "anchor", k: 4, attends: "all" }] })).toEqual(old);
    expect(JSON.parse(attention.formatPolicy(old))).not.toHaveProperty("version");
    expect(parsePolicy(attention.formatPolicy(old))).toEqual(old);
  });

  it("names the file, and compares with the model", () => {
    expect(refusal(kascade, { where: "a/policy.json", layers: 6 }).message).toBe(
      "a/policy.json: layers: expected 6 layers, as the model has but received 5. Make a policy for this model.",
    );
    expect(refusal(kascade, { kvHeads: 8 }).message).toContain("a list of 8 heads");
    expect(refusal({ ...kascade, score: "hamming" })).toBeInstanceOf(UnsupportedError);
  });

  it("made of anything, is read or refused", () => {
    const rule = fc.record(
      {
        kind: fc.constantFrom("full", "anchor", "reuse", "other"),
        k: fc.oneof(fc.integer(), fc.double()),
        ratio: fc.double(),
        source: fc.integer({ min: -1, max: 5 }),
        headMap: fc.array(fc.integer({ min: -1, max: 3 }), { maxLength: 3 }),
        refreshEvery: fc.integer({ min: -1, max: 3 }),
      },
      { requiredKeys: ["kind"] },
    );
    const made = fc.record(
      {
        layers: fc.oneof(fc.array(fc.oneof(rule, fc.jsonValue()), { maxLength: 5 }), fc.jsonValue()),
        sink: fc.jsonValue(),
        score: fc.jsonValue(),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(made, fc.jsonValue()), (value) => {
        for (const source of [value, JSON.stringify(value)]) {
          try {
            for (const [layer, read] of parsePolicy(source).layers.entries())
              if (read.kind === "reuse") expect(parsePolicy(source).layers[read.source]?.kind, `${layer}`).toBe("anchor");
          } catch (error) {
            if (!(error instanceof FormatError || error instanceof UnsupportedError)) throw error;
          }
        }
      }),
      { numRuns: 5000, seed: 20261121 },
    );
  });
});
