import { HotsetError } from "../../packages/core/dist/index.js";

/** The error of work that must be refused. */
export const refused = (work: () => unknown): Promise<HotsetError> =>
  (async () => work())().then(
    () => {
      throw new Error("it was not refused");
    },
    (error: unknown) => {
      if (error instanceof HotsetError) return error;
      throw error;
    },
  );
