// Random numbers with the same bits on every host backend, as canonical.ts beside the op's declaration has them; its
// exponential is wide.exp.

/** At least 0, below 1: Philox4x32-10 of (seed, position), 53 bits. */
export function uniform_at(seed: u32, position: u32): f64 {
  let a = position;
  let b: u32 = 0;
  let c: u32 = 0;
  let d: u32 = 0;
  let key_a = seed;
  let key_b: u32 = 0;
  for (let round = 0; round < 10; round++) {
    const x = <u64>a * 0xd2511f53;
    const y = <u64>c * 0xcd9e8d57;
    a = <u32>(y >> 32) ^ b ^ key_a;
    b = <u32>y;
    c = <u32>(x >> 32) ^ d ^ key_b;
    d = <u32>x;
    key_a += 0x9e3779b9;
    key_b += 0xbb67ae85;
  }
  return (<f64>a * 2097152.0 + <f64>(b >> 11)) / 9007199254740992.0;
}
