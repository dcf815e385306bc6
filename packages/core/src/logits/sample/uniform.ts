/** A number at least 0 and below 1, with 53 bits, of a seed and a position: Philox4x32-10 (Salmon et al., SC 2011). */
export function uniformAt(seed: number, position: number): number {
  let [a, b, c, d] = [position >>> 0, 0, 0, 0];
  let [keyA, keyB] = [seed >>> 0, 0];
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(a, 0xd2511f53);
    const [high1, low1] = product(c, 0xcd9e8d57);
    [a, b, c, d] = [(high1 ^ b ^ keyA) >>> 0, low1, (high0 ^ d ^ keyB) >>> 0, low0];
    keyA = (keyA + 0x9e3779b9) >>> 0;
    keyB = (keyB + 0xbb67ae85) >>> 0;
  }
  return (a * 2 ** 21 + (b >>> 11)) / 2 ** 53;
}

/** The high and low words of a product of two unsigned words. */
function product(x: number, y: number): [number, number] {
  const [xl, xh, yl, yh] = [x & 0xffff, x >>> 16, y & 0xffff, y >>> 16];
  const low = xl * yl;
  const middle = xh * yl + (low >>> 16);
  const other = xl * yh + (middle % 65536);
  return [(xh * yh + Math.floor(middle / 65536) + Math.floor(other / 65536)) >>> 0, Math.imul(x, y) >>> 0];
}
