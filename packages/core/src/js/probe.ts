/** What plain JavaScript reaches on this machine: for calibration. */

const now = () => performance.now();

/** Median rate of a few repetitions of `work`, which handles `amount` units a call. */
function rate(amount: number, work: () => number): number {
  let guard = work();
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const start = now();
    guard += work();
    times.push(now() - start);
  }
  times.sort((a, b) => a - b);
  if (guard === Number.NEGATIVE_INFINITY) throw new Error("unreachable");
  return amount / ((times[2] as number) * 1e6);
}

/** GB/s of summing an f32 array of so many bytes. */
export function probeRead(bytes: number): number {
  const length = Math.max(1024, bytes >> 2);
  const data = new Float32Array(length);
  const repeats = Math.max(1, Math.floor((4 << 20) / length));
  return rate(length * 4 * repeats, () => {
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let r = 0; r < repeats; r++) {
      for (let i = 0; i + 3 < length; i += 4) {
        a += data[i] as number;
        b += data[i + 1] as number;
        c += data[i + 2] as number;
        d += data[i + 3] as number;
      }
    }
    return a + b + c + d;
  });
}

/** GB/s of copying so many bytes. */
export function probeCopy(bytes: number): number {
  const source = new Uint8Array(Math.max(4096, bytes));
  const target = new Uint8Array(source.length);
  const repeats = Math.max(1, Math.floor((16 << 20) / source.length));
  return rate(source.length * repeats, () => {
    for (let r = 0; r < repeats; r++) target.set(source);
    return target[0] as number;
  });
}

/** 10^9 additions and multiplications a second of a dot product held in the cache. */
export function probeMadd(): number {
  const length = 2048;
  const x = new Float32Array(length).fill(0.5);
  const y = new Float32Array(length).fill(0.25);
  const repeats = 2000;
  return rate(2 * length * repeats, () => {
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let r = 0; r < repeats; r++) {
      for (let i = 0; i < length; i += 4) {
        a += (x[i] as number) * (y[i] as number);
        b += (x[i + 1] as number) * (y[i + 1] as number);
        c += (x[i + 2] as number) * (y[i + 2] as number);
        d += (x[i + 3] as number) * (y[i + 3] as number);
      }
    }
    return a + b + c + d;
  });
}
