/** Models on a device: nothing is computed or looked at on the host, everything is given back, and why one is chosen. */
import {
  attention,
  createHotset,
  type EvictionSettings,
  HotsetError,
  js,
  type Model,
  type OpenModelSettings,
  openModel,
  readModel,
  reuseAttention,
} from "@hotset/core";
import { afterEach, describe, expect, it } from "vitest";
import { type QueuedDevice, queuedDevice } from "./support/queued-device.js";
import { tinyModel, tinySizes, tinyTokenizer } from "./support/tiny-model.js";

const bytes = tinyModel("a tiny model");
const tokenizer = tinyTokenizer();
const { layers, kvHeads, vocab } = tinySizes;
const short = "ab abc";
/** More than a chunk of 64 tokens. */
const long = "abcd ".repeat(18);

const policy = (k: number) =>
  attention.parsePolicy({
    layers: [
      { kind: "anchor", k, refreshEvery: 3 },
      { kind: "reuse", source: 0, headMap: [1, 0] },
      { kind: "anchor", k },
    ],
    granularity: 4,
    sink: 2,
    recent: 4,
  });

type Settings = Partial<OpenModelSettings>;

async function decoded(model: Model, prompt: string, maxTokens = 40): Promise<{ ids: number[]; logits: Float32Array[] }> {
  const ids: number[] = [];
  const logits: Float32Array[] = [];
  for await (const { id } of model.tokens(prompt, { maxTokens })) {
    ids.push(id);
    logits.push(model.forward.logits.data.slice());
  }
  return { ids, logits };
}

