/** Peers side by side, for `hotset bench --peers`. */

import { threadSetting } from "@hotset/core/node";
import { type BenchCase, Random } from "@hotset/core/testing/cases";
import type { Op, VariantOf } from "hotset";
import { openblas } from "./peers/openblas.js";
import type { ScanJob, ScanPeer } from "./peers/peer.js";
import { plainJs } from "./peers/plain-js.js";
import { usearch } from "./peers/usearch.js";
import { median, timeFastest } from "./timing.js";

export interface PeerRow {
  readonly case: string;
  readonly peer: string;
  readonly version: string;
  readonly settings: string;
  readonly medianUs: number;
}

/** The peers that run here, and the reasons for the others. */
export function scanPeers(threads: number): { peers: ScanPeer[]; missing: string[] } {
  const found = [plainJs(), usearch(threads), openblas(threads)];
  return {
    peers: found.filter((peer): peer is ScanPeer => typeof peer !== "string"),
    missing: found.filter((peer) => typeof peer === "string"),
  };
}

/** Times every peer on the cases of search/scan that it can do. */
export async function timePeers(
  work: readonly { op: Op; test: BenchCase; variant: VariantOf<Op> }[],
  milliseconds: number,
): Promise<{ rows: PeerRow[]; text: string }> {
  const threads = threadSetting();
  const { peers, missing } = scanPeers(threads);
  const rows: PeerRow[] = [];
  const notes = [...missing];
  for (const { op, test, variant } of work) {
    if (op.id !== "search/scan" || (variant as { filter?: boolean }).filter) continue;
    const inputs = test.inputs({ axes: test.axes, variant, random: new Random(test.name) });
    const job = { ...test.axes, ...inputs, metric: (variant as { metric: string }).metric } as unknown as ScanJob;
    for (const peer of peers) {
      const able = peer.supports(job);
      if (able !== true) continue;
      if (peer.name.startsWith("plain") && job.batch * job.count * job.dim > 2e9) continue;
      rows.push({
        case: test.name,
        peer: peer.name,
        version: peer.version,
        settings: peer.settings,
        medianUs: 1e3 * median(timeFastest(peer.ways(job), milliseconds)),
      });
    }
  }
  const lines = rows.map(
    ({ case: name, peer, version, settings, medianUs }) => `${name}: ${peer} ${version} (${settings}): ${medianUs.toFixed(0)} us`,
  );
  return { rows, text: ["Peers:", ...lines, ...notes.map((note) => `not run: ${note}`)].join("\n") };
}
