/** What is peculiar to this backend: residency, an application's pointers and streams, and the choice. */
import { attention, createHotset, type Hotset, js } from "@hotset/core";
import type { DeviceBackend } from "@hotset/core/backend";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { refused } from "../../../test/support/refused.js";
import type { CudaBackend, CudaMemory } from "../dist/index.js";
import { emulated, gpu, open } from "./devices.js";

// Three states of five rows; the second has seen nothing, so the result of the others is known: their mean.
const axes = { parts: 3, rows: 5, valueDim: 4 };
const partOut = Float32Array.from({ length: 60 }, (_, i) => (i < 20 ? 2 : i < 40 ? 99 : 4));
const partLse = Float32Array.from({ length: 15 }, (_, i) => (i < 5 || i >= 10 ? 0 : Number.NEGATIVE_INFINITY));
const merged = new Float32Array(20).fill(3);

for (const device of [emulated, gpu])
  if (device.missing) it.skip(`what is peculiar to ${device.name} (${device.missing})`, () => {});
  else
    describe(device.name, () => {
      let backend: CudaBackend;
      let hotset: Hotset;
      const plan = () => hotset.plan(attention.merge, axes, {}, { backend: "cuda" });

      beforeAll(async () => {
        backend = await open(device);
        hotset = await createHotset({ backends: [backend] });
      });
      afterAll(() => hotset.dispose());

      it("names the device", () => {
        expect(backend.name).toMatch(device === emulated ? /^cuda emulated on the CPU$/ : /^cuda sm_\d+ \(.+\)$/);
        expect(backend.target).toMatch(device === emulated ? /^emulated$/ : /^sm_\d+$/);
        expect(backend.device).toEqual({ software: device === emulated, lost: undefined });
        expect(backend.features).toEqual([
          expect.stringMatching(/GiB$/),
          expect.stringMatching(/^CUDA 13/),
          expect.stringMatching(/^driver for CUDA 1/),
        ]);
      });

      describe("memory", () => {
        it("is zeroed, keeps what was written while the source changes, and comes back in any size", async () => {
          for (const bytes of [0, 1, 255, 4097, (4 << 20) + 5, (40 << 20) + 3]) {
            const memory = backend.alloc(bytes);
            const image = new Uint8Array(bytes).fill(7);
            await memory.read(image);
            expect(image.every((byte) => byte === 0)).toBe(true);
            const source = image.map((_, i) => i * 31 + (i >> 8));
            const wanted = source.slice();
            memory.write(source);
            source.fill(255);
            const reading = memory.read(image);
            // A read is of what was there when it was asked for.
            memory.write(source);
            await reading;
            expect(Buffer.compare(image, wanted)).toBe(0);
            memory.release();
          }
        });

        it("has parts, which know what they share", async () => {
          const whole = backend.alloc(1024);
          const [first, second] = [whole.part(0, 512), whole.part(512, 512)];
          const inner = second.part(256, 100);
          expect([first.sharesWith(second), whole.sharesWith(inner), inner.sharesWith(second)]).toEqual([false, true, true]);
          inner.write(Uint8Array.of(1, 2, 3));
          const image = new Uint8Array(1024);
          await whole.read(image);
          expect([image[767], image[768], image[770], image[771]]).toEqual([0, 1, 3, 0]);
          for (const wrong of [() => whole.part(8, 16), () => whole.part(512, 513), () => whole.part(-16, 16)])
            expect((await refused(wrong)).message).toMatch(/a part from a multiple of 16 within 1024 bytes/);
          expect((await refused(() => first.write(new Uint8Array(513)))).message).toMatch(/at most 512 bytes but received 513/);
          whole.release();
          whole.release();
        });

        it("takes and gives shared arrays, and says where a target was transferred away", async () => {
          const memory = backend.alloc(64);
          memory.write(new Uint8Array(new SharedArrayBuffer(64)).fill(9));
          const shared = new Uint8Array(new SharedArrayBuffer(64));
          await memory.read(shared);
          expect(shared.every((byte) => byte === 9)).toBe(true);
          const target = new Uint8Array(64);
          const reading = memory.read(target);
          structuredClone(target, { transfer: [target.buffer] });
          expect((await refused(() => reading)).code).toBe("detached");
          memory.release();
        });
      });

      describe("steps", () => {
        it("queue, wait, and bring results back", async () => {
          const bound = await plan();
          const [o, l, out, lse] = [bound.alloc("partOut"), bound.alloc("partLse"), bound.alloc("out"), bound.alloc("lse")];
          o.upload(partOut);
          l.upload(partLse);
          const step = bound.bind({ partOut: o, partLse: l }, { out, lse });
          step.run();
          await step.done();
          expect(await out.download()).toEqual(merged);
          // The first part alone; what is set counts for the runs from now on.
          step.set("parts", 1).run();
          l.upload(new Float32Array(15));
          expect(await out.download()).toEqual(new Float32Array(20).fill(2));
          expect(await lse.download()).toEqual(new Float32Array(5));
          expect(await step.time()).toBeGreaterThan(0);
          step.dispose();
          for (const tensor of [o, l, out, lse]) tensor.dispose();
          expect(hotset.planSync(attention.merge, axes, {}, { backend: "js" }).backend).toBe("js");
        });

        it("take host arrays in runAsync, many at once", async () => {
          const bound = await plan();
          const steps = Array.from({ length: 20 }, () => bound.bind({ partOut, partLse }));
          const results = await Promise.all(steps.map((step) => step.runAsync()));
          for (const { out } of results) expect(out).toEqual(merged);
          for (const step of steps) step.dispose();
        });

        it("may be disposed of, with their tensors, while their work is queued", async () => {
          const bound = await plan();
          const out = bound.alloc("out");
          for (let i = 0; i < 200; i++) {
            const [o, l, lse] = [bound.alloc("partOut").upload(partOut), bound.alloc("partLse").upload(partLse), bound.alloc("lse")];
            const step = bound.bind({ partOut: o, partLse: l }, { out, lse });
            step.run();
            step.dispose();
            for (const tensor of [o, l, lse]) tensor.dispose();
          }
          expect(await out.download()).toEqual(merged);
          out.dispose();
        });

        it("report a bad index with the words of the CPU", async () => {
          const sizes = { batch: 1, queryHeads: 1, kvHeads: 1, headDim: 8, pages: 2, pageSize: 4, maxPages: 2 };
          const found = await Promise.all(
            ["cuda", "js"].map(async (id) => {
              const decode = await hotset.plan(attention.decode, { ...sizes, valueDim: 8 }, { keyPages: "f32" }, { backend: id });
              const step = decode.bind({
                queries: new Float32Array(8),
                keyPages: new Float32Array(64),
                valuePages: new Float32Array(64),
                pageTable: Int32Array.of(0, -7),
                lengths: Int32Array.of(7),
              });
              return (await refused(() => step.runAsync())).message;
            }),
          );
          expect(found[0]).toBe(found[1]);
          expect(found[0]).toMatch(/pageTable\[1\] .* but received -7/);
        });
      });

      describe("an application's own", () => {
        it("pointers are bound as they are, once CUDA knows them", async () => {
          const bound = await plan();
          const holder = backend.alloc(4096);
          const pointer = (offset: number, bytes: number) => ({ pointer: holder.pointer + BigInt(offset), bytes });
          holder.part(0, 240).write(new Uint8Array(partOut.buffer));
          holder.part(256, 60).write(new Uint8Array(partLse.buffer));
          const step = bound.bind(
            { partOut: { data: pointer(0, 240), dtype: "f32" }, partLse: { data: pointer(0, 1024), dtype: "f32", offset: 256 } },
            { out: { data: pointer(1024, 80), dtype: "f32" }, lse: { data: pointer(2048, 20), dtype: "f32" } },
          );
          step.run();
          await step.done();
          const image = new Uint8Array(80);
          await holder.part(1024, 80).read(image);
          expect(new Float32Array(image.buffer)).toEqual(merged);

          const bind = (data: object, more: object = {}) =>
            refused(() => bound.bind({ partOut: { data, dtype: "f32", ...more } as never, partLse }));
          expect((await bind({ pointer: 4096n, bytes: 240 })).message).toMatch(/a pointer that (is not to memory of|CUDA does not know)/);
          expect((await bind({ pointer: 0n, bytes: 240 })).message).toMatch(/a pointer of 0/);
          expect((await bind(pointer(4, 240))).message).toMatch(/no multiple of 16 bytes/);
          expect((await bind(pointer(0, 240), { offset: 16 })).code).toBe("shape");
          expect((await bind({ size: 240, usage: 128, mapState: "unmapped" })).message).toMatch(/a GPUBuffer/);
          const twice = () =>
            bound.bind({ partOut: { data: pointer(0, 240), dtype: "f32" }, partLse }, { out: { data: pointer(128, 80), dtype: "f32" } });
          expect((await refused(twice)).message).toMatch(/out, which is written, to share no memory with partOut/);
          step.dispose();
          holder.release();
        });

        it("streams take runs, in the order of everything else", async () => {
          const other = await open(device);
          const bound = await plan();
          const tensors = { partOut: bound.alloc("partOut"), partLse: bound.alloc("partLse").upload(partLse) };
          const out = bound.alloc("out");
          const step = bound.bind(tensors, { out, lse: bound.alloc("lse") });
          for (let i = 0; i < 20; i++) {
            tensors.partOut.upload(partOut.map((value) => value + i));
            step.encode({ stream: other.stream });
            expect(await out.download()).toEqual(merged.map((value) => value + i));
          }
          expect(other.stream).not.toBe(backend.stream);
          expect((await refused(() => step.encode({}))).message).toMatch(
            /a CUDA stream: \{ stream: bigint \} but received an object with nothing/,
          );
          expect((await refused(() => step.encode({ stream: 1 }))).message).toMatch(/received an object with stream/);
          other.dispose();
          step.dispose();
        });

        it("tensors of another device are refused", async () => {
          const other = await open(device);
          const bound = await plan();
          const memory: CudaMemory = other.alloc(240);
          expect([backend.owns(memory), other.owns(memory)]).toEqual([false, true]);
          const elsewhere = await createHotset({ backends: [other] });
          const tensor = elsewhere.alloc("f32", [3, 5, 4], "cuda");
          expect((await refused(() => bound.bind({ partOut: tensor, partLse }))).message).toMatch(/received a tensor on another device/);
          elsewhere.dispose();
          expect(other.device.lost).toMatch(/disposed/);
          expect((await refused(() => other.alloc(16))).code).toBe("device");
          expect(other.kernel({ op: attention.merge, axes, variant: {} })).toMatch(/its device was lost: its backend was disposed/);
          // What belongs to a backend that is gone may still be let go.
          tensor.dispose();
          memory.release();
        });
      });

      it("measures itself", async () => {
        for (const probe of [
          { kind: "read", bytes: 1 << 20 },
          { kind: "madd" },
          { kind: "madd-i8" },
          { kind: "copy", bytes: 1 << 20 },
        ] as const)
          expect(await backend.probe(probe), probe.kind).toBeGreaterThan(0);
        expect((await refused(() => backend.probe({ kind: "read", bytes: 0 }))).code).toBe("argument");
      });

      describe("selection", () => {
        /** The same backend, taken for a GPU. */
        const asHardware = (): DeviceBackend => ({
          id: backend.id,
          target: "sm_90",
          name: "cuda sm_90",
          features: [],
          threads: 0,
          device: { software: false, lost: undefined },
          kernel: (request) => backend.kernel(request),
          alloc: (bytes) => backend.alloc(bytes),
          owns: (memory) => backend.owns(memory),
          adopt: (buffer, offset) => backend.adopt(buffer, offset),
          probe: (probe) => backend.probe(probe),
          dispose() {},
        });

        it("counts transfer, launch and readback, and what is resident", async () => {
          const both = await createHotset({ backends: [asHardware()] });
          const large = { parts: 64, rows: 4096, valueDim: 128 };
          const cost = (resident: readonly string[] | Record<string, string>) => {
            const { kernel, prediction } =
              both.explain(attention.merge, large, {}, { resident }).find(({ backend: id }) => id === "cuda") ?? {};
            expect(kernel).toBe("rows");
            return prediction as NonNullable<typeof prediction>;
          };
          const up = 4 * 64 * 4096 * 129;
          const down = 4 * 4096 * 129;
          const nothing = cost([]);
          const all = cost(["partOut", "partLse", "out", "lse"]);
          expect(nothing.transferUs).toBeCloseTo(up / 8e3, 3);
          expect(nothing.readbackUs).toBeCloseTo(15 + down / 8e3, 3);
          expect([all.transferUs, all.readbackUs, all.launchUs]).toEqual([0, 0, 8]);
          expect(nothing.us - all.us).toBeCloseTo(nothing.transferUs + nothing.readbackUs, 3);
          expect(cost({ partOut: "cuda", partLse: "cuda" }).transferUs).toBe(0);

          const wishes = { resident: ["partOut", "partLse", "out", "lse"] };
          expect((await both.plan(attention.merge, large, {}, wishes)).backend).toBe("cuda");
          expect((await both.plan(attention.merge, { parts: 2, rows: 1, valueDim: 8 }, {})).backend).toBe("js");
        });

        it.runIf(device === emulated)("leaves the emulation to those who name it", async () => {
          const chosen = await hotset.plan(attention.merge, axes, {});
          expect(chosen.backend).toBe("js");
          expect(chosen.candidates.find((candidate) => candidate.backend === "cuda")?.reason).toMatch(
            /drawn by the CPU: auto never picks it/,
          );
          expect((await plan()).backend).toBe("cuda");
        });

        it("runs one-call forms where it is named", async () => {
          const given = { partOut, partLse, ...axes, backend: "cuda" };
          const result = await hotset.call(attention.merge, given);
          expect([result.backend, result.out]).toEqual(["cuda", merged]);
          const reference = await (await createHotset({ backends: [js()] })).call(attention.merge, { ...given, backend: "js" });
          expect(result.lse).toEqual(reference.lse);
        });
      });
    });
