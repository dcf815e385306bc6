import type { ReferenceCall } from "../../op/define.js";

export interface AlignTensors {
  ids: Int32Array;
  sorted: Int32Array;
  blockExpert: Int32Array;
  total: Int32Array;
}

export type AlignAxes = Record<"tokens" | "topK" | "experts" | "blockSize" | "capacity", number>;

export function reference({ axes, tensors, fail }: ReferenceCall): void {
  const { tokens, topK, experts, blockSize } = axes as AlignAxes;
  const { ids, sorted, blockExpert, total } = tensors as AlignTensors;
  const assigned: number[][] = Array.from({ length: experts }, () => []);
  for (let i = 0; i < tokens * topK; i++) {
    const id = ids[i] as number;
    if (id === -1) continue;
    if (id < 0 || id >= experts) fail("ids", i, id);
    else assigned[id]?.push(i);
  }
  sorted.fill(-1);
  blockExpert.fill(-1);
  let row = 0;
  assigned.forEach((list, expert) => {
    const blocks = Math.ceil(list.length / blockSize);
    blockExpert.fill(expert, row / blockSize, row / blockSize + blocks);
    sorted.set(list, row);
    row += blocks * blockSize;
  });
  total[0] = row;
}
