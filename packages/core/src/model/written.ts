import { isDevice } from "../backend.js";
import type { DType, Storage } from "../dtype.js";
import { dtypes, storageLength } from "../dtype.js";
import type { Hotset } from "../hotset.js";
import type { Tensor } from "../tensor.js";

/** A small tensor that the host writes between runs: in place where the host sees it, else in a copy that `send` uploads. */
export class Written<D extends DType> {
  readonly tensor: Tensor<D>;
  readonly data: Storage[D];
  readonly #uploads: boolean;

  constructor(hotset: Hotset, backend: string, dtype: D, shape: readonly number[]) {
    this.tensor = hotset.alloc(dtype, shape, backend);
    this.#uploads = hotset.backends.some((one) => one.id === backend && isDevice(one));
    this.data = this.#uploads ? (new dtypes[dtype].storage(storageLength(dtype, shape)) as Storage[D]) : this.tensor.data;
  }

  /** The runs queued from now on see what `data` holds now. */
  send(): void {
    if (this.#uploads) this.tensor.upload(this.data);
  }

  dispose(): void {
    this.tensor.dispose();
  }
}
