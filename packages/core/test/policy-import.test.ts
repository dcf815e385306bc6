/** Importers of other systems' policies: on files made here, on damaged ones, and on the published ones where they are. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { attention, FormatError } from "@hotset/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";

const {
  formatPolicy,
  importDuo,
  importIndexer,
  importKascade,
  importMInference,
  importUcm,
  npyNumbers,
  parsePolicy,
  policyCounts,
  policyLine,
  readNpy,
} = attention;

const ucm = {
  model_name: "made/here",
  num_hidden_layers: 6,
  chunk_size: 64,
  gpu_seq_len_threshold: 4096,
  gpu_concurrency_threshold: 4,
  is_mla: true,
  top_k_ratio_per_layer: [1, 1, 0.3, 0.3, 0.3, 1],
  top_k_index_reuse: [-1, -1, -1, -1, -1, -1],
  must_select_blocks: [0, -2, -1],
  vllm_hash_attention_topk: 512,
  vllm_hash_attention_rollback_layers: [0, 5],
  vllm_hash_attention_skip_layers: [true, false, true, false, true, true],
};

/** A .npy of i32, as NumPy writes it. */
function npy(shape: number[], numbers: number[]): Uint8Array {
  const header = `{'descr': '<i4', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`.padEnd(117, " ");
  const bytes = new Uint8Array(128 + 4 * numbers.length);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, 118, 0]);
  bytes.set(new TextEncoder().encode(`${header}\n`), 10);
  new Int32Array(bytes.buffer, 128).set(numbers);
  return bytes;
}
const kascade = (bytes: Uint8Array, where = "map_layers_0_2.npy") => {
  const read = readNpy(bytes, where);
  return importKascade({ shape: read.shape, data: npyNumbers(read, where) }, { where });
};
const map = npy([4, 3], [0, 1, 2, 2, 0, 1, 0, 1, 2, 0, 1, 2]);

const glm = { num_hidden_layers: 12, index_topk: 2048, index_topk_freq: 4, index_skip_topk_offset: 3, architectures: ["Made"] };
const minference = [
  { 0: ["vertical_and_slash", 1000, 6096, 0.5], 1: ["stream_llm", 100, 800, 12] },
  { 0: ["vertical_and_slash", 30, 800, 0.25], 1: ["vertical_and_slash", 1000, 6096, 1] },
];
const duo = "0.9\t0.1\n0.2\t-0.0001\n1\t1\n";

