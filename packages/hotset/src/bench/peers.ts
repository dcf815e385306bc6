/** Peers live in the repository's bench folder: they are never installed with this package. */
import type { Work } from "../cli/bench.js";

export interface Peers {
  /** One measurement each, as the bench folder describes them. */
  readonly rows: readonly unknown[];
  readonly text: string;
}

interface PeerModule {
  timePeers(work: readonly Work[], milliseconds: number): Promise<Peers>;
}

export async function peerRows(work: readonly Work[], milliseconds: number): Promise<Peers> {
  let module: PeerModule;
  try {
    module = (await import("@hotset/bench" as string)) as PeerModule;
  } catch (cause) {
    throw new Error("bench: --peers needs a checkout of the repository, where the peers are installed in the bench folder", { cause });
  }
  return module.timePeers(work, milliseconds);
}
