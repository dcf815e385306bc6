import { FormatError } from "../../errors.js";

export interface NpyArray {
  readonly shape: readonly number[];
  /** NumPy's name of the elements, such as <f4. */
  readonly dtype: string;
  /** The elements, little-endian, in C order. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

const widths: Readonly<Record<string, number>> = { "<f2": 2, "<f4": 4, "<f8": 8, "<i4": 4, "<i8": 8, "|u1": 1, "|i1": 1 };

/** Reads NumPy's .npy: magic, version, a Python dict of descr, fortran_order and shape, then the values. Throws FormatError. */
export function readNpy(file: Uint8Array, where = "npy"): NpyArray {
  const wrong = (expected: string, received: string): FormatError => new FormatError({ where, expected, received });
  const text = (from: number, to: number): string => new TextDecoder("latin1").decode(file.subarray(from, to));
  if (file.length < 12 || file[0] !== 0x93 || text(1, 6) !== "NUMPY")
    throw wrong("a .npy file", `${file.length} bytes that start otherwise`);
  const major = file[6] as number;
  if (major < 1 || major > 3) throw wrong("version 1 to 3 of .npy", `${major}`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const start = major === 1 ? 10 : 12;
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (start + length > file.length) throw wrong(`a header of ${length} bytes`, `${file.length - start}`);
  const header = text(start, start + length);
  const dtype = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const sizes = /'shape'\s*:\s*\(([\d\s,]*)\)/.exec(header)?.[1];
  if (dtype === undefined || order === undefined || sizes === undefined)
    throw wrong("descr, fortran_order and shape", JSON.stringify(header.slice(0, 80)));
  const shape = sizes
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map(Number);
  if (order === "True" && shape.length > 1) throw wrong("rows one after another (fortran_order False)", "True");
  const width = widths[dtype];
  if (width === undefined) throw wrong(`elements of ${Object.keys(widths).join(", ")}`, dtype);
  const bytes = width * shape.reduce((product, size) => product * size, 1);
  if (file.length - start - length !== bytes) throw wrong(`${bytes} bytes for [${shape.join(", ")}]`, `${file.length - start - length}`);
  // A copy: slice of a Buffer would share its pool.
  return { shape, dtype, bytes: new Uint8Array(file.subarray(start + length)) };
}

/** The values of an array of 4-byte numbers. Throws FormatError where it has others. */
export function npyNumbers({ dtype, bytes }: NpyArray, where = "npy"): Float32Array | Int32Array {
  if (dtype === "<i4") return new Int32Array(bytes.buffer);
  if (dtype === "<f4") return new Float32Array(bytes.buffer);
  throw new FormatError({ where, expected: "elements of <i4 or <f4", received: dtype });
}
