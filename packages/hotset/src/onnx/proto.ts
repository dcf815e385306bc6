/** ONNX's own messages, those of a model with one node and of tensors (onnx.proto, IR version 3 and later). */

import { type Elements, type ElementType, elementsOf, elementTypes, type OnnxTensor } from "./tensor.js";
import { bytesOf, damaged, type Field, fieldsOf, floats, integer, integers, textOf } from "./wire.js";

/** A number, a text, lists of numbers; `undefined` where an attribute holds something else (a graph, a tensor). */
export type Attribute = number | string | readonly number[] | undefined;

export interface OnnxNode {
  readonly operator: string;
  /** Empty for ONNX's own operators. */
  readonly domain: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
  /** Names of tensors; "" for one that is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

export interface OnnxModel {
  /** The version of each domain's operators. */
  readonly opsets: Readonly<Record<string, number>>;
  readonly nodes: readonly OnnxNode[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly initializers: readonly OnnxTensor[];
}

/** Reads a ModelProto. Throws FormatError where the bytes are none, with the place. */
export function readModel(bytes: Uint8Array, where: string): OnnxModel {
  const opsets: Record<string, number> = {};
  let graph: Uint8Array | undefined;
  for (const field of fieldsOf(bytes, where)) {
    if (field.number === 7) graph = bytesOf(field, where);
    if (field.number !== 8) continue;
    let [domain, version] = ["", 0];
    for (const part of fieldsOf(bytesOf(field, where), `${where}: opset_import`)) {
      if (part.number === 1) domain = textOf(part, where);
      if (part.number === 2) version = integer(part, where);
    }
    opsets[domain === "ai.onnx" ? "" : domain] = version;
  }
  if (!graph) throw damaged(where, "a model with a graph", `${bytes.length} bytes without one`);
  if (Object.keys(opsets).length === 0) throw damaged(where, "a model with an opset_import", "none");
  return { opsets, ...readGraph(graph, `${where}: graph`) };
}

function readGraph(bytes: Uint8Array, where: string): Omit<OnnxModel, "opsets"> {
  const nodes: OnnxNode[] = [];
  const initializers: OnnxTensor[] = [];
  const names: Record<11 | 12, string[]> = { 11: [], 12: [] };
  for (const field of fieldsOf(bytes, where)) {
    if (field.number === 1) nodes.push(readNode(bytesOf(field, where), `${where}: node ${nodes.length}`));
    if (field.number === 5) initializers.push(readTensor(bytesOf(field, where), `${where}: initializer ${initializers.length}`));
    if (field.number === 11 || field.number === 12) {
      const name = [...fieldsOf(bytesOf(field, where), where)].find(({ number }) => number === 1);
      names[field.number].push(name ? textOf(name, where) : "");
    }
  }
  if (nodes.length === 0) throw damaged(where, "a node", "none");
  return { nodes, initializers, inputs: names[11], outputs: names[12] };
}

function readNode(bytes: Uint8Array, where: string): OnnxNode {
  const attributes: Record<string, Attribute> = {};
  const [inputs, outputs]: [string[], string[]] = [[], []];
  let [operator, domain] = ["", ""];
  for (const field of fieldsOf(bytes, where)) {
    if (field.number === 1) inputs.push(textOf(field, where));
    if (field.number === 2) outputs.push(textOf(field, where));
    if (field.number === 4) operator = textOf(field, where);
    if (field.number === 7) domain = textOf(field, where);
    if (field.number === 5) {
      const [name, value] = readAttribute(bytesOf(field, where), `${where}: attribute`);
      attributes[name] = value;
    }
  }
  if (operator === "") throw damaged(where, "an operator", "none");
  return { operator, domain: domain === "ai.onnx" ? "" : domain, attributes, inputs, outputs };
}

function readAttribute(bytes: Uint8Array, where: string): [name: string, value: Attribute] {
  let name = "";
  let value: Attribute;
  const lists: Record<7 | 8, number[]> = { 7: [], 8: [] };
  for (const field of fieldsOf(bytes, where)) {
    if (field.number === 1) name = textOf(field, where);
    if (field.number === 2) value = floats(field, where)[0];
    if (field.number === 3) value = integer(field, where);
    if (field.number === 4) value = textOf(field, where);
    if (field.number === 7) for (const one of floats(field, where)) lists[7].push(one);
    if (field.number === 8) for (const one of integers(field, where)) lists[8].push(Number(one));
  }
  if (name === "") throw damaged(where, "a name", "none");
  return [name, value ?? (lists[7].length ? lists[7] : lists[8].length ? lists[8] : undefined)];
}

/** Reads a TensorProto. Throws FormatError where the bytes are none, or fewer or more than its shape says. */
export function readTensor(bytes: Uint8Array, where: string): OnnxTensor {
  const shape: number[] = [];
  const lists: Field[] = [];
  let raw: Uint8Array | undefined;
  let name = "";
  let code = 0;
  for (const field of fieldsOf(bytes, where)) {
    if (field.number === 1) for (const size of integers(field, where)) shape.push(Number(size));
    if (field.number === 2) code = integer(field, where);
    if (field.number === 8) name = textOf(field, where);
    if (field.number === 9) raw = bytesOf(field, where);
    if ([4, 5, 7, 10, 11].includes(field.number)) lists.push(field);
    if (field.number === 14 && integer(field, where) !== 0)
      throw damaged(where, "a tensor with its data inside", "one kept in another file");
  }
  const type = (elementTypes as Readonly<Record<number, ElementType>>)[code];
  if (!type)
    throw damaged(
      where,
      `elements of ${Object.values(elementTypes)
        .map((one) => one.name)
        .join(", ")}`,
      `data type ${code}`,
    );
  const count = elementsOf(shape);
  if (shape.some((size) => !Number.isSafeInteger(size) || size < 0) || !Number.isSafeInteger(count))
    throw damaged(where, "a shape", `[${shape.join(", ")}]`);
  const data = raw ? fromRaw(raw, type, where) : fromLists(lists, type, where);
  if (data.length !== count) throw damaged(where, `${count} elements of ${type.name}, [${shape.join(", ")}]`, `${data.length}`);
  return { name, type: type.name, shape, data };
}

function fromRaw(raw: Uint8Array, type: ElementType, where: string): Elements {
  if (raw.length % type.bytes !== 0) throw damaged(where, `whole elements of ${type.name}`, `${raw.length} bytes`);
  return new type.array(new Uint8Array(raw).buffer);
}

/** float_data, int32_data (of the small types too), int64_data, double_data and uint64_data. */
function fromLists(lists: readonly Field[], type: ElementType, where: string): Elements {
  const wanted = { float32: 4, int64: 7, float64: 10, uint32: 11, uint64: 11 }[type.name as string] ?? 5;
  const other = lists.find(({ number }) => number !== wanted);
  if (other) throw damaged(where, `data of ${type.name} in field ${wanted}`, `field ${other.number}`);
  if (wanted === 10) return fromRaw(joined(lists.map((field) => field.value).filter((value) => typeof value !== "bigint")), type, where);
  if (wanted === 4) return Float32Array.from(lists.flatMap((field) => [...floats(field, where)]));
  const values = lists.flatMap((field) => integers(field, where));
  return type.bytes === 8
    ? (type.array as BigInt64ArrayConstructor).from(values)
    : (type.array as Int32ArrayConstructor).from(values, Number);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
