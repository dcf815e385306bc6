import type { DType, HostArray } from "../dtype.js";
import { toBf16, toF16, toQ8Rows } from "../half.js";

/** Values as stored in a dtype: rows of `width`. */
export function storedValues(dtype: DType, values: Float32Array, width: number): HostArray {
  if (dtype === "f16") return toF16(values);
  if (dtype === "bf16") return toBf16(values);
  return dtype === "q8_0" ? toQ8Rows(values, width) : values;
}
