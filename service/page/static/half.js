// float16, as Token.state packs it.

const table = new Float32Array(65536);
for (let bits = 0; bits < 65536; bits += 1) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
  else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
  else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Of base64, as JSON carries bytes. */
export function halves(base64) {
  const bytes = atob(base64);
  const values = new Float32Array(bytes.length >> 1);
  for (let n = 0; n < values.length; n += 1) {
    values[n] = table[bytes.charCodeAt(2 * n) | (bytes.charCodeAt(2 * n + 1) << 8)];
  }
  return values;
}
