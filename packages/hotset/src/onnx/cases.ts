/** Test cases of ONNX: folders of its node tests, and ONNX Runtime's JSON with comments. */
import { readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { HotsetError, toF16 } from "@hotset/core";
import { readWhole } from "@hotset/core/node";
import { type Attribute, readModel, readTensor } from "./proto.js";
import { type ElementType, elementsOf, elementTypes, notRun, type OnnxTensor } from "./tensor.js";
import { damaged } from "./wire.js";

/** One node with its inputs, and what it should give. */
export interface OnnxCase {
  readonly operator: string;
  /** Empty for ONNX's own operators. */
  readonly domain: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
  /** In the operator's order; those left out are undefined. */
  readonly inputs: readonly (OnnxTensor | undefined)[];
  readonly expected: readonly (OnnxTensor | undefined)[];
}

export interface FoundCase {
  readonly name: string;
  /** Reads it. Throws FormatError where a file is damaged, UnsupportedError where the model is none of one node. */
  load(): OnnxCase;
}

/** Cases in a folder with a model.onnx, in a folder of such folders, or in a .jsonc or .json of ONNX Runtime's. */
export function findCases(path: string): FoundCase[] {
  if (!isFolder(path)) {
    if (/\.jsonc?$/.test(path)) return jsonCases(path);
    throw new HotsetError("argument", { where: path, expected: "a folder of node tests, or a .jsonc file", received: "something else" });
  }
  if (isModel(path)) return folderCases(path);
  const found = readdirSync(path)
    .sort()
    .map((name) => join(path, name))
    .filter((inner) => isFolder(inner) && isModel(inner))
    .flatMap(folderCases);
  if (found.length === 0)
    throw new HotsetError("argument", {
      where: path,
      expected: "a model.onnx in the folder, or folders that have one",
      received: "neither",
    });
  return found;
}

function folderCases(path: string): FoundCase[] {
  const sets = readdirSync(path)
    .filter((name) => /^test_data_set_\d+$/.test(name))
    .sort((a, b) => numberIn(a) - numberIn(b));
  if (sets.length === 0) throw new HotsetError("argument", { where: path, expected: "a folder test_data_set_0", received: "none" });
  return sets.map((set) => ({
    name: basename(path) + (sets.length > 1 ? ` ${set.slice("test_data_".length)}` : ""),
    load: () => nodeTest(path, join(path, set)),
  }));
}

function nodeTest(path: string, set: string): OnnxCase {
  const where = join(path, "model.onnx");
  const model = readModel(readWhole(where), where);
  const [node] = model.nodes;
  if (!node || model.nodes.length > 1) throw notRun("a model with one node", `a graph of ${model.nodes.length} nodes`);
  const known = new Map(model.initializers.map((tensor) => [tensor.name, tensor]));
  const given = model.inputs.filter((name) => !known.has(name));
  for (const [name, tensor] of tensorsOf(set, "input", given)) known.set(name, tensor);
  const results = new Map(tensorsOf(set, "output", model.outputs));
  return {
    operator: node.operator,
    domain: node.domain,
    attributes: node.attributes,
    inputs: node.inputs.map((name) => {
      const tensor = known.get(name);
      if (name !== "" && !tensor) throw damaged(where, `a value for the input ${JSON.stringify(name)}`, "none");
      return tensor;
    }),
    expected: node.outputs.map((name) => (name === "" ? undefined : results.get(name))),
  };
}

/** `input_0.pb` belongs to the first name, and so on; each name has one. */
function tensorsOf(set: string, kind: "input" | "output", names: readonly string[]): [string, OnnxTensor][] {
  const files = readdirSync(set).filter((name) => name.startsWith(`${kind}_`) && name.endsWith(".pb"));
  if (files.length !== names.length)
    throw damaged(set, `${names.length} ${kind}s: ${names.join(", ")}`, `${files.length} files ${kind}_N.pb`);
  return names.map((name, i) => {
    const path = join(set, `${kind}_${i}.pb`);
    return [name, readTensor(readWhole(path), path)];
  });
}

interface JsonTest {
  readonly name: string;
  readonly operator: string;
  readonly opset?: { readonly domain?: string };
  readonly attributes?: readonly { readonly name: string; readonly data: Attribute }[];
  readonly cases: readonly {
    readonly name: string;
    readonly inputs: readonly JsonTensor[];
    readonly outputs: readonly JsonTensor[];
  }[];
}

interface JsonTensor {
  /** Null for an input that is left out. */
  readonly data: readonly (number | boolean | string)[] | null;
  readonly dims?: readonly number[];
  readonly type: string;
}

function jsonCases(path: string): FoundCase[] {
  const tests = parsed(path);
  if (!Array.isArray(tests)) throw damaged(path, "a list of tests", typeof tests);
  return (tests as JsonTest[]).flatMap((test) => {
    if (typeof test?.operator !== "string" || !Array.isArray(test.cases))
      throw damaged(path, "tests of an operator with cases", JSON.stringify(test).slice(0, 60));
    return test.cases.map((one) => ({
      name: `${basename(path)}: ${test.name.trim()}, ${one.name}`,
      load: () => ({
        operator: test.operator,
        domain: test.opset?.domain ?? "",
        attributes: Object.fromEntries((test.attributes ?? []).map(({ name, data }) => [name, data])),
        inputs: tensorList(one.inputs, `${path}: ${test.name}: ${one.name}: inputs`),
        expected: tensorList(one.outputs, `${path}: ${test.name}: ${one.name}: outputs`).map(roundedByHand),
      }),
    }));
  });
}

/** Comments and commas before a closing bracket become spaces, outside of texts. */
function parsed(path: string): unknown {
  const text = new TextDecoder().decode(readWhole(path));
  const plain = text
    .replace(/"(?:[^"\\]|\\.)*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (found) => (found.startsWith('"') ? found : " "))
    .replace(/"(?:[^"\\]|\\.)*"|,(?=\s*[\]}])/g, (found) => (found.startsWith('"') ? found : " "));
  try {
    return JSON.parse(plain);
  } catch (cause) {
    throw damaged(path, "JSON, perhaps with comments", (cause as Error).message);
  }
}