describe("importers", () => {
  it("ucm: rollback, anchors and skips, with its blocks", () => {
    const { policy, notExpressed, model } = importUcm(JSON.stringify(ucm));
    expect(policyLine(policy)).toBe("F a 1 a 3 F");
    expect(policy).toMatchObject({ granularity: 64, perHead: false, sink: 64, recent: 65, minContext: 4096 });
    expect(policy.layers[1]).toMatchObject({ k: 512 });
    expect(model).toBe("made/here");
    const said = notExpressed.join(" ");
    for (const word of ["Hamming", "4 requests", "MLA", "top_k_ratio_per_layer", "top_k_index_reuse"]) expect(said).toContain(word);
  });

  it("ucm: the older fields, where the newer are not there", () => {
    const { vllm_hash_attention_rollback_layers: _, vllm_hash_attention_skip_layers: __, ...old } = ucm;
    const { policy, notExpressed } = importUcm({ ...old, top_k_index_reuse: [-1, -1, -1, 2, 2, -1], must_select_blocks: [0, 7, -1] });
    expect(policyLine(policy)).toBe("F F a 2 2 F");
    expect(policy.layers[2]).toMatchObject({ ratio: 0.3, attends: "list" });
    expect(policy.recent).toBe(1);
    expect(notExpressed.join(" ")).toContain("Blocks 7 are always selected");
  });

  it("kascade: anchors by the file's name, by its rows, or as given; identity rows need no map", () => {
    const { policy } = kascade(map);
    expect(policy.layers).toEqual([
      { kind: "anchor", k: 128, ratio: 0.1, refreshEvery: 1 },
      { kind: "reuse", source: 0, headMap: [2, 0, 1] },
      { kind: "anchor", k: 128, ratio: 0.1, refreshEvery: 1, attends: "list" },
      { kind: "reuse", source: 2 },
    ]);
    expect(policyLine(kascade(map, "map.npy").policy)).toBe("A 0 a a");
    const read = readNpy(map);
    const given = importKascade({ shape: read.shape, data: npyNumbers(read) }, { anchors: [0], k: 64, ratio: 0.25 });
    expect(policyLine(given.policy)).toBe("A 0 0 0");
    expect(given.policy.layers[0]).toMatchObject({ k: 64, ratio: 0.25 });
    expect(given.notExpressed.join(" ")).toContain("prefill");
  });

  it("indexer: by frequency and offset, as the published model has them", () => {
    const layers = (file: object) =>
      importIndexer({ ...glm, ...file }).policy.layers.flatMap((rule, layer) => (rule.kind === "anchor" ? [layer] : []));
    expect(layers({})).toEqual([0, 1, 2, 6, 10]);
    // 78 layers: 0, 1, 2, then every fourth up to 74, which are 21.
    const large = layers({ num_hidden_layers: 78 });
    expect([large.length, large.slice(0, 5), large.at(-1)]).toEqual([21, [0, 1, 2, 6, 10], 74]);
    // Without an offset, as engines that know none do it.
    expect(layers({ index_skip_topk_offset: undefined })).toEqual([0, 1, 5, 9]);
    expect(importIndexer(glm).policy.layers[0]).toEqual({ kind: "anchor", k: 2048, refreshEvery: 1, attends: "list" });
    expect(policyLine(importIndexer(glm).policy)).toBe("a a a 2 2 2 a 6 6 6 a 10");
  });

  it("indexer: the list of types is the truth, then the pattern, and what differs is said", () => {
    const types = ["full", ...new Array(11).fill("shared")];
    const found = importIndexer({ ...glm, indexer_types: types, index_topk_pattern: "FFSSSSSSSSSS", num_nextn_predict_layers: 1 });
    expect(policyLine(found.policy)).toBe("a 0 0 0 0 0 0 0 0 0 0 0");
    const said = found.notExpressed.join(" ");
    expect(said).toContain("index_topk_pattern says otherwise of layer 1;");
    expect(said).toContain("index_topk_freq says otherwise of layers 1 to 2, 6, 10;");
    expect(said).toContain("1 layers that predict further tokens");
    const pattern = importIndexer({ ...glm, indexer_types: null, index_topk_pattern: "FFSSSSSSSSSS" });
    expect(policyLine(pattern.policy)).toBe("a a 1 1 1 1 1 1 1 1 1 1");
    expect(
      importIndexer({ ...glm, indexer_types: importIndexer(glm).policy.layers.map(({ kind }) => (kind === "anchor" ? "full" : "shared")) })
        .notExpressed.length,
    ).toBe(1);
  });

  it("minference: dense decoding, and each head's pattern beside it", () => {
    const { policy, heads, notExpressed } = importMInference(JSON.stringify(minference));
    expect(policyLine(policy)).toBe("F F");
    expect(heads).toEqual([
      { layer: 0, head: 0, pattern: "vertical_and_slash", sizes: [1000, 6096], score: 0.5 },
      { layer: 0, head: 1, pattern: "stream_llm", sizes: [100, 800], score: 12 },
      { layer: 1, head: 0, pattern: "vertical_and_slash", sizes: [30, 800], score: 0.25 },
      { layer: 1, head: 1, pattern: "vertical_and_slash", sizes: [1000, 6096], score: 1 },
    ]);
    expect(notExpressed.join(" ")).toContain("vertical_and_slash 1000/6096 in 2");
  });

  it("duo: layers that stream altogether, heads that do in others, by threshold or share", () => {
    const { policy, heads, notExpressed } = importDuo(duo, { sink: 4, recent: 12 });
    expect(policyLine(policy)).toBe("F a F");
    expect(policy).toMatchObject({ sink: 4, recent: 12, granularity: 1 });
    expect(policy.layers[1]).toMatchObject({ k: 16 });
    expect(heads?.map(({ pattern }) => pattern)).toEqual(["full", "streaming", "streaming", "streaming", "full", "full"]);
    expect(heads?.[1]).toEqual({ layer: 0, head: 1, pattern: "streaming", sizes: [4, 12], score: 0.1 });
    expect(notExpressed[0]).toContain("1 of 6 KV heads stream (4 first and 12 last tokens)");
    expect(policyLine(importDuo(duo, { sparsity: 1 }).policy)).toBe("a a a");
    expect(policyLine(importDuo(duo, { sparsity: 0 }).policy)).toBe("F F F");
    expect(importDuo(duo, { sparsity: 0.5 }).heads?.filter(({ pattern }) => pattern === "streaming").length).toBe(3);
  });

  const sources: [string, string, (text: string) => attention.ImportedPolicy][] = [
    ["ucm", JSON.stringify(ucm), (text) => importUcm(text)],
    ["indexer", JSON.stringify(glm), (text) => importIndexer(text)],
    ["minference", JSON.stringify(minference), (text) => importMInference(text)],
    ["duo", duo, (text) => importDuo(text)],
  ];

  it.each(sources)("%s: a file cut anywhere is a format error", (name, text, read) => {
    for (let end = 0; end < text.length; end++) {
      // Lines of gates know nothing of how many there were.
      if (name === "duo" && text[end - 1] === "\n") continue;
      expect(() => read(text.slice(0, end)), text.slice(0, end)).toThrow(FormatError);
    }
  });

  it.each(sources)("%s: a damaged file is refused, or gives a policy that is sound", (_, text, read) => {
    const edit = fc.tuple(
      fc.nat(text.length),
      fc.nat(4),
      fc.constantFrom("", "0", "-1", "9999999999", "null", "[]", "{}", '"', ",", "true", "1e400", "\t", "\n", "F"),
    );
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
        let damaged = text;
        for (const [at, gone, put] of edits) damaged = damaged.slice(0, at) + put + damaged.slice(at + gone);
        try {
          const { policy } = read(damaged);
          expect(parsePolicy(formatPolicy(policy))).toEqual(policy);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }),
      { numRuns: 3000, seed: 11 },
    );
  });

  it("kascade: a .npy cut anywhere, or with another byte in its header, is a format error or sound", () => {
    for (let end = 0; end < map.length; end++) expect(() => kascade(map.slice(0, end)), `${end}`).toThrow(FormatError);
    for (let at = 0; at < map.length; at++)
      for (const value of [0, 0x27, 0x2c, 0x39, 0xff]) {
        const damaged = map.slice();
        damaged[at] = value;
        try {
          const { policy } = kascade(damaged);
          expect(parsePolicy(policy.layers.length ? formatPolicy(policy) : "")).toEqual(policy);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }
  });

  it.each([
    [
      () => importUcm({ ...ucm, vllm_hash_attention_skip_layers: [true, true, true, true, true, true] }),
      "a layer before it that selects blocks",
    ],
    [() => importUcm({ ...ucm, vllm_hash_attention_rollback_layers: [6] }), "rollback_layers[0]: expected a whole number from 0 to 5"],
    [() => importUcm({ ...ucm, vllm_hash_attention_skip_layers: [true] }), "6 entries, one for each layer"],
    [() => importUcm({ ...ucm, vllm_hash_attention_skip_layers: undefined }), "skip_layers: expected a list"],
    [
      () =>
        importUcm({
          ...ucm,
          vllm_hash_attention_rollback_layers: undefined,
          vllm_hash_attention_skip_layers: undefined,
          top_k_index_reuse: [-1, -1, 3, -1, -1, -1],
        }),
      "top_k_index_reuse[2]: expected a whole number from -1 to 1",
    ],
    [
      () =>
        importUcm({
          ...ucm,
          vllm_hash_attention_rollback_layers: undefined,
          vllm_hash_attention_skip_layers: undefined,
          top_k_index_reuse: [-1, 0, -1, -1, -1, -1],
        }),
      "an anchor, which makes a list but received layer 0, which is full",
    ],
    [() => kascade(npy([2, 2], [0, 1, 0, 2]), "x.npy"), "x.npy[1][1]: expected a whole number from 0 to 1 but received 2"],
    [() => kascade(npy([2, 2], [1, 0, 0, 1]), "x.npy"), "layer 0 among them"],
    [() => kascade(npy([2, 2], [0, 1, 1, 1]), "x_layers_0_1.npy"), "layer 1 is an anchor"],
    [() => kascade(npy([2, 2], [0, 1, 1, 1]), "x_layers_0_7.npy"), "anchors: expected a whole number from 0 to 1 but received 7"],
    [() => kascade(npy([4], [0, 1, 1, 1]), "x.npy"), "a map [layers, kvHeads] but received [4]"],
    [() => importIndexer({ ...glm, indexer_types: ["shared", ...new Array(11).fill("full")] }), "layer 0 to run the indexer"],
    [() => importIndexer({ ...glm, indexer_types: ["full"] }), "12 entries"],
    [() => importIndexer({ ...glm, index_topk_pattern: "FFXSSSSSSSSS" }), 'index_topk_pattern[2]: expected "full" or "shared"'],
    [() => importIndexer({ num_hidden_layers: 3, index_topk: 4 }), "received none of them"],
    [() => importMInference([{ 0: ["magic", 1, 2, 3] }]), 'vertical_and_slash, stream_llm, block_sparse but received "magic"'],
    [() => importMInference([{ 1: ["stream_llm", 1, 2, 3] }]), "[0].0: expected a pattern"],
    [() => importMInference([minference[0], {}]), "2 heads but received 0"],
    [() => importDuo("0.5\t0.5\n0.5\n"), "line 2: expected 2 heads but received 1"],
    [() => importDuo("0.5\tx\n"), 'line 1, head 1: expected a gate, about 0 to 1 but received "x"'],
    [() => importDuo(duo, { sparsity: 2 }), "sparsity: expected a number from 0 to 1"],
  ])("refuses what contradicts itself: %#", (read, message) => {
    expect(read).toThrow(FormatError);
    expect(read).toThrow(message);
  });
});

