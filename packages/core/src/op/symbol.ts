/** From an op's id to the names it has in each backend. The only place where these are spelt. */

/** `kv-cache/pool-apply` -> `kv_cache_pool_apply`: C symbol, wasm export, WGSL struct. */
export const symbolOf = (id: string): string => id.replaceAll(/[/-]/g, "_");

/** `kv-cache/pool-apply` -> `KvCachePoolApply`: the AssemblyScript and WGSL type prefix. */
export const typeNameOf = (id: string): string => id.replaceAll(/(?:^|[/-])(\w)/g, (_, letter: string) => letter.toUpperCase());

/** `search/scan` -> `search/scan.wgsl`: the shader's path. */
export const wgslPathOf = (id: string): string => `${id}.wgsl`;

/** `kv-cache` -> `kvCache`: the family's name in the API. */
export const camelOf = (name: string): string => name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/** `queryHeads` -> `query_heads`: an axis, scalar or port in C. */
export const snakeOf = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