function tensorList(list: readonly JsonTensor[], where: string): (OnnxTensor | undefined)[] {
  if (!Array.isArray(list)) throw damaged(where, "a list of tensors", JSON.stringify(list));
  return list.map((tensor, i) => (tensor?.data == null ? undefined : fromJson(tensor, `${where}[${i}]`)));
}

function fromJson({ data, dims, type }: JsonTensor, where: string): OnnxTensor {
  const values = data as readonly (number | boolean | string)[];
  const found = Object.values(elementTypes).find(({ name }) => name === type) as ElementType | undefined;
  if (!found || type === "bfloat16") throw notRun("tensors of a type that JSON holds", `tensors of ${type}`);
  if (!Array.isArray(values) || (dims !== undefined && elementsOf(dims) !== values.length))
    throw damaged(where, `${elementsOf(dims ?? [])} elements, [${dims}]`, `${values?.length}`);
  if (values.some((value) => typeof value === "string" || (found.bytes === 8 && type !== "float64" && !Number.isInteger(Number(value)))))
    throw damaged(where, `numbers of ${type}`, "others");
  if (type === "float16") return { name: "", type, shape: dims ?? [values.length], data: toF16(values.map(Number)) };
  const array =
    type === "int64" || type === "uint64"
      ? (found.array as BigInt64ArrayConstructor).from(values, (value) => BigInt(value))
      : (found.array as Float32ArrayConstructor).from(values, Number);
  return { name: "", type: found.name, shape: dims ?? [values.length], data: array, printed: printedTo(values) };
}

/**
 * Some results are given as whole numbers that they only nearly are (3 for 3.00067). 0.001 is what ONNX Runtime's own runner
 * lets pass on WebGPU, which the files are for (js/web/test/test-runner.ts).
 */
const roundedByHand = (tensor: OnnxTensor | undefined): OnnxTensor | undefined =>
  tensor?.type === "float32" && (tensor.data as Float32Array).every((value) => Number.isInteger(value))
    ? { ...tensor, slack: 1e-3 }
    : tensor;

/** Half of the last decimal, where a list has at most six: f32 has more, so that it was cut. Whole numbers are what they are. */
function printedTo(values: readonly (number | boolean | string)[]): number {
  let most = 0;
  for (const value of values) {
    const [, decimals = "", exponent] = /^-?\d+\.?(\d*)(e.*)?$/.exec(String(value)) ?? [];
    most = Math.max(most, exponent === undefined ? decimals.length : 7);
  }
  return most === 0 || most > 6 ? 0 : 0.5 * 10 ** -most;
}

const isModel = (path: string): boolean => statSync(join(path, "model.onnx"), { throwIfNoEntry: false })?.isFile() ?? false;

function isFolder(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found) throw new HotsetError("argument", { where: path, expected: "a folder or a file", received: "nothing there" });
  return found.isDirectory();
}

const numberIn = (name: string): number => Number(name.slice(name.lastIndexOf("_") + 1));
