/** The WGSL kernels of this backend: one row an op. Its shader has the op's path, the host side lies beside it. */
import type { ProgramOf } from "./program.js";
import { scan } from "./search/scan.js";

export const kernels: Readonly<Record<string, ProgramOf>> = {
  "search/scan": scan,
};
