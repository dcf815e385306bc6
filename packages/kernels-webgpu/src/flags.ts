/** WebGPU's numbers, so that no global is needed: Node has none, and every implementation agrees on them. */
export const usage = {
  mapRead: 0x1,
  copySource: 0x4,
  copyTarget: 0x8,
  uniform: 0x40,
  storage: 0x80,
  queryResolve: 0x200,
} as const;

export const mapModeRead = 0x1;

/** Offsets of bindings are multiples of this on every device that was asked for no less. */
export const bindingAlign = 256;

export const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to;
