/** A case through tensors that stay on a device: run, done and download, with canaries on both sides of each tensor. */
import type { DeviceBackend } from "../backend.js";
import type { DeviceMemory } from "../device.js";
import { dtypes, type HostArray } from "../dtype.js";
import type { Op, TensorPort } from "../op/define.js";
import type { InputsOf, OutputsOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import { bytesOf, Tensor } from "../tensor.js";
import type { Tensors } from "./case.js";
import { firstOtherBits } from "./compare.js";
import { dtypeOf, type Prepared } from "./prepared.js";

export interface ResidentTensors {
  /** Uploads, runs, waits and downloads; rejects as the step does, after the download. */
  run(): Promise<void>;
  /** Written tensors after the run, and what was written that must not be. */
  outcome(): [Tensors, string | undefined];
  release(): void;
}

/** What every device can bind at. */
const canaryBytes = 256;
const canary = 0xc5;

interface Resident {
  readonly name: string;
  readonly role: TensorPort["role"];
  readonly initial: HostArray;
  readonly whole: DeviceMemory;
  readonly tensor: Tensor;
  readonly image: Uint8Array;
}

export function residentTensors(backend: DeviceBackend, plan: Plan, prepared: Prepared): ResidentTensors {
  const { op, variant, inputs, expected, pitch } = prepared;
  const tensors: Resident[] = [];
  const release = () => {
    for (const { whole } of tensors) whole.release();
  };
  try {
    for (const [name, data] of Object.entries({ ...expected, ...inputs })) {
      const whole = backend.alloc(canaryBytes + padded(data.byteLength) + canaryBytes);
      const part = whole.part(canaryBytes, data.byteLength);
      const initial = name in inputs ? data : poison(data);
      const { role } = op.ports[name] as TensorPort;
      const dtype = dtypeOf(op, name, variant);
      const { blockElements, blockBytes } = dtypes[dtype];
      const tensor = new Tensor(dtype, [(data.byteLength / blockBytes) * blockElements], backend.id, part);
      tensors.push({ name, role, initial, whole, tensor, image: new Uint8Array(whole.bytes) });
    }
    const value = ({ name, tensor }: Resident): [string, unknown] => [
      name,
      { data: tensor, dtype: tensor.dtype, ...(pitch[name] ? { rowPitch: pitch[name] } : {}) },
    ];
    const step = plan.bind(
      Object.fromEntries(tensors.filter(({ role }) => role !== "out").map(value)) as InputsOf<Op>,
      Object.fromEntries(tensors.filter(({ role }) => role === "out").map(value)) as OutputsOf<Op>,
      prepared.scalars,
    );
    for (const [name, size] of Object.entries(prepared.test.live ?? {})) step.set(name, size);
    return {
      async run() {
        for (const { whole, tensor, initial, image } of tensors) {
          whole.write(image.fill(canary));
          tensor.upload(initial as never);
        }
        step.run();
        let failure: unknown;
        await step.done().catch((error: unknown) => {
          failure = error;
        });
        for (const { whole, image } of tensors) await whole.read(image);
        if (failure) throw failure;
      },
      outcome: () => outcome(tensors),
      release() {
        step.dispose();
        release();
      },
    };
  } catch (error) {
    release();
    throw error;
  }
}

function outcome(tensors: readonly Resident[]): [Tensors, string | undefined] {
  const got: Record<string, HostArray> = {};
  let wrong: string | undefined;
  for (const { name, role, initial, tensor, image } of tensors) {
    const end = canaryBytes + initial.byteLength;
    const data = new dtypes[tensor.dtype].storage(image.slice(canaryBytes, end).buffer);
    // A tensor whose bytes are no multiple of 4 has up to 3 more of its own.
    const before = image.subarray(0, canaryBytes).some((byte) => byte !== canary);
    const after = image.subarray(canaryBytes + padded(initial.byteLength)).some((byte) => byte !== canary);
    if (before || after) wrong ??= `${name} was written ${before ? "before its start" : "past its end"} on the device`;
    if (role !== "in") got[name] = data;
    else if (firstOtherBits(data, initial) >= 0) wrong ??= `input ${name} was written on the device`;
  }
  return [got, wrong];
}

const padded = (bytes: number): number => Math.ceil(bytes / canaryBytes) * canaryBytes;

function poison(data: HostArray): HostArray {
  const copy = data.slice();
  bytesOf(copy).fill(0xff);
  return copy;
}