const folder = fileURLToPath(new URL("../../../../shared/data/policies", import.meta.url));
const files = existsSync(folder) ? readdirSync(folder).filter((name) => !name.endsWith(".md")) : [];

describe.skipIf(files.length === 0)("published policies (need ../shared/data/policies)", () => {
  const imported = (name: string): attention.ImportedPolicy => {
    const bytes = readFileSync(`${folder}/${name}`);
    if (name.endsWith(".npy")) return kascade(bytes, name);
    if (name.startsWith("ucm")) return importUcm(bytes.toString(), name);
    return name.startsWith("duo") ? importDuo(bytes.toString(), { where: name }) : importMInference(bytes.toString(), name);
  };

  it("all import, and are read back as policies", () => {
    expect(files.length).toBe(29);
    for (const name of files) {
      const { policy, notExpressed } = imported(name);
      expect(parsePolicy(formatPolicy(policy)), name).toEqual(policy);
      expect(notExpressed.length, name).toBeGreaterThan(0);
    }
  });

  it("have the layers that their makers publish", () => {
    const counts = (name: string) => Object.values(policyCounts(imported(name).policy));
    expect(counts("ucm_gsa_on_device_qwen3_4B_config.json")).toEqual([7, 15, 14]);
    expect(counts("ucm_gsa_on_device_qwen3_32B_config.json")).toEqual([10, 21, 33]);
    expect(counts("ucm_gsa_on_device_qwen3_coder_30B_A3B_config.json")).toEqual([3, 13, 32]);
    expect(counts("ucm_gsa_on_device_deepseek_r1_awq_config.json")).toEqual([6, 18, 37]);
    expect(counts("ucm_gsa_on_device_deepseek_v2_lite_config.json")).toEqual([6, 15, 6]);
    expect(policyLine(imported("ucm_gsa_on_device_qwen3_4B_config.json").policy).replace(/\d+/g, "r").replaceAll(" ", "")).toBe(
      `${"F".repeat(7)}${"a".repeat(11)}ra${"r".repeat(10)}aarrra`,
    );
    const qwen = imported("Qwen3-8B_layers_0_2_7_14_23.npy").policy;
    expect(qwen.layers.flatMap(({ kind }, layer) => (kind === "anchor" ? [layer] : []))).toEqual([0, 2, 7, 14, 23]);
    expect(qwen.layers[35]).toEqual({ kind: "reuse", source: 23, headMap: [0, 0, 0, 0, 0, 0, 0, 0] });
  });
});
