/**
 * Case packs: inputs, expected outputs and tolerances as one binary file, for the runner that replays them without
 * Node (under qemu, sanitizers, compute-sanitizer). Little-endian; every block starts on 8 bytes:
 *
 *   "HSPACK1\n", u64 cases; each case: string name, string symbol, u64 + bytes params (capacities), u64 + bytes
 *   params (actual sizes), u64 where the tensor pointers start in them, u64 tensors; each tensor: u64 role (0 in, 1 out, 2 inout, 3 absent), u64 element bytes,
 *   u64 shift (elements off alignment), bytes initial (in, inout), bytes expected (out, inout), u64 mode
 *   (0 equal bits, 1 f32 within), f32s within (mode 1); then i64 fault code, port, index, value (code 0: none).
 *   string and bytes: u64 length, then as many bytes.
 */
import type { HostArray } from "../dtype.js";
import { dtypes } from "../dtype.js";
import type { TensorPort } from "../op/define.js";
import { Params, pointerOffsets } from "../op/layout.js";
import { symbolOf } from "../op/symbol.js";
import { presentTensors, tensorNames, variantKey } from "../op/variant.js";
import { ops } from "../ops.js";
import { bytesOf } from "../tensor.js";
import { casesOf } from "./case.js";
import { toleranceOf } from "./compare.js";
import { dtypeOf, type Prepared, prepare } from "./prepared.js";
import { Random } from "./random.js";
import { mostOfEach } from "./spread.js";
import { variantsOf } from "./suite.js";

/** Packs every case of every op, each with its first seed; or `most` of each op's variant, spread over its cases. */
export async function packCases({ most = Number.POSITIVE_INFINITY }: { most?: number } = {}): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  let count = 0;
  const writer = new Writer(chunks);
  for (const op of ops) {
    const { cases } = await casesOf(op);
    const all = cases.flatMap((test) => variantsOf(op, test).map((variant) => ({ test, variant, key: variantKey(op, variant) })));
    for (const { test, variant } of mostOfEach(all, ({ key }) => key, most)) {
      writeCase(writer, prepare(op, test, variant, 0));
      count++;
    }
  }
  const head = new Uint8Array(16);
  head.set(new TextEncoder().encode("HSPACK1\n"));
  new DataView(head.buffer).setBigUint64(8, BigInt(count), true);
  return [head, ...chunks];
}

const roles = { in: 0, out: 1, inout: 2 } as const;

function writeCase(writer: Writer, prepared: Prepared): void {
  const { id, op, axes, actual, variant, pitch, scalars, fault } = prepared;
  writer.text(id);
  writer.text(symbolOf(op.id));
  writer.bytes(new Params(op, "c64").fill(axes, variant, pitch, scalars).bytes);
  writer.bytes(new Params(op, "c64").fill(actual, variant, pitch, scalars).bytes);
  writer.number(pointerOffsets(op, "c64")[0] ?? 0);
  const names = tensorNames(op);
  const present = presentTensors(op, variant);
  const random = new Random(`${id} place`);
  const rounding = op.exact ? {} : op.rounding(actual, variant);
  writer.number(names.length);
  for (const name of names) {
    if (!present.includes(name)) {
      writer.number(3);
      continue;
    }
    const { role } = op.ports[name] as TensorPort;
    const dtype = dtypeOf(op, name, variant);
    const expected = prepared.expected[name];
    writer.number(roles[role]);
    writer.number(dtypes[dtype].storage.BYTES_PER_ELEMENT);
    writer.number(random.below(9));
    writer.bytes(role === "out" ? new Uint8Array() : bytesOf(prepared.inputs[name] as HostArray));
    writer.bytes(expected ? bytesOf(expected) : new Uint8Array());
    const steps = rounding[name] ?? 0;
    const within = expected && steps > 0 && dtype === "f32";
    writer.number(within ? 1 : 0);
    if (within)
      writer.bytes(
        bytesOf(
          Float32Array.from(expected as Float32Array, (value, i) => toleranceOf(dtype, steps, value, prepared.magnitude[name]?.[i] ?? 0)),
        ),
      );
  }
  const position = fault ? names.indexOf(fault.port) : 0;
  for (const value of fault ? [1, position, fault.index, fault.value] : [0, 0, 0, 0]) writer.number(value);
}

class Writer {
  readonly #chunks: Uint8Array[];

  constructor(chunks: Uint8Array[]) {
    this.#chunks = chunks;
  }

  number(value: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigInt64(0, BigInt(value), true);
    this.#chunks.push(bytes);
  }

  text(value: string): void {
    this.bytes(new TextEncoder().encode(value));
  }

  bytes(value: Uint8Array): void {
    this.number(value.length);
    const padded = new Uint8Array(Math.ceil(value.length / 8) * 8);
    padded.set(value);
    this.#chunks.push(padded);
  }
}
