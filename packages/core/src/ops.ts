/** Every op, for tools and tests. Applications import the ops they use, so that a bundle holds only those. */
import * as attention from "./attention/index.js";
import * as kvCache from "./kv-cache/index.js";
import * as linalg from "./linalg/index.js";
import * as moe from "./moe/index.js";
import type { Op } from "./op/define.js";
import * as search from "./search/index.js";

const families: readonly Readonly<Record<string, unknown>>[] = [attention, kvCache, linalg, moe, search];

export const ops: readonly Op[] = families.flatMap((family) =>
  Object.values(family).filter((value): value is Op => typeof value === "function" && "ports" in value),
);

export const opById = (id: string): Op | undefined => ops.find((op) => op.id === id);
