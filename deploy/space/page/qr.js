/**
 * QR codes of texts: ISO/IEC 18004, byte mode, error correction level L, since a screen is never dirty.
 *
 * The tables hold, for versions 1 to 40, the bytes of error correction in each block and the number of blocks.
 */

const CORRECTION = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, ...Array(14).fill(30)];
const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25];
const MASKS = [
  (x, y) => (x + y) % 2,
  (x, y) => y % 2,
  (x) => x % 3,
  (x, y) => (x + y) % 3,
  (x, y) => ((x / 3) | 0) + ((y / 2) | 0) & 1,
  (x, y) => ((x * y) % 2) + ((x * y) % 3),
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
];

/** @returns {boolean[][] | null} rows of modules, true for dark; null where the text is too long for a code */
export function qr(text) {
  const bytes = new TextEncoder().encode(text);
  const version = versionFor(bytes.length);
  if (!version) return null;
  const data = interleaved(packed(bytes, version), version);
  const codes = MASKS.map((_, mask) => drawn(version, data, mask));
  const points = codes.map(penalty);
  return codes[points.indexOf(Math.min(...points))];
}

/** The smallest version that holds `length` bytes; 0 if none does. */
export function versionFor(length) {
  for (let version = 1; version <= 40; version++) {
    if (4 + counted(version) + 8 * length <= 8 * room(version)) return version;
  }
  return 0;
}

/** Bits of the length field. */
const counted = (version) => (version < 10 ? 8 : 16);

/** Bytes of data, without those of error correction. */
const room = (version) => capacity(version) - CORRECTION[version - 1] * BLOCKS[version - 1];

/** Bytes in all, those of error correction included. */
function capacity(version) {
  const aligned = version > 1 ? Math.floor(version / 7) + 2 : 0;
  const alignment = aligned ? (25 * aligned - 10) * aligned - 55 : 0;
  return Math.floor(((16 * version + 128) * version + 64 - alignment - (version < 7 ? 0 : 36)) / 8);
}

/** The codewords of the data: mode, length, bytes and padding. */
function packed(bytes, version) {
  const codewords = room(version);
  const bits = "0100" + binary(bytes.length, counted(version)) + Array.from(bytes, (byte) => binary(byte, 8)).join("") + "0000";
  const data = bits.match(/.{1,8}/g).slice(0, codewords).map((octet) => parseInt(octet.padEnd(8, "0"), 2));
  for (let pad = 0xec; data.length < codewords; pad ^= 0xec ^ 0x11) data.push(pad);
  return data;
}

const binary = (value, length) => value.toString(2).padStart(length, "0");

/** The blocks and their error correction, a byte of each in turn. The later blocks may be one byte longer. */
function interleaved(data, version) {
  const count = BLOCKS[version - 1];
  const correction = CORRECTION[version - 1];
  const short = Math.floor(data.length / count);
  const longer = count - (data.length % count);
  const blocks = Array.from({ length: count }, (_, index) => {
    const start = index * short + Math.max(0, index - longer);
    return data.slice(start, start + short + (index >= longer ? 1 : 0));
  });
  const checks = blocks.map((block) => remainder(block, generator(correction)));
  const columns = (rows, length) => Array.from({ length }, (_, at) => rows.flatMap((row) => row[at] ?? [])).flat();
  return [...columns(blocks, short + 1), ...columns(checks, correction)];
}

/** The product of two elements of GF(2⁸), modulo x⁸ + x⁴ + x³ + x² + 1. */
function product(a, b) {
  let result = 0;
  for (let bit = 7; bit >= 0; bit--) result = (result << 1) ^ ((result >> 7) * 0x11d) ^ (((b >> bit) & 1) * a);
  return result;
}

/** The coefficients of (x - 1)(x - 2)(x - 4)… of a degree, without the leading one. */
function generator(degree) {
  const result = [...Array(degree - 1).fill(0), 1];
  for (let index = 0, root = 1; index < degree; index++, root = product(root, 2)) {
    for (let at = 0; at < degree; at++) result[at] = product(result[at], root) ^ (result[at + 1] ?? 0);
  }
  return result;
}

