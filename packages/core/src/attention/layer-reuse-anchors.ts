/** The anchors of a policy: their plans, and their lists, on the host or on a device. */
import type { Hotset } from "../hotset.js";
import { embedding } from "../model/embedding/spec.js";
import type { VariantOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import type { decode } from "./decode/spec.js";
import { decodeSparse } from "./decode-sparse/spec.js";
import type { LayerReuseSettings } from "./layer-reuse.js";
import { DeviceAnchor, DeviceLists, reorderAxes } from "./layer-reuse-device.js";
import { AnchorLists } from "./layer-reuse-lists.js";
import type { AnchorRule } from "./layer-reuse-policy.js";
import { entriesOf, granulesOf, hostArray } from "./layer-reuse-sizes.js";
import { select } from "./select/spec.js";

export interface Anchor {
  readonly rule: AnchorRule;
  /** On the host, or on a device. */
  readonly lists: AnchorLists | DeviceLists;
  readonly device: DeviceAnchor | undefined;
  readonly plan: Plan<typeof decodeSparse>;
  /** With room for all granules of a sequence below `minContext`, where `plan` has none for them. */
  readonly wide: Plan<typeof decodeSparse> | undefined;
  readonly select: Plan<typeof select>;
  /** Of one sequence, where sequences of a batch may have budgets of their own. */
  readonly selectOne: Plan<typeof select> | undefined;
}

/** Of each layer its anchor, if it is one; and what reorders masses for head maps on a device. */
export async function planAnchors(
  hotset: Pick<Hotset, "plan">,
  { policy, axes, resident = false, tokensPerStep = 1 }: LayerReuseSettings,
  variant: VariantOf<typeof decode>,
  backend: string,
): Promise<{ anchors: (Anchor | undefined)[]; reorder: Plan<typeof embedding> | undefined }> {
  const { granularity, minContext } = policy;
  const { batch, kvHeads: heads } = axes;
  const lists = policy.perHead ? heads : 1;
  const capacity = axes.maxPages * axes.pageSize;
  const granules = granulesOf(axes, granularity);
  const anchors: (Anchor | undefined)[] = [];
  const mapped = resident && policy.layers.some((rule) => rule.kind === "reuse" && rule.headMap);
  const reorder = mapped ? await hotset.plan(embedding, reorderAxes({ batch, heads, granules }), { table: "f32" }, { backend }) : undefined;
  const ofBatch = batch > 1 && !resident;
  const everything = Math.min(granules, Math.ceil((minContext - 1) / granularity));
  const selectAxes = { batch, heads, granules, granularity, lists };
  try {
    for (const rule of policy.layers) {
      if (rule.kind !== "anchor") {
        anchors.push(undefined);
        continue;
      }
      const grown = rule.refreshEvery > 1 ? Math.ceil(((rule.refreshEvery - 1) * tokensPerStep) / granularity) + 1 : 0;
      const k = Math.min(granules, entriesOf(rule, granularity, capacity) + grown);
      const sparse = (most: number) => hotset.plan(decodeSparse, { ...axes, granularity, lists, k: most }, variant, { backend });
      const planned = {
        rule,
        plan: await sparse(k),
        wide: ofBatch && everything > k ? await sparse(everything) : undefined,
        select: await hotset.plan(select, { ...selectAxes, k }, {}, { backend }),
        selectOne: ofBatch && rule.ratio ? await hotset.plan(select, { ...selectAxes, batch: 1, k }, {}, { backend }) : undefined,
      };
      const sizes = { batch, lists, kvHeads: heads, k, granularity, minContext };
      if (resident) {
        const made = new DeviceLists(sizes, granules);
        anchors.push({ ...planned, lists: made, device: new DeviceAnchor(planned.select, made) });
        continue;
      }
      const selected = hostArray(planned.select, "selected", batch * lists * k, Int32Array);
      const counts = hostArray(planned.select, "counts", batch * lists, Uint32Array);
      anchors.push({ ...planned, lists: new AnchorLists(sizes, selected, counts), device: undefined });
    }
    return { anchors, reorder };
  } catch (error) {
    for (const anchor of anchors) anchor?.device?.dispose();
    throw error;
  }
}