describe("a model on a device", () => {
  let device: QueuedDevice;
  const open = async (settings: Settings = {}): Promise<Model> => {
    device = queuedDevice();
    const hotset = await createHotset({ backends: [device, js()] });
    return openModel(bytes, { tokenizer, hotset, backend: "cuda", ...settings });
  };
  const openJs = async (settings: Settings = {}) => openModel(bytes, { tokenizer, hotset: await createHotset(), ...settings });
  // Whatever a test does, disposing of the model gives back all of it.
  let model: Model | undefined;
  afterEach(() => {
    model?.dispose();
    expect([device.counts.bytes, device.counts.steps, device.counts.batches]).toEqual([0, 0, 0]);
    model = undefined;
  });

  const ways: [string, Settings][] = [
    ["dense attention", {}],
    ["StreamingLLM", { eviction: { method: "streaming-llm", budget: 17 } }],
    ["SnapKV", { eviction: { method: "snapkv", budget: 30, window: 9, kernel: 3 } }],
    ["a policy", { attention: (context) => reuseAttention(context, policy(12)) }],
    [
      "a policy that shares a list",
      {
        attention: (context) =>
          reuseAttention(context, {
            ...policy(12),
            layers: policy(12).layers.map((rule) => (rule.kind === "reuse" ? { ...rule, headMap: undefined } : rule)) as never,
            perHead: false,
          }),
      },
    ],
  ];
  it.each(ways)("has the bits of js with %s, waits once a token, and reads back the logits", async (_, settings) => {
    model = await open(settings);
    const plain = await openJs(settings);
    for (const prompt of [short, long]) {
      const input = model.tokenizer.encode(prompt).length;
      const before = { ...device.counts };
      const found = await decoded(model, prompt);
      const wanted = await decoded(plain, prompt);
      expect(found.ids.length).toBeGreaterThan(3);
      expect(found).toEqual(wanted);
      expect(model.forward.evicted).toEqual(plain.forward.evicted);
      const parts = Math.ceil(input / 64) - 1;
      const tokens = model.forward.position - input + 1;
      // Once each layer after a prompt that SnapKV shortens.
      const masses = (settings.eviction?.method === "snapkv" && input > 30 ? layers : 0) as number;
      expect(device.counts.waits - before.waits).toBe(parts + tokens + masses);
      const massBytes = masses * 9 * kvHeads * 128 * 4;
      expect(device.counts.readBytes - before.readBytes).toBe(4 * vocab * tokens + massBytes);
    }
    plain.dispose();
  });

  it("counts by a policy what js counts", async () => {
    const counted = async (of: (settings: Settings) => Promise<Model>) => {
      let reuse: Awaited<ReturnType<typeof reuseAttention>> | undefined;
      const made = await of({ attention: async (context) => (reuse = await reuseAttention(context, policy(12))) });
      const { ids } = await decoded(made, long);
      return { ids, counters: reuse?.counters, made };
    };
    const wanted = await counted(openJs);
    const found = await counted(open);
    model = found.made;
    expect(found.ids).toEqual(wanted.ids);
    expect(wanted.counters).toMatchObject({ sparseActive: true });
    expect(wanted.counters?.tokensAttended).toBeLessThan(wanted.counters?.tokensVisible as number);
    expect(found.counters).toEqual({ ...wanted.counters, massKept: Number.NaN });
  });

  it("uploads each weight once, tied ones too", async () => {
    model = await open();
    const held = device.counts.bytes;
    const loaded = readModel(bytes);
    expect(loaded.weights.output).toBe(loaded.weights.embedding);
    const untied = {
      ...loaded,
      weights: { ...loaded.weights, output: { dtype: "f32" as const, data: (loaded.weights.output.data as Float32Array).slice() } },
    };
    const hotset = await createHotset({ backends: [queuedDevice(), js()] });
    const other = await openModel(untied, { tokenizer, hotset, backend: "cuda" });
    const { counts } = hotset.backends[0] as QueuedDevice;
    expect(counts.bytes - held).toBe(untied.weights.output.data.byteLength);
    other.dispose();
    expect(counts.bytes).toBe(0);
  });

  const failing = (what: string, code: "memory" | "device"): HotsetError =>
    new HotsetError(code, { where: "queued", expected: `${what} to work`, received: "what a test wants" });

  it("gives everything back wherever loading fails", async () => {
    model = await open({ eviction: { method: "snapkv", budget: 40 } });
    // How many there are of each; then one after the other fails.
    const seen = new Map<string, number>();
    const count: QueuedDevice["fails"] = (what) => {
      seen.set(what, (seen.get(what) ?? 0) + 1);
      return undefined;
    };
    const hotset = await createHotset({ backends: [device, js()] });
    const again = (settings: Settings) => openModel(bytes, { tokenizer, hotset, backend: "cuda", context: 32, ...settings });
    const ways: Settings[] = [
      { eviction: { method: "snapkv", budget: 33 } },
      { attention: (context) => reuseAttention(context, policy(12)) },
    ];
    const held = { ...device.counts };
    for (const way of ways) {
      seen.clear();
      device.fails = count;
      (await again(way)).dispose();
      expect([...seen.keys()].sort()).toEqual(["alloc", "bind", "write"]);
      for (const [kind, times] of [...seen]) {
        for (let at = 1; at <= times; at++) {
          let left = at;
          device.fails = (what) => (what === kind && --left === 0 ? failing(what, kind === "alloc" ? "memory" : "device") : undefined);
          const error = await again(way).then(
            () => undefined,
            (cause) => cause as HotsetError,
          );
          expect(error?.message).toMatch(/what a test wants/);
          if (kind === "alloc")
            expect(error?.message).toMatch(/^openModel: expected room on cuda for [\d.]+ MiB of weights and a cache of 32 tokens/);
          expect([device.counts.bytes, device.counts.steps]).toEqual([held.bytes, held.steps]);
        }
      }
      device.fails = () => undefined;
    }
  });

  it("ends a text with the reason where the device fails or is lost in the middle, and can begin another", async () => {
    model = await open();
    const plain = await openJs();
    const wanted = await decoded(plain, short);
    plain.dispose();
    const ids: number[] = [];
    const text = async () => {
      for await (const { id } of (model as Model).tokens(short, { maxTokens: 40 })) {
        ids.push(id);
        let left = 20;
        if (ids.length === 4) device.fails = (what) => (what === "run" && --left === 0 ? failing("a run", "device") : undefined);
      }
    };
    await expect(text()).rejects.toThrow(/a run to work/);
    expect(ids).toEqual(wanted.ids.slice(0, 4));
    device.fails = () => undefined;
    expect(await decoded(model, short)).toEqual(wanted);
    const lost = async () => {
      for await (const _ of (model as Model).tokens(short)) device.lost = "unplugged";
    };
    await expect(lost()).rejects.toThrow(/lost: unplugged/);
    device.lost = undefined;
  });

  it("is disposed of in the middle of a run", async () => {
    model = await open();
    const text = async () => {
      for await (const _ of (model as Model).tokens(long, { maxTokens: 40 })) setTimeout(() => model?.dispose(), 0);
    };
    await expect(text()).rejects.toThrow(/disposed/);
    expect(device.counts.bytes).toBe(0);
  });

  it("refuses tokens that do not exist, and what it cannot run before anything is loaded", async () => {
    model = await open();
    model.forward.begin(1);
    await expect(model.forward.run([vocab])).rejects.toThrow(/tokens below the vocabulary's 300 but received 300/);
    device.lacks.add("attention/rope").add("model/swiglu");
    const hotset = await createHotset({ backends: [device, js()] });
    const { bytes: held } = device.counts;
    device.fails = (what) => failing(what, "memory");
    await expect(openModel(bytes, { tokenizer, hotset, backend: "cuda" })).rejects.toThrow(
      /cuda to run every op of the model but received attention\/rope: no kernel for attention\/rope; model\/swiglu: no kernel/,
    );
    expect(device.counts.bytes).toBe(held);
    device.fails = () => undefined;
    await expect(openModel(bytes, { tokenizer, hotset, backend: "abacus" })).rejects.toThrow(
      /expected a backend of cuda, js but received "abacus"/,
    );
  });
});

describe("the choice", () => {
  /** A model so large that a GPU is predicted to be worth its launches. */
  const large = () => readModel(tinyModel("large", { dim: 256, hidden: 256, heads: 8 }));
  const opened = async (change: (device: QueuedDevice) => void, loaded = readModel(bytes), eviction?: EvictionSettings) => {
    const device = queuedDevice();
    change(device);
    const hotset = await createHotset({ backends: [device, js()] });
    const { backend, why, dispose } = await openModel(loaded, { tokenizer, hotset, context: 64, eviction }).then((model) => ({
      backend: model.backend,
      why: model.why,
      dispose: () => model.dispose(),
    }));
    dispose();
    expect([device.counts.bytes, device.counts.steps]).toEqual([0, 0]);
    return { backend, why };
  };

  it("is by the predicted time of a token, with the reason", async () => {
    const loaded = large();
    const fast = await opened(() => {}, loaded);
    expect(fast.backend).toBe("cuda");
    expect(fast.why).toMatch(/^cuda is predicted at [\d.]+ (µs|ms) a token; next is js at [\d.]+ m?s \(by built-in figures; /);
    const small = await opened(() => {});
    expect(small.backend).toBe("js");
    expect(small.why).toMatch(/^js is predicted at [\d.]+ (µs|ms) a token; next is cuda at/);
  });

  it("leaves out devices that are drawn by the CPU, lost, or lack an op", async () => {
    const loaded = large();
    for (const change of [
      (device: QueuedDevice) => {
        device.software = true;
      },
      (device: QueuedDevice) => void device.lacks.add("kv-cache/append"),
    ]) {
      const { backend, why } = await opened(change, loaded);
      expect([backend, why]).toEqual(["js", expect.stringMatching(/no other backend can run it/)]);
    }
    expect((await opened((device) => void device.lacks.add("kv-cache/compact"), loaded)).backend).toBe("cuda");
    const forgets: EvictionSettings = { method: "streaming-llm", budget: 20 };
    expect((await opened((device) => void device.lacks.add("kv-cache/compact"), loaded, forgets)).backend).toBe("js");
  });

  it("goes on to the next where the first has no room, and says so", async () => {
    const { backend, why } = await opened((device) => {
      device.fails = (what) =>
        what === "alloc" && device.counts.bytes > 1 << 20
          ? new HotsetError("memory", { where: "queued", expected: "room", received: "none" })
          : undefined;
    }, large());
    expect([backend, why]).toEqual([
      "js",
      expect.stringMatching(/^fell back from cuda \(openModel: expected room on cuda .*\): js is predicted/),
    ]);
  });
});