function remainder(data, divisor) {
  const result = divisor.map(() => 0);
  for (const byte of data) {
    const factor = byte ^ result.shift();
    result.push(0);
    divisor.forEach((coefficient, at) => (result[at] ^= product(coefficient, factor)));
  }
  return result;
}

function drawn(version, data, mask) {
  const size = 4 * version + 17;
  const rows = Array.from({ length: size }, () => Array(size));
  const set = (x, y, dark) => x >= 0 && y >= 0 && x < size && y < size && (rows[y][x] = Boolean(dark));
  const square = (x, y, radius, dark) => {
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) set(x + dx, y + dy, dark(Math.max(Math.abs(dx), Math.abs(dy))));
    }
  };
  for (let at = 0; at < size; at++) set(at, 6, at % 2 === 0), set(6, at, at % 2 === 0);
  const corners = [[3, 3], [size - 4, 3], [3, size - 4]];
  for (const [x, y] of corners) square(x, y, 4, (distance) => distance !== 2 && distance !== 4);
  const positions = alignments(version, size);
  for (const x of positions) {
    for (const y of positions) {
      const cornered = (x === 6 && (y === 6 || y === size - 7)) || (y === 6 && x === size - 7);
      if (!cornered) square(x, y, 2, (distance) => distance !== 1);
    }
  }
  signed(set, version, size, mask);
  filled(rows, data, mask);
  return rows;
}

function alignments(version, size) {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const step = Math.floor((version * 8 + count * 3 + 5) / (count * 4 - 4)) * 2;
  return [6, ...Array.from({ length: count - 1 }, (_, index) => size - 7 - (count - 2 - index) * step)];
}

/** Format and version, each twice, with their own error correction. */
function signed(set, version, size, mask) {
  const format = checked((1 << 3) | mask, 10, 0x537) ^ 0x5412; // 1 is level L
  for (let bit = 0; bit < 15; bit++) {
    const dark = (format >> bit) & 1;
    const near = bit + (bit > 5);
    if (bit < 8) set(8, near, dark), set(size - 1 - bit, 8, dark);
    else set(bit === 8 ? 7 : 14 - bit, 8, dark), set(8, size - 15 + bit, dark);
  }
  set(8, size - 8, true);
  const number = checked(version, 12, 0x1f25);
  for (let bit = 0; version > 6 && bit < 18; bit++) {
    const [far, near] = [size - 11 + (bit % 3), Math.floor(bit / 3)];
    set(far, near, (number >> bit) & 1), set(near, far, (number >> bit) & 1);
  }
}

/** A value with its `degree` bits of BCH error correction. */
function checked(value, degree, divisor) {
  let rest = value;
  for (let bit = 0; bit < degree; bit++) rest = (rest << 1) ^ ((rest >> (degree - 1)) * divisor);
  return (value << degree) | rest;
}

/** Places the masked data, up and down in columns of two, from the right. */
function filled(rows, data, mask) {
  const size = rows.length;
  let bit = 0;
  for (let right = size - 1; right > 0; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < size; step++) {
      const y = (right + 1) & 2 ? step : size - 1 - step;
      for (const x of [right, right - 1]) {
        if (rows[y][x] !== undefined) continue;
        const dark = (data[bit >> 3] >> (7 - (bit & 7))) & 1;
        rows[y][x] = Boolean(dark ^ !MASKS[mask](x, y));
        bit++;
      }
    }
  }
}

/** How hard a code is to read: long runs, squares, what looks like a corner mark, too much of one colour. */
function penalty(rows) {
  const size = rows.length;
  const across = rows.map((row) => row.map(Number).join(""));
  const down = rows.map((_, x) => rows.map((row) => Number(row[x])).join(""));
  let points = 0;
  for (const line of [...across, ...down]) {
    for (const run of line.match(/0{5,}|1{5,}/g) ?? []) points += run.length - 2;
    points += 40 * (line.match(/(?=10111010000|00001011101)/g) ?? []).length;
  }
  for (let y = 1; y < size; y++) {
    for (let x = 1; x < size; x++) {
      const dark = rows[y][x];
      if (rows[y][x - 1] === dark && rows[y - 1][x] === dark && rows[y - 1][x - 1] === dark) points += 3;
    }
  }
  const dark = across.join("").replaceAll("0", "").length;
  return points + 10 * Math.floor(Math.abs((20 * dark) / size ** 2 - 10));
}
