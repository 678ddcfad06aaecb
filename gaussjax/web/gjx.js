// Pictures of 2D Gaussians on a page: reads .gjx files, draws them at any zoom, and defines <gjx-image>.
//
//   import { decode, Renderer } from "./gjx.js";
//   new Renderer(canvas).show(decode(await (await fetch("photo.gjx")).arrayBuffer())).draw();
//
// One module without dependencies; decode and rasterize need no browser. The format is docs/format.md.

// What a reader accepts. `numbers` are colours of all channels, `overlaps` Gaussians met in tiles of 16 x 16.
export const LIMITS = {
  fileBytes: 2 ** 28,
  pixels: 2 ** 27,
  gaussians: 2 ** 22,
  numbers: 2 ** 25,
  overlaps: 2 ** 24,
};

/** Bytes that are no whole .gjx file within the limits; the message says what is wrong. */
export class FormatError extends Error {
  name = "FormatError";
}

const refuse = (message) => {
  throw new FormatError(message);
};
const damaged = (what) => refuse(`damaged: ${what} is out of range`);

// Integers, all below 2^53, so that doubles hold them; those that may pass 2^31 are divided, never shifted.

const F = [65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194]; // 2^(i / 8) in 1 / 2^16
const power = (eighths) => Math.floor(F[eighths & 7] * 2 ** (eighths >> 3));
const stepOf = (code) => 2 ** (code / 8 - 16);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const bits = (value, most = 32) => Math.min(32 - Math.clz32(value), most); // of one below 2^32
const bitsUpTo = (value, most) => bits(Math.min(value, 255), most); // of any

// Half to even: 65536 / (n + 1.5) = 131072 / (2 n + 3) is never halfway, since 2 n + 3 is odd.
const RATES = Float64Array.from({ length: 65 }, (_, n) => Math.round(65536 / (n + 1.5)));

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc(data, begin, end) {
  let c = -1;
  for (let i = begin; i < end; i++) c = CRC_TABLE[(c ^ data[i]) & 255] ^ (c >>> 8);
  return ~c >>> 0;
}

/** The binary arithmetic decoder; `p` and `n` are the models, which several streams share. */
class Coder {
  constructor(data, begin, end, { p, n, wide }) {
    Object.assign(this, { data, begin, at: begin, end, p, n, wide, low: 0, high: 2 ** 32 - 1, code: 0 });
    for (let i = 0; i < 4; i++) this.code = this.code * 256 + this.byte();
  }

  byte() {
    const at = this.at++;
    return at < this.end ? this.data[at] : 0;
  }

  shift() {
    while ((this.low ^ this.high) >>> 24 === 0) {
      this.low = (this.low << 8) >>> 0;
      this.high = ((this.high << 8) | 255) >>> 0;
      this.code = ((this.code << 8) | this.byte()) >>> 0;
    }
  }

  odds(p) {
    const middle = this.low + Math.floor(((this.high - this.low) * p) / 65536);
    const bit = this.code <= middle ? 1 : 0;
    if (bit) this.high = middle;
    else this.low = middle + 1;
    this.shift();
    return bit;
  }

  bit(model) {
    const p = this.p[model];
    const n = this.n[model];
    const bit = this.odds(p);
    this.p[model] = clamp(p + Math.floor(((65536 * bit - p) * RATES[n]) / 65536), 64, 65472);
    if (n < 64) this.n[model] = n + 1;
    return bit;
  }

  even(count) {
    let value = 0;
    for (let i = 0; i < count; i++) value = 2 * value + this.odds(32768);
    return value;
  }

  /** Bits without a model: sixteen at once, as one of equal parts, where the bounds are `wide` apart. */
  raw(count) {
    if (count > 16) return this.raw(16) * 2 ** (count - 16) + this.raw(count - 16);
    if (this.high - this.low < this.wide) return this.even(count);
    const part = Math.floor((this.high - this.low + 1) / 2 ** count);
    const value = clamp(Math.floor((this.code - this.low) / part), 0, 2 ** count - 1);
    this.low += value * part;
    this.high = this.low + part - 1;
    this.shift();
    return value;
  }

  uniform(n) {
    let value = 0;
    while (n > 1) {
      const upper = n >> 1;
      if (this.odds(Math.floor((upper * 65536) / n))) {
        value += n - upper;
        n = upper;
      } else n -= upper;
    }
    return value;
  }

  magnitude(model) {
    for (let i = 0; i < 20; i++) if (!this.bit(model + i)) return i;
    let e = 0;
    while (this.odds(32768)) if (++e > 32) damaged("a number of bits");
    return 19 + 2 ** e + this.even(e);
  }

  signed(model) {
    const value = this.magnitude(model);
    return value && this.bit(model + 20) ? -value : value;
  }

  /** Bits of the stream that were used up to here. */
  used() {
    return 8 * (this.at - this.begin) - Math.log2(this.high - this.low + 1);
  }
}

/** [value, position after it], or null where the data end. */
function readCount(data, at, end) {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    if (at >= end) return null;
    const byte = data[at++];
    value += (byte & 127) * 128 ** i;
    if (byte < 128 && value < 2 ** 32) return [value, at];
    if (byte < 128) break;
  }
  return damaged("a length");
}

/** A canvas in thousandths: the cut-off and the floor, and the background from `colors` on. */
const canvasOf = (view, at, colors, channels) => ({
  cutoff: view.getUint16(at),
  floor: view.getUint16(at + 2),
  unit: 1000,
  background: Array.from({ length: channels }, (_, c) => view.getInt16(colors + 2 * c)),
});

const usualCanvas = (bytes) => ({ cutoff: 3500, floor: 300, unit: 255, background: [...bytes] });

/** The same of a short frame, whose layer `ends` before the last byte. */
function readShortStart(data, channels) {
  const at = channels > 3 ? 10 : 9;
  if (data.length <= at + 1) return null;
  const sides = (data[3] << 16) | (data[4] << 8) | data[5];
  const told = (data[6] << 8) | data[7];
  const p = 116 + (told & 31);
  const header = {
    ...{ version: 3, height: (sides >> 12) + 1, width: (sides & 4095) + 1, channels, layers: 1, blend: 0 },
    steps: [p, p - 16 + ((told >> 5) & 3), 270 - p + ((told >> 7) & 15), p - 20 + (told >> 11)],
    weighted: false,
    ...usualCanvas([data[8], data[8], data[8], data[9]].slice(0, channels)),
  };
  return { header, at, ends: data.length - 1 };
}

/** {header, at}: that of version 3 and where it ends; none in version 2, a chunk there; null if it is cut off. */
function readStart(data) {
  const channelsOf = { 0x31: 1, 0x33: 3, 0x34: 4 }; // digits: of a short frame
  const signed = data[0] === 0x8b && data[1] === 0x47;
  if (signed && data[2] in channelsOf) return readShortStart(data, channelsOf[data[2]]);
  if (!signed || data[2] !== 0x4a || data[3] !== 0x58) refuse("not a .gjx file: its signature is missing");
  if (data[4] === 0x48) return { at: 4 };
  if (!(data[4] >= 0)) return null;
  if (data[4] !== 3) refuse(`got a file of version ${data[4]}, expected 3 or 2`);
  const flags = data[5];
  if (flags > 127) refuse("got a header that this version does not know");
  let at = 6;
  const channels = [1, 3, 4][flags >> 5] ?? data[at++];
  const side = () => {
    const [value, next] = readCount(data, at, data.length) ?? [0, Infinity];
    at = next;
    return value + 1;
  };
  const [height, width] = [side(), side()];
  const weighted = (flags & 8) > 0;
  const own = (flags & 16) > 0;
  const begin = at + 4 + weighted;
  const end = begin + channels * (own ? 2 : 1) + (own ? 4 : 0);
  if (!(end <= data.length)) return null;
  const view = new DataView(data.buffer, data.byteOffset + begin, end - begin);
  const header = {
    version: 3,
    height,
    width,
    channels,
    layers: (flags & 3) + 1,
    blend: (flags >> 2) & 1,
    steps: [...data.subarray(at, begin)],
    weighted,
    ...(own
      ? canvasOf(view, 0, 4, channels)
      : usualCanvas(data.subarray(begin, end))),
  };
  return { header, at: end };
}

/** Chunks {kind, begin, end, size} as far as they are whole, with right check sums unless `quickly`. */
function readChunks(data, { at, ends }, quickly) {
  const chunks = [];
  if (ends) {
    if (quickly) return { chunks }; // drawn when all of it is there
    if ((crc(data, 0, ends) & 255) !== data[ends]) refuse("damaged or cut off: the check sum is wrong");
    return { chunks: [{ kind: 0x4c, begin: at, end: ends, size: data.length - at }], whole: true };
  }
  let since = 4; // the first check sum is of the header too
  for (let found; at < data.length; since = at) {
    found = readCount(data, at + 1, data.length);
    if (!found || found[0] + found[1] + 4 > data.length) return { chunks, whole: false };
    const begin = found[1];
    const end = begin + found[0];
    const sum = new DataView(data.buffer, data.byteOffset + end).getUint32(0);
    if (!quickly && sum !== crc(data, since, end))
      refuse(`damaged: the check sum of the chunk at byte ${at} is wrong`);
    chunks.push({ kind: data[at], begin, end, size: end + 4 - at });
    at = end + 4;
  }
  return { chunks, whole: true };
}

const bytesOf = (data) =>
  ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);

/** How many layers are whole in the beginning of a file. Throws FormatError for that of another. */
export function countLayers(data) {
  data = bytesOf(data);
  const start = data.length < 4 ? null : readStart(data);
  return start ? readChunks(data, start, true).chunks.filter(({ kind }) => kind === 0x4c).length : 0;
}

/** The header of version 2, the first chunk. */
function readOldHeader(data, chunk) {
  if (!chunk) refuse("cut off before the header's end");
  const view = new DataView(data.buffer, data.byteOffset + chunk.begin, chunk.end - chunk.begin);
  if (view.byteLength < 21) refuse("damaged: the header is too short");
  const [version, least] = [view.getUint8(0), view.getUint8(1)];
  if (least > 2) refuse(`got a file for readers of version ${least} and later, expected 2 at most`);
  if (version < 2) refuse(`got a file of version ${version}, which is no longer read; encode it anew`);
  const channels = view.getUint8(10);
  if (view.byteLength !== 21 + 2 * channels) refuse(`damaged: a header of ${view.byteLength} bytes`);
  return {
    version: 2,
    height: view.getUint32(2),
    width: view.getUint32(6),
    channels,
    layers: view.getUint8(11),
    blend: view.getUint8(12),
    steps: [...new Uint8Array(view.buffer, view.byteOffset + 17, 4)],
    weighted: false,
    ...canvasOf(view, 13, 21, channels),
  };
}

function checkHeader(header, { pixels }) {
  const ranges = { channels: [1, 32], layers: [1, 4], blend: [0, 1], cutoff: [500, 8000], floor: [20, 4000] };
  for (const [name, [low, high]] of Object.entries({ height: [1, pixels], width: [1, pixels], ...ranges }))
    if (!(header[name] >= low && header[name] <= high))
      refuse(`got a header with ${name} ${header[name]}, expected ${low} to ${high}`);
  if (header.height * header.width > pixels)
    refuse(`got ${header.width} x ${header.height} pixels, expected at most ${pixels}`);
}

/** How many angles a Gaussian has: the aspect ratio is 2^(q / 8), the step of turns 2^(turn / 8). */
const binsOf = (turn, q) =>
  clamp(Math.floor((power(turn) * (power(q) - power(-q)) + 2 ** 31) / 2 ** 32), 1, 4096); // exact up to that

/** Levels of grain, fine then coarse, of regions of 2^`side` pixels each way. */
function readGrain(data, { begin, end }, { height, width }) {
  const side = begin < end ? data[begin] : 0;
  const [rows, columns] = [height, width].map((size) => Math.ceil(size / 2 ** side));
  const count = rows * columns;
  if (side < 4 || side > 15 || count > 4096) damaged("a size of regions");
  const models = { p: new Float64Array(126).fill(32768), n: new Uint8Array(126), wide: 2 ** 24 };
  const coder = new Coder(data, begin + 1, end, models);
  const levels = new Uint8Array(2 * count);
  const off = new Int8Array(count);
  for (let i = 0; i < 2 * count; i++) {
    const at = i % count;
    const above = at < columns ? undefined : levels[i - columns];
    const left = at % columns ? levels[i - 1] : (above ?? 0);
    const context = i < count ? Math.min(Math.abs(left - (above ?? left)), 2) : 4 + Math.sign(off[at]);
    const expected = (left + (above ?? left) + 1) >> 1;
    const surprise = coder.signed(21 * context);
    if (!(expected + surprise >= 0 && expected + surprise < 16)) damaged("a strength of grain");
    off[at] = surprise;
    levels[i] = expected + surprise;
  }
  return { side, rows, columns, levels: [...levels] };
}

/** Where the even bits of a Morton code lead. */
function gather(code) {
  code &= 0x55555555;
  code = (code | (code >> 1)) & 0x33333333;
  code = (code | (code >> 2)) & 0x0f0f0f0f;
  code = (code | (code >> 4)) & 0x00ff00ff;
  return (code | (code >> 8)) & 0xffff;
}

/** The integers of all layers, one after the other in the same arrays: what versions share. */
class Layers {
  constructor(header, total) {
    const integers = (each = 1) => new Int32Array(total * each);
    this.header = header;
    this.morton = integers();
    this.codes = {
      cells: integers(2),
      parts: integers(),
      weights: integers(),
      minor: integers(),
      ratio: integers(),
      turn: integers(),
      bins: integers(),
      colors: integers(header.channels),
    };
    this.near = integers(4);
    this.shares = integers(4);
    this.angles = integers();
    this.units = new Float64Array(total); // of colours
    this.starts = [0];
    this.bits = { position: 0, weight: 0, scale: 0, turn: 0, color: 0 };
  }

  read(data, begin, end, count) {
    const coder = new Coder(data, begin, end, this);
    const first = this.starts.at(-1);
    let before = 0;
    this.readLayer(coder, first, first + count, (field) => {
      this.bits[field] += coder.used() - before;
      before = coder.used();
    });
    this.starts.push(first + count);
  }

  readPositions(coder, first, last) {
    const { cells } = this.codes;
    let morton = 0;
    let context = 128;
    for (let i = first; i < last; i++) {
      const size = coder.magnitude(20 * Math.min(context >> 4, 15));
      if (size > 32) damaged("a position");
      morton += size < 2 ? size : (2 + coder.bit(320 + size)) * 2 ** (size - 2) + coder.raw(size - 2);
      if (morton >= 2 ** 30) damaged("a position");
      context += (16 * size - context) >> 2;
      this.morton[i] = morton;
      cells[2 * i] = gather(morton);
      cells[2 * i + 1] = gather(morton >> 1);
    }
  }

  findNeighbors(first, last) {
    const {
      near,
      shares,
      morton,
      starts,
      codes: { cells },
    } = this;
    const places = starts.slice(0, -1);
    const apart = new Float64Array(4);
    const found = new Int32Array(4);
    for (let i = first; i < last; i++) {
      const x = cells[2 * i];
      const y = cells[2 * i + 1];
      apart.fill(Infinity);
      const consider = (j) => {
        const dx = cells[2 * j] - x;
        const dy = cells[2 * j + 1] - y;
        const d = dx * dx + dy * dy;
        if (d >= apart[3]) return;
        let k = 3;
        for (; k > 0 && apart[k - 1] > d; k--) {
          apart[k] = apart[k - 1];
          found[k] = found[k - 1];
        }
        apart[k] = d;
        found[k] = j;
      };
      for (let j = i - 1; j >= Math.max(i - 16, first); j--) consider(j);
      for (let layer = 0; layer < places.length; layer++) {
        while (places[layer] < starts[layer + 1] && morton[places[layer]] < morton[i]) places[layer]++;
        const low = Math.max(places[layer] - 6, starts[layer]);
        const high = Math.min(places[layer] + 6, starts[layer + 1]);
        for (let j = low; j < high; j++) consider(j);
      }
      for (let k = 0; k < 4; k++) {
        near[4 * i + k] = apart[k] < Infinity ? found[k] : 0;
        shares[4 * i + k] = Math.floor(65536 / (1 + apart[k]));
      }
    }
  }

  /** Whether there are neighbours; leaves the mean of their values and their spread about it. */
  look(values, i) {
    const { near, shares } = this;
    const [begin, end] = [4 * i, 4 * i + 4];
    let total = 0;
    let sum = 0;
    let off = 0;
    for (let k = begin; k < end; k++) {
      total += shares[k];
      sum += shares[k] * values[near[k]];
    }
    if (!total) return false;
    this.mean = Math.floor((sum + (total >> 1)) / total);
    for (let k = begin; k < end; k++) off += shares[k] * Math.abs(values[near[k]] - this.mean);
    this.spread = Math.floor(off / total);
    return true;
  }

  /** The turn of a Gaussian that has `count` angles. */
  readTurn(coder, i, count) {
    const { turn, bins } = this.codes;
    bins[i] = count;
    if (count > 1) {
      const start = this.shares[4 * i] ? Math.floor((this.angles[this.near[4 * i]] * count) / 65536) : 0;
      let apart;
      if (count < 8) apart = coder.uniform(count);
      else {
        let node = 1;
        for (let k = 0; k < 3; k++) node = 2 * node + coder.bit(this.turns + node);
        const low = ((node - 8) * count + 7) >> 3;
        const high = ((node - 7) * count + 7) >> 3;
        apart = low + coder.uniform(high - low);
      }
      turn[i] = (start + apart) % count;
    }
    this.angles[i] = Math.floor((65536 * turn[i]) / count);
  }
}

/** Kinds of numbers of version 3. Fields' steps go by sums over features: of (minor, ratio, weight). */
const MINOR = [0, 0, 10];
const RATIO = [23, 0, 9];
const TURN = [34, 13, 11];
const COLOR = [54, 27, 9];
const PART = [-17, -1, 3];

/** Eighths of an octave, of a logarithm and of a number in 1 / 2^16. */
const eighths = (v) => Math.floor((Math.floor(v / 64) * 11819 + 2 ** 19) / 2 ** 20);
const octaves = (v) => {
  const size = bits(v);
  const mantissa = size > 17 ? v >> (size - 17) : v << (17 - size);
  return 8 * (size - 17) + F.findLastIndex((least) => mantissa >= least);
};

/** Which models serve an expected size, and 16 times how many low bits have none. */
function bucketOf(size) {
  size = clamp(size, 1, 2 ** 20);
  const length = bits(size) - 1;
  const half = 2 * length + Math.floor((size * size) / 2 ** (2 * length + 1));
  return length < 6 ? Math.max(half - 2, 0) : 10 + (half & 1) + 16 * (length - 5);
}

// What models believe at first: the i-th letter stands for odds of 2^((i - 32) / 4).
const LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-";
const PLACES =
  "HzyrvpqqqqqqqqqqqqqqIFBxuquuuzwwqqqqqqqqLHEAxtuutuztDAqqqqqqMJHDAwtsuutwyvpqqqqqOLKGDzwuutvyuwvACqqq" +
  "QPMKHEAxvuxvxBuqqmnnVVQMKFCAwvtzBsvpqqqqVWOOMHFBywvwxsByqqqqX-TUQLHEAwuxvxEoqqqqTTRRTIGHBvrzuoqqqqqq" +
  "HyEEEEEEEyqqqqqqqqqqwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww" +
  "wwwwwwwwwwwwwwwwwwwwwwvwuvuutsrqlicgCpqqqqqqqqqqqqqqqwwszrxvA";
const NUMBERS =
  "lrnsqttvvxyzBCFFIIKJwwwwOEw0KDthLDrjGzslCzvoBxvrxxwvxz9istuvtuoqqqqqqqqqqqqinsqqqmnnnnnnnnnnnnnjrqtt" +
  "lnnnnnnnnnnnnnnmsvtyvmnnnnnnnnnnnnnpsuuwwvtGGvCCqqqqqqqsuuwvywxBwEEEEEEuoqqxxyAyBzCCACCAGEFNEDLAABBA" +
  "BBCCFBFEEEDEELODCCBACBBCDCBECEEDCEEFEDDCCCCBCCCEEDEEDGFwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww" +
  "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwyyyyyuwwwwwwwwwwwwwwwwwww" +
  "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwIIIFIBHHwDDDpqqqqqqqCFHDCDCBzAAGAIIAGGCFGIEGHFEDDCCEDECFHKFJABAzz" +
  "yzzzxyByDyAFCFGCCCBAzzyBABBBEBBGGJEwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww" +
  "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwyyyyyyyyyyuwwwwwwwwwGDHHDHHHHACEEEEBuuuuHHLFF" +
  "DHJGCEFzJGJJJDIIGFDCCCBCDAByCECLHDHCAyxxxxxyxzzzCLAvzEEFDBAzzyzyAzAByDBICBB";

/** The fourth root of pixels for each of `count` Gaussians, in 1 / 2^16, rounded down. */
function rootOfSpacing(pixels, count) {
  const above = (root) => BigInt(root) ** 4n * BigInt(count) > BigInt(pixels) << 64n;
  let root = Math.floor(65536 * Math.sqrt(Math.sqrt(pixels / count)));
  while (above(root)) root--;
  while (!above(root + 1)) root++;
  return root;
}

class Version3 extends Layers {
  constructor(header, total, count) {
    super(header, total);
    const { channels, height, width, background, unit } = header;
    const letters = PLACES + NUMBERS.repeat(3 + channels);
    const odds = [...LETTERS].map((_, i) => Math.floor(2 ** 32 / (65536 + power(64 - 2 * i))));
    this.p = Float64Array.from(letters, (letter) => odds[LETTERS.indexOf(letter)]);
    this.n = new Uint8Array(letters.length).fill(24);
    this.wide = 2 ** 24;
    this.turns = 353;
    this.features = [0, 1, 2].map(() => new Int32Array(total));
    const root = Math.floor((79 * rootOfSpacing(height * width, count)) / 256);
    const sum = background.reduce((all, value) => all + Math.floor((value * 65536) / unit), 0);
    const gray = Math.floor((sum * Math.floor(Math.sqrt(Math.floor(2 ** 32 / channels)))) / 65536);
    this.kinds = [
      [131072, 87000],
      [root, Math.max(Math.floor((76 * root) / 256), 1)],
      [91000, 40000],
      ...background.map((_, k) => [k ? 0 : gray, [26000, 5600][k] ?? 2600]),
    ].map(([middle, apart], index) => ({
      base: 361 + 775 * index,
      middle: 16 * middle,
      apart,
      sides: [apart, apart],
      shared: 2048,
      square: 4096,
      count: 0,
      values: new Float64Array(total),
      surprise: 0, // of the last code
    }));
  }

  /** A field's sum over features, in whole. */
  weigh([a, b, c], i) {
    const [m8, r8, w8] = this.features;
    return (a * m8[i] + b * r8[i] + c * w8[i] + 64) >> 7;
  }

  level(field, i) {
    return clamp(this.weigh(field, i), -24, 40);
  }

  unit(step, level) {
    return clamp(power(this.header.steps[step] - 128 - 2 * level), 1, 2 ** 24);
  }

  readLayer(coder, first, last, spent) {
    const { header, kinds, codes, units } = this;
    const [m8, r8, w8] = this.features;
    this.readPositions(coder, first, last);
    spent("position");
    this.findNeighbors(first, last);
    if (header.weighted)
      for (let i = first; i < last; i++) {
        codes.weights[i] = this.readNumber(coder, kinds[0], i, this.unit(4, 0));
        w8[i] = eighths(kinds[0].values[i]);
      }
    spent("weight");
    for (let i = first; i < last; i++) {
      codes.minor[i] = this.readNumber(coder, kinds[1], i, this.unit(1, this.level(MINOR, i)));
      if (codes.minor[i] < 1) damaged("a scale");
      m8[i] = 2 * octaves(kinds[1].values[i]);
    }
    for (let i = first; i < last; i++) {
      codes.ratio[i] = this.readNumber(coder, kinds[2], i, this.unit(1, this.level(RATIO, i)));
      if (codes.ratio[i] < 0) damaged("a scale");
      r8[i] = eighths(kinds[2].values[i]);
    }
    spent("scale");
    for (let i = first; i < last; i++) {
      const turn = header.steps[2] - 128 + 2 * this.level(TURN, i);
      this.readTurn(coder, i, binsOf(turn, Math.min(r8[i], 96)));
      units[i] = this.unit(3, this.level(COLOR, i));
    }
    spent("turn");
    const wide = new Uint8Array(last - first).fill(4);
    for (let k = 0; k < header.channels; k++) {
      const kind = kinds[3 + k];
      for (let i = first; i < last; i++) {
        codes.colors[header.channels * i + k] = this.readNumber(coder, kind, i, units[i], wide[i - first]);
        wide[i - first] = [3, 4, 4, 5][bitsUpTo(Math.abs(kind.surprise), 3)];
      }
    }
    spent("color");
    for (let i = first; i < last; i++) codes.parts[i] = coder.raw(this.partBits(i));
    spent("position");
  }

  partBits(i) {
    return 6 + clamp(this.weigh(PART, i), -6, 8);
  }

  /** A code, whose number becomes a value of its kind; `wide`, in quarters, is how far it may be. */
  readNumber(coder, kind, i, unit, wide = 4) {
    const middle = kind.middle >> 4;
    const known = this.look(kind.values, i);
    const mean = known ? this.mean : middle;
    const spread = known ? this.spread : kind.apart;
    const share = clamp(Math.floor((64 * kind.shared) / kind.square), 0, 62);
    const expected = middle + Math.floor((share * (mean - middle)) / 64);
    const place = Math.floor((expected + (unit >> 1)) / unit);
    const quarter = Math.floor((4 * (expected + (unit >> 1) - place * unit)) / unit);
    const size = Math.floor((2 * wide * (spread + kind.apart)) / unit);
    const surprise = this.readSurprise(coder, kind, place, quarter, size, unit, spread);
    const value = (place + surprise) * unit;
    if (!(Math.abs(value) <= 2 ** 26)) damaged("a number");
    kind.values[i] = value;
    kind.surprise = surprise;

    const rate = RATES[Math.min(kind.count++, 64)];
    const towards = (before, now) => before + Math.floor(((now - before) * rate) / 65536);
    const side = surprise < 0 ? 1 : 0;
    const apart = Math.abs(value - expected);
    kind.middle = towards(kind.middle, 16 * value);
    kind.apart = towards(kind.apart, apart);
    kind.sides[side] = towards(kind.sides[side], apart);
    if (known) {
      const a = clamp(Math.floor((16 * (mean - middle)) / unit), -2047, 2047);
      const b = clamp(Math.floor((16 * (value - middle)) / unit), -2047, 2047);
      kind.shared += a * b - ((kind.shared - 2048) >> 7);
      kind.square += a * a - ((kind.square - 4096) >> 7);
    }
    return place + surprise;
  }

  /** How far a code is from its place. */
  readSurprise(coder, kind, place, quarter, size, unit, spread) {
    const { base } = kind;
    const bucket = bucketOf(size);
    if (bucket < 16) {
      if (!coder.bit(base + 2 * bucket + (quarter % 3 ? 0 : 1))) return 0;
      const sign = coder.bit(base + 24 + 4 * Math.min(bucket, 6) + quarter);
      const beyond = coder.magnitude(base + 55 + 20 * bucket) + 1;
      return sign ? -beyond : beyond;
    }
    const sign = coder.bit(base + 52 + (bucket & 1));
    if (sign && kind === this.kinds[1] && coder.bit(base + 54))
      return Math.max(Math.floor((30957 + (unit >> 1)) / unit), 1) - place;
    const side = kind.sides[sign];
    const away = Math.floor((spread * side) / Math.max(kind.apart, 1)) + side;
    const found = bucketOf(Math.floor((8 * away) / unit));
    const low = found >> 4;
    const beyond = coder.magnitude(base + 295 + 240 * sign + 20 * (found & 15)) * 2 ** low + coder.raw(low);
    return sign ? -beyond - 1 : beyond;
  }

  /** What the integers of a Gaussian stand for. */
  meaning(i) {
    const [weights, minor, ratio] = this.kinds.map(({ values }) => values[i]);
    return {
      weight: weights / 65536,
      minor: 2 * Math.log(minor / 65536),
      ratio: ratio / 65536,
      unit: this.units[i] / 65536,
      size: this.partBits(i),
    };
  }
}

class Version2 extends Layers {
  constructor(header, total) {
    super(header, total);
    this.p = new Float64Array(503 + 252 * header.channels).fill(32768);
    this.n = new Uint8Array(this.p.length);
    this.wide = Infinity; // bits without a model are coded one by one
    this.turns = 479;
    this.levels = new Int32Array(total);
    this.values = Array.from({ length: header.channels }, () => new Float64Array(total));
    this.bits.predictors = 0;
    const scale = power(header.steps[1] - 128);
    this.eighths = Math.floor((756388 * scale) / 65536);
    this.level = Math.floor((141823 * scale) / 65536);
  }

  readLayer(coder, first, last, spent) {
    const { codes } = this;
    if (!first) {
      const number = () => ({
        center: coder.even(26) - 2 ** 25,
        share: coder.even(8) - 128,
        slope: coder.even(8) - 128,
      });
      this.predictors = Array.from({ length: 2 + this.header.channels }, number);
      spent("predictors");
    }
    this.readPositions(coder, first, last);
    for (let i = first; i < last; i++) codes.parts[i] = coder.even(6);
    spent("position");
    this.findNeighbors(first, last);
    this.readScales(coder, first, last);
    spent("scale");
    for (let i = first; i < last; i++) {
      const q = Math.floor((codes.ratio[i] * this.eighths + 32768) / 65536);
      this.readTurn(coder, i, binsOf(this.header.steps[2] - 128, Math.min(q, 96)));
    }
    spent("turn");
    this.readColors(coder, first, last);
    spent("color");
  }

  /** The prediction without the slope's part; leaves the neighbours' spread. */
  predict({ center, share }, values, i) {
    if (this.look(values, i)) return center + Math.floor((share * (this.mean - center)) / 32);
    this.spread = 0;
    return center;
  }

  readScales(coder, first, last) {
    const { minor, ratio } = this.codes;
    const read = (values, predictor, model, i) => {
      const predicted = this.predict(predictor, values, i) + ((predictor.slope * minor[i]) >> 5);
      const value = predicted + coder.signed(model + 21 * bitsUpTo(this.spread, 2));
      if (Math.abs(value) > 8192) damaged("a scale");
      values[i] = value;
    };
    for (let i = first; i < last; i++) read(minor, this.predictors[0], 353, i); // minor[i] is still 0
    for (let i = first; i < last; i++) {
      read(ratio, this.predictors[1], 416, i);
      if (ratio[i] < 0) damaged("a scale");
    }
  }

  readColors(coder, first, last) {
    const { minor, ratio, colors } = this.codes;
    const { channels } = this.header;
    const { levels, units } = this;
    const classes = new Uint8Array(last - first);
    for (let i = first; i < last; i++) {
      levels[i] = clamp(-Math.floor(((2 * minor[i] + ratio[i]) * this.level + 32768) / 65536), -24, 12);
      units[i] = Math.floor((F[2 * (levels[i] & 3)] * 1024) / 2 ** (16 - (levels[i] >> 2)));
    }
    for (let k = 0; k < channels; k++) {
      const values = this.values[k];
      const predictor = this.predictors[2 + k];
      for (let i = first; i < last; i++) {
        const unit = units[i];
        const predicted = this.predict(predictor, values, i);
        const context = 4 * bitsUpTo(Math.floor(this.spread / unit), 2) + classes[i - first];
        const surprise = coder.signed(503 + 252 * k + 21 * context);
        const value = Math.floor((predicted + (unit >> 1)) / unit) + surprise;
        if (Math.abs(value) > 1048576) damaged("a colour");
        colors[channels * i + k] = value;
        values[i] = value * unit;
        classes[i - first] = bitsUpTo(Math.abs(surprise), 3);
      }
    }
  }

  meaning(i) {
    const [, scale, , color] = this.header.steps.map(stepOf);
    const unit = color * 2 ** (this.levels[i] / 4);
    const [minor, ratio] = [this.codes.minor[i] * scale, this.codes.ratio[i] * scale];
    return { weight: 0, minor, ratio, unit, size: 6 };
  }
}

/**
 * The picture in a file: its header, its integers (`codes`), and what they stand for, of N Gaussians: `means`
 * [N, 2] pixels, `logScales` [N, 2] (major, minor), `thetas` [N], `colors` [N, C], `logWeights` [N]; `layers`
 * counts Gaussians. With `partial` a file that was cut off is read as far as its layers are whole. Throws
 * FormatError alone, for what is not such a file or exceeds the `limits`.
 */
export function decode(data, { partial = false, limits = {} } = {}) {
  limits = { ...LIMITS, ...limits };
  data = bytesOf(data);
  if (data.length > limits.fileBytes)
    refuse(`got ${data.length} bytes, expected at most ${limits.fileBytes}`);
  const start = readStart(data) ?? refuse("cut off before the header's end");
  const { chunks, whole } = readChunks(data, start);
  const first = start.header ? { size: start.at - (start.ends ? 3 : 4) } : chunks.shift();
  const header = start.header ?? readOldHeader(data, first);
  checkHeader(header, limits);
  const found = sorted(data, chunks, header);
  found.sizes.unshift(["header", first.size]);
  if (!partial && (!whole || found.bodies.length < header.layers))
    refuse(`cut off: ${found.bodies.length} of ${header.layers} layers are whole`);
  if (!found.bodies.length) refuse("cut off before the first layer's end");
  const counted = found.bodies.map(({ begin, end }) => {
    const [count, start] = readCount(data, begin, end) ?? refuse("damaged: a layer without a count");
    if (count < 1 || count > end - start) refuse(`got a layer of ${count} Gaussians in ${end - start} bytes`);
    return { count, start, end };
  });
  const total = counted.reduce((sum, { count }) => sum + count, 0);
  if (total > limits.gaussians || total * header.channels > limits.numbers)
    refuse(`got ${total} Gaussians, expected at most ${limits.gaussians}`);
  const layers = new (header.version === 2 ? Version2 : Version3)(header, total, counted[0].count);
  for (const { count, start, end } of counted) layers.read(data, start, end, count);
  const { unit, ...told } = header;
  const image = {
    ...told,
    blend: ["weighted_average", "accumulated_sum"][header.blend],
    cutoff: header.cutoff / 1000,
    floor: header.floor / 1000,
    background: header.background.map((value) => value / unit),
    whole: whole && found.bodies.length === header.layers,
    count: total,
    layers: counted.map(({ count }) => count),
    codes: layers.codes,
    bits: layers.bits,
    sizes: found.sizes,
    metadata: found.metadata,
    ...(found.grain && { grain: found.grain }),
    bytes: data.length,
    ...meaning(layers, total),
  };
  image.overlaps = countOverlaps(image);
  if (image.overlaps > limits.overlaps)
    refuse(`got ${image.overlaps} Gaussians in tiles, expected at most ${limits.overlaps}`);
  return image;
}

/** Chunks by what they are; refuses those that a reader may not skip. */
function sorted(data, chunks, header) {
  const names = { 0xc5: "exif", 0xc9: "icc", 0xd4: "text" };
  const found = { bodies: [], metadata: {}, sizes: [] };
  for (const chunk of chunks) {
    const name = names[chunk.kind];
    if (chunk.kind === 0x4c) found.bodies.push(chunk);
    else if (name) found.metadata[name] = data.slice(chunk.begin, chunk.end);
    else if (chunk.kind === 0xc7 && header.version === 3) found.grain = readGrain(data, chunk, header);
    else if (chunk.kind < 128) refuse(`got a chunk of kind ${chunk.kind}, which this version may not skip`);
    const other = chunk.kind === 0xc7 && found.grain ? "grain" : `unknown ${chunk.kind}`;
    const label = chunk.kind === 0x4c ? `layer ${found.bodies.length}` : (name ?? other);
    found.sizes.push([label, chunk.size]);
  }
  if (found.bodies.length > header.layers)
    refuse(`damaged: ${found.bodies.length} layers, expected ${header.layers}`);
  return found;
}

/** What the integers stand for. */
function meaning(layers, total) {
  const { codes } = layers;
  const { height, width, channels, steps } = layers.header;
  const side = 8 * stepOf(steps[0]);
  const means = new Float32Array(2 * total);
  const logScales = new Float32Array(2 * total);
  const thetas = new Float32Array(total);
  const colors = new Float32Array(channels * total);
  const logWeights = new Float32Array(total);
  const dct = Float64Array.from({ length: channels * channels }, (_, at) => {
    const k = Math.floor(at / channels);
    const c = at % channels;
    return Math.cos((Math.PI * k * (2 * c + 1)) / (2 * channels)) * Math.sqrt((k ? 2 : 1) / channels);
  });
  for (let i = 0; i < total; i++) {
    const { weight, minor, ratio, unit, size } = layers.meaning(i);
    const major = minor + ratio;
    if (major > 12 || minor < -12) damaged("a scale");
    if (Math.abs(weight) > 24) damaged("a weight");
    const theta = (codes.turn[i] * Math.PI) / codes.bins[i];
    const cos = Math.cos(theta);
    const sin = Math.sin(theta);
    const a = Math.exp(2 * major);
    const b = Math.exp(2 * minor);
    const xx = a * cos * cos + b * sin * sin;
    const stretch = xx * Math.exp(-major - minor);
    const slope = ((a - b) * cos * sin) / xx;
    let split = 0;
    for (const k of [1, 2, 3]) split += (stretch >= 2 ** (2 * k - 1)) - (stretch < 2 ** (1 - 2 * k));
    const half = size >> 1;
    split = clamp(split, half - size, half);
    const rows = 2 ** (size - half + split);
    const column = Math.floor(codes.parts[i] / rows);
    const row = codes.parts[i] % rows;
    const x = (column + 0.5) / 2 ** (half - split);
    const rise = (row + 0.5) / rows + slope * (x - 0.5);
    means[2 * i] = (codes.cells[2 * i] + x) * side - width / 16;
    means[2 * i + 1] = (codes.cells[2 * i + 1] + rise - Math.floor(rise)) * side - height / 16;
    logScales.set([major, minor], 2 * i);
    thetas[i] = theta;
    logWeights[i] = weight;
    for (let c = 0; c < channels; c++) {
      let sum = 0;
      for (let k = 0; k < channels; k++) sum += codes.colors[channels * i + k] * dct[channels * k + c];
      colors[channels * i + c] = sum * unit;
      if (!(Math.abs(sum * unit) <= 1e4)) damaged("a colour");
    }
  }
  return { means, logScales, thetas, colors, logWeights };
}

/** How many Gaussians tiles of 16 x 16 pixels meet, all told. */
function countOverlaps({ height, width, cutoff, floor, count, means, logScales }) {
  let overlaps = 0;
  for (let i = 0; i < count; i++) {
    const radius = cutoff * Math.hypot(Math.exp(logScales[2 * i]), floor);
    const met = (at, size) => {
      const last = (size - 1) >> 4;
      const mean = means[2 * i + at];
      const low = clamp(Math.floor((mean - radius) / 16), 0, last);
      const high = Math.floor((mean + radius) / 16);
      return Math.max(clamp(high, -1, last) - low + 1, 0);
    };
    overlaps += met(0, width) * met(1, height);
  }
  return overlaps;
}

// Drawing. A covariance is S S^T + floor^2 I; at r output pixels for one of the picture it is r^2 S S^T +
// (max(r, 1) floor)^2 I, with less weight for what it was spread: exact upwards, low-pass filtered downwards.
// A view is [left, top, right, bottom] in the picture's pixels.

const EACH = 11; // numbers of one to be drawn: mean x, y; xx, xy, yy, determinant of S S^T; four colours; weight
const HALF_GAIN = 64; // lifts weights out of the range in which a float of 16 bits has few bits left,
const HALF_MOST = 1024; // but one not beyond this: many are added, and such floats end at 65504

/** Whether a picture has an alpha channel, its last one. */
const hasAlpha = (image) => image.channels === 2 || image.channels === 4;

/** Colours of a picture's channels as red, green, blue, alpha. */
function toRgba(image, values, at, out, to) {
  const gray = image.channels < 3;
  for (let c = 0; c < 3; c++) out[to + c] = values[at + (gray ? 0 : c)];
  out[to + 3] = hasAlpha(image) ? values[at + image.channels - 1] : 1;
}

/** Indices of the Gaussians of the first `layers` layers, the largest first. */
export function largestFirst(image, layers = image.layers.length) {
  const end = image.layers.slice(0, layers).reduce((sum, count) => sum + count, 0);
  const scales = image.logScales;
  const size = (i) => scales[2 * i] + scales[2 * i + 1];
  return Int32Array.from({ length: end }, (_, i) => i).sort((i, j) => size(j) - size(i) || i - j);
}

/** `[K, EACH]` numbers of the Gaussians `order` `[K]`. */
function instancesOf(image, order) {
  const { means, logScales, logWeights, thetas, colors, channels } = image;
  const out = new Float32Array(EACH * order.length);
  order.forEach((i, place) => {
    const a = Math.exp(2 * logScales[2 * i]);
    const b = Math.exp(2 * logScales[2 * i + 1]);
    const cos = Math.cos(thetas[i]);
    const sin = Math.sin(thetas[i]);
    const sigma = [a * cos * cos + b * sin * sin, (a - b) * cos * sin, a * sin * sin + b * cos * cos, a * b];
    out.set([means[2 * i], means[2 * i + 1], ...sigma], EACH * place);
    toRgba(image, colors, channels * i, out, EACH * place + 6);
    out[EACH * place + 10] = Math.exp(logWeights[i]);
  });
  return out;
}

/** A set that is ready to be drawn, by whatever draws it. */
function sceneOf(image, order) {
  const background = [0, 0, 0, 0];
  toRgba(image, image.background, 0, background, 0);
  const tau = Math.exp(-(image.cutoff ** 2) / 2);
  const averaged = image.blend === "weighted_average";
  const instances = instancesOf(image, order);
  const most = Math.exp(image.logWeights.reduce((all, one) => Math.max(all, one), 0));
  return { image, background, tau, averaged, alpha: hasAlpha(image), instances, most };
}

// Grain: a pattern that repeats every 256 pixels, times strengths that go linearly from region to region.

let pattern;
/** `[256, 256, 2]` integers, fine and coarse. */
function patternOfGrain() {
  if (pattern) return pattern;
  const noise = [0, 1].map((part) =>
    Float64Array.from({ length: 65536 }, (_, i) => {
      let h = i + 65536 * part;
      h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
      h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
      h ^= h >>> 16;
      return (h & 255) + ((h >>> 8) & 255) + ((h >>> 16) & 255) + (h >>> 24) - 510;
    }),
  );
  const along = (values, weights, step) =>
    values.map((_, i) =>
      weights.reduce((sum, weight, k) => {
        const away = step * (k - (weights.length >> 1));
        const at = step > 1 ? (i + away) & 65535 : (i & 65280) | ((i + away) & 255);
        return sum + weight * values[at];
      }, 0),
    );
  const smooth = (values, weights) => along(along(values, weights, 256), weights, 1);
  const boxes = (values, size) => {
    const ones = Array(size).fill(1);
    return smooth(smooth(values, ones), ones);
  };
  const soft = smooth(noise[0], [1, 2, 1]);
  const [narrow, wide] = [3, 7].map((size) => boxes(noise[1], size));
  const held = (value) => clamp(Math.floor(value + 0.5), -128, 127);
  pattern = new Int16Array(131072);
  for (let i = 0; i < 65536; i++) {
    pattern[2 * i] = held(((16 * noise[0][i] - soft[i]) * 1103) / 2 ** 16);
    pattern[2 * i + 1] = held(((2401 * narrow[i] - 81 * wide[i]) * 25854) / 2 ** 32);
  }
  return pattern;
}

/** `[rows, columns, 2]` deviations for each of the pattern's. */
function strengthsOf({ rows, columns, levels }) {
  const count = rows * columns;
  const strength = (level) => (level ? 2 ** (level / 2 - 1) / 255 / 32 : 0);
  return Float32Array.from({ length: 2 * count }, (_, i) => strength(levels[(i >> 1) + (i & 1) * count]));
}

/** For the centre of each of `size` pixels: [index, weight] of the pattern's pixels, and of `count` regions. */
function tapsOf(begin, end, size, side, count) {
  const step = (end - begin) / size;
  const reach = Math.max(step, 1);
  return Array.from({ length: size }, (_, i) => {
    const place = begin + (i + 0.5) * step - 0.5;
    const near = [];
    for (let at = Math.ceil(place - reach); at <= place + reach; at++) {
      const weight = 1 - Math.abs(at - place) / reach;
      if (weight > 0) near.push([at & 255, weight]);
    }
    const sum = near.reduce((all, [, weight]) => all + weight, 0);
    const region = clamp((place + 0.5) / 2 ** side - 0.5, 0, count - 1);
    const low = Math.floor(region);
    const high = Math.min(low + 1, count - 1);
    const regions = [[low, 1 - region + low], [high, region - low]];
    return { near: near.map(([at, weight]) => [at, weight / sum]), regions };
  });
}

/** What grain adds to the brightness of `[height, width]` pixels of a view. */
function grainOf({ grain }, [left, top, right, bottom], width, height) {
  const out = new Float32Array(width * height);
  if (!grain) return out;
  const noise = patternOfGrain();
  const strengths = strengthsOf(grain);
  const across = tapsOf(left, right, width, grain.side, grain.columns);
  tapsOf(top, bottom, height, grain.side, grain.rows).forEach((row, y) => {
    const mixed = (taps, values, columns) =>
      Float64Array.from({ length: 2 * columns }, (_, i) =>
        taps.reduce((sum, [at, weight]) => sum + weight * values[2 * columns * at + i], 0),
      );
    const [line, strong] = [mixed(row.near, noise, 256), mixed(row.regions, strengths, grain.columns)];
    across.forEach(({ near, regions }, x) => {
      for (const part of [0, 1]) {
        const at = (taps, values) =>
          taps.reduce((sum, [index, weight]) => sum + weight * values[2 * index + part], 0);
        out[y * width + x] += at(near, line) * at(regions, strong);
      }
    });
  });
  return out;
}

/** Draws `[height, width, 4]` bytes, alpha apart, without a GPU. */
function rasterizeScene(scene, view, width, height, count, grained) {
  const { image, instances, tau, background } = scene;
  const [left, top, right, bottom] = view;
  const sx = width / (right - left);
  const sy = height / (bottom - top);
  const f = image.floor ** 2;
  const fx = sx * sx * f;
  const fy = sy * sy * f;
  const gx = Math.max(sx * sx, 1) * f;
  const gy = Math.max(sy * sy, 1) * f;
  const sums = new Float32Array(5 * width * height);
  const reach = image.cutoff;
  for (let at = 0; at < EACH * count; at += EACH) {
    const x = (instances[at] - left) * sx;
    const y = (instances[at + 1] - top) * sy;
    const xx = instances[at + 2] * sx * sx;
    const xy = instances[at + 3] * sx * sy;
    const yy = instances[at + 4] * sy * sy;
    const det = instances[at + 5] * sx * sx * sy * sy;
    const wide = det + gx * yy + gy * xx + gx * gy;
    const [r, g, b, a, weight] = instances.subarray(at + 6, at + EACH);
    const gain = (weight * Math.sqrt((det + fx * yy + fy * xx + fx * fy) / wide)) / (1 - tau);
    const a11 = 1 / Math.sqrt(xx + gx);
    const a22 = 1 / (a11 * Math.sqrt(wide));
    const a21 = (-xy * a11) / Math.sqrt(wide);
    const s = a11 * a11 + a21 * a21;
    const up = reach * Math.sqrt(yy + gy);
    const last = Math.min(height - 1, Math.floor(y + up - 0.5));
    for (let row = Math.max(0, Math.ceil(y - up - 0.5)); row <= last; row++) {
      const dy = row + 0.5 - y;
      const center = x - (a21 * a22 * dy) / s - 0.5;
      const half = Math.sqrt(Math.max(reach * reach * s - (a11 * a22 * dy) ** 2, 0)) / s;
      const end = Math.min(width - 1, Math.floor(center + half));
      for (let column = Math.max(0, Math.ceil(center - half)); column <= end; column++) {
        const dx = column + 0.5 - x;
        const u = a11 * dx;
        const v = a21 * dx + a22 * dy;
        const w = (Math.exp((u * u + v * v) / -2) - tau) * gain;
        if (w <= 0) continue;
        const to = 5 * (row * width + column);
        sums[to] += w * r;
        sums[to + 1] += w * g;
        sums[to + 2] += w * b;
        sums[to + 3] += w * a;
        sums[to + 4] += w;
      }
    }
  }
  const data = new Uint8ClampedArray(4 * width * height);
  const grain = grainOf(grained ? image : {}, view, width, height);
  for (let at = 0, from = 0; at < data.length; at += 4, from += 5)
    for (let c = 0; c < 4; c++) {
      const value = scene.averaged
        ? (sums[from + c] + tau * background[c]) / (sums[from + 4] + tau)
        : sums[from + c] + background[c];
      if (c < 3) data[at + c] = 255 * (clamp(value, 0, 1) + grain[at / 4]);
      else data[at + c] = scene.alpha ? 255 * value : 255;
    }
  return data;
}

/** `[height, width, 4]` bytes (red, green, blue, alpha) of a picture or a part of it, without WebGL. */
export function rasterize(image, { view = wholeOf(image), grain = true, ...size } = {}) {
  const { width = image.width, height = image.height } = size;
  return rasterizeScene(sceneOf(image, largestFirst(image)), view, width, height, image.count, grain);
}

const wholeOf = ({ width, height }) => [0, 0, width, height];

const VERTEX = `#version 300 es
layout(location=0) in vec2 mean; layout(location=1) in vec4 sigma; layout(location=2) in vec4 color;
layout(location=3) in float weight;
uniform highp vec2 size; uniform vec2 scale, offset; uniform float least, reach;
flat out highp vec4 value, placed; flat out highp vec2 more;
void main() {
  float turn = 0.78539816 * float(gl_VertexID);  // an octagon around the support, a circle as yet
  vec2 z = reach * 1.0825 * vec2(cos(turn), sin(turn));
  vec2 square = scale * scale, exact = square * least * least, floors = max(square, 1.) * least * least;
  float xx = sigma.x * square.x, xy = sigma.y * scale.x * scale.y, yy = sigma.z * square.y;
  float det = sigma.w * square.x * square.y;
  float wide = det + floors.x * yy + floors.y * xx + floors.x * floors.y;
  float l11 = sqrt(xx + floors.x), l21 = xy / l11, l22 = sqrt(wide) / l11;
  vec2 at = (mean - offset) * scale, corner = vec2(l11 * z.x, l21 * z.x + l22 * z.y);
  value = color;
  placed = vec4(at, 1. / l11, -l21 / (l11 * l22));
  more = vec2(1. / l22, weight * sqrt((det + exact.x * yy + exact.y * xx + exact.x * exact.y) / wide));
  at += corner + .2 * normalize(corner);  // GPUs move corners by a part of a pixel
  gl_Position = vec4(2. * at.x / size.x - 1., 1. - 2. * at.y / size.y, 0, 1);
}`;
const SUM = (alpha) => `#version 300 es
precision highp float;
flat in vec4 value, placed; flat in vec2 more; uniform float tau, by; uniform highp vec2 size;
layout(location=0) out vec4 sums; ${alpha ? "layout(location=1) out vec4 alphas;" : ""}
void main() {
  vec2 d = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) - placed.xy;
  vec2 z = vec2(placed.z * d.x, placed.w * d.x + more.x * d.y);
  float w = max(exp(-.5 * dot(z, z)) - tau, 0.) * more.y * by;
  sums = vec4(value.rgb * w, w);
  ${alpha ? "alphas = vec4(value.a * w);" : ""}
}`;
const COVER = `#version 300 es
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1, 0, 1); }`;
const DIVIDE = (alpha) => `#version 300 es
precision highp float;
uniform highp sampler2D sums, alphas, pattern, strengths;
uniform vec4 background; uniform float tail, grain; uniform highp vec2 size, scale, offset, regions; out vec4 color;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  vec4 s = texelFetch(sums, at, 0);
  vec4 v = vec4(s.rgb, ${alpha ? "texelFetch(alphas, at, 0).r" : "1."});
  color = clamp(tail > 0. ? (v + tail * background) / (s.a + tail) : v + background, 0., 1.);
  if (grain > 0.) {
    vec2 p = offset + vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) / scale;
    vec2 t = 255. * texture(pattern, p / 256.).rg - 128.;
    color.rgb = clamp(color.rgb + dot(t, texture(strengths, p / regions).rg), 0., 1.);
  }
  ${alpha ? "color.rgb *= color.a;" : "color.a = 1.;"}
}`;

/** What this browser blends in: "float", "half", or "2d" where neither is to be had. */
let able;
export function ability() {
  if (able) return able;
  const gl = document.createElement("canvas").getContext("webgl2");
  const [float, blend, half, lose] = EXTENSIONS.map((name) => gl?.getExtension(name));
  able = float && blend ? "float" : float || half ? "half" : "2d";
  lose?.loseContext(); // pages have few contexts
  return able;
}

const EXTENSIONS = [
  "EXT_color_buffer_float",
  "EXT_float_blend",
  "EXT_color_buffer_half_float",
  "WEBGL_lose_context",
];

/** Draws pictures into a canvas, by WebGL2 or by hand where there is none; only what has changed. */
export class Renderer {
  /** `by` is as `ability` says, or forced; `onrestored` is called after a lost context. */
  constructor(canvas, { by = ability(), onrestored = () => {} } = {}) {
    Object.assign(this, { canvas, by, count: 0, drawn: "", lost: false, version: 0 });
    if (by !== "2d")
      this.gl = canvas.getContext("webgl2", { antialias: false, depth: false, powerPreference: "low-power" });
    if (!this.gl) {
      this.by = "2d";
      this.context = canvas.getContext("2d");
      return;
    }
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // or it is never restored
      this.lost = true;
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this.build();
      if (this.last) this.draw(...this.last);
      onrestored();
    });
    this.build();
  }

  build() {
    const { gl } = this;
    this.lost = false;
    this.drawn = "";
    this.size = "";
    EXTENSIONS.forEach((name) => gl.getExtension(name));
    const program = (vertex, fragment) => {
      const made = gl.createProgram();
      for (const [type, source] of [
        [gl.VERTEX_SHADER, vertex],
        [gl.FRAGMENT_SHADER, fragment],
      ]) {
        const shader = gl.createShader(type);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(made, shader);
      }
      gl.linkProgram(made);
      if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost())
        throw new Error(gl.getProgramInfoLog(made));
      const uniform = new Proxy(
        {},
        { get: (known, name) => (known[name] ??= gl.getUniformLocation(made, name)) },
      );
      return { program: made, uniform };
    };
    const both = (vertex, source) => [false, true].map((alpha) => program(vertex, source(alpha)));
    this.programs = { sum: both(VERTEX, SUM), divide: both(COVER, DIVIDE) };
    this.array = gl.createVertexArray();
    this.buffer = gl.createBuffer();
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    for (const [index, size, offset] of [
      [0, 2, 0],
      [1, 4, 8],
      [2, 4, 24],
      [3, 1, 40],
    ]) {
      gl.enableVertexAttribArray(index);
      gl.vertexAttribPointer(index, size, gl.FLOAT, false, 4 * EACH, offset);
      gl.vertexAttribDivisor(index, 1);
    }
    this.empty = gl.createVertexArray();
    this.most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (this.scene) this.upload();
  }

  upload() {
    const { gl, scene } = this;
    if (!gl || this.lost) return;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, scene.instances, gl.STATIC_DRAW);
    for (const texture of this.grains ?? []) gl.deleteTexture(texture);
    this.grains = [];
    const { grain } = scene.image;
    if (!grain) return;
    const made = (format, type, columns, rows, values, [wrap, small]) => {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      gl.texImage2D(gl.TEXTURE_2D, 0, format, columns, rows, 0, gl.RG, type, values);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, wrap);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, wrap);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, small);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
      if (wrap === gl.REPEAT) gl.generateMipmap(gl.TEXTURE_2D);
      return texture;
    };
    const noise = Uint8Array.from(patternOfGrain(), (value) => value + 128);
    const { rows, columns } = grain;
    this.grains = [
      made(gl.RG8, gl.UNSIGNED_BYTE, 256, 256, noise, [gl.REPEAT, gl.LINEAR_MIPMAP_LINEAR]),
      made(gl.RG16F, gl.FLOAT, columns, rows, strengthsOf(grain), [gl.CLAMP_TO_EDGE, gl.LINEAR]),
    ];
  }

  /** The picture to draw, or the `count` largest Gaussians of its first `layers` layers, with its `grain` or without. */
  show(image, { layers = image.layers.length, count = Infinity, grain = true } = {}) {
    this.grain = grain;
    if (this.scene?.image !== image || this.layers !== layers) {
      this.scene = sceneOf(image, largestFirst(image, layers));
      this.layers = layers;
      this.version++;
      this.upload();
    }
    this.count = Math.min(count, this.scene.instances.length / EACH);
    return this;
  }

  /** Draws a view at a size in device pixels. Whether it had to. */
  draw(view = wholeOf(this.scene.image), width = this.scene.image.width, height = this.scene.image.height) {
    this.last = [view, width, height];
    const key = [this.version, this.count, this.grain, view, width, height].join();
    if (this.lost || !this.scene || key === this.drawn) return false;
    const { canvas } = this;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    if (this.gl) this.drawByGpu(view, width, height);
    else this.drawByHand(view, width, height);
    this.drawn = key;
    return true;
  }

  drawByHand(view, width, height) {
    const { image } = this.scene;
    const covered = (256 * image.overlaps) / (image.width * image.height);
    const by = Math.max(1, Math.sqrt((covered * width * height) / 2e8)); // or it takes seconds
    const [w, h] = [Math.ceil(width / by), Math.ceil(height / by)];
    const pixels = new ImageData(rasterizeScene(this.scene, view, w, h, this.count, this.grain), w, h);
    if (by === 1) return this.context.putImageData(pixels, 0, 0);
    const small = Object.assign(document.createElement("canvas"), { width: w, height: h });
    small.getContext("2d").putImageData(pixels, 0, 0);
    return this.context.drawImage(small, 0, 0, width, height);
  }

  target(width, height) {
    const { gl } = this;
    const half = this.by === "half";
    if (this.size === `${width},${height}`) return;
    this.size = `${width},${height}`;
    for (const texture of this.textures ?? []) gl.deleteTexture(texture);
    gl.deleteFramebuffer(this.frame ?? null);
    this.frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    this.textures = [half ? gl.RGBA16F : gl.RGBA32F, half ? gl.R16F : gl.R32F].map((format, index) => {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
        gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
      gl.texStorage2D(gl.TEXTURE_2D, 1, format, ...(index && !this.scene.alpha ? [1, 1] : [width, height]));
      if (!index || this.scene.alpha)
        gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + index, gl.TEXTURE_2D, texture, 0);
      return texture;
    });
    gl.drawBuffers(this.scene.alpha ? [gl.COLOR_ATTACHMENT0, gl.COLOR_ATTACHMENT1] : [gl.COLOR_ATTACHMENT0]);
  }

  use(made, values) {
    this.gl.useProgram(made.program);
    for (const [name, value] of Object.entries(values))
      this.gl[`uniform${value.length ?? 1}fv`](made.uniform[name], [value].flat());
    return made;
  }

  drawByGpu([left, top, right, bottom], width, height) {
    const { gl, scene, count } = this;
    const { image, tau, averaged, alpha } = scene;
    const which = alpha ? 1 : 0;
    const by = this.by === "half" && averaged ? Math.min(HALF_GAIN, HALF_MOST / scene.most) : 1;
    if (this.ofAlpha !== alpha) this.size = "";
    this.ofAlpha = alpha;
    this.target(width, height);
    gl.viewport(0, 0, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE);
    const size = [width, height];
    const scale = [width / (right - left), height / (bottom - top)];
    const { floor: least, cutoff: reach } = image;
    this.use(this.programs.sum[which], {
      size,
      scale,
      offset: [left, top],
      least,
      reach,
      tau,
      by: by / (1 - tau),
    });
    gl.bindVertexArray(this.array);
    gl.drawArraysInstanced(gl.TRIANGLE_FAN, 0, 8, count);
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const { background } = scene;
    const tail = averaged ? tau * by : 0;
    const { side = 0, columns = 1, rows = 1 } = image.grain ?? {};
    const grain = this.grain && image.grain ? 1 : 0;
    const regions = [columns * 2 ** side, rows * 2 ** side];
    const { uniform } = this.use(this.programs.divide[which], {
      background,
      tail,
      grain,
      size,
      scale,
      offset: [left, top],
      regions,
    });
    [...this.textures, ...this.grains].forEach((texture, index) => {
      gl.activeTexture(gl.TEXTURE0 + index);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(uniform[["sums", "alphas", "pattern", "strengths"][index]], index);
    });
    gl.activeTexture(gl.TEXTURE0);
    gl.bindVertexArray(this.empty);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}

// <gjx-image src="photo.gjx" alt="...">: as <img> is. An <img> inside of it covers it once that has loaded.

const SHEET = `
:host { display: inline-block; position: relative; overflow: clip; min-width: 0; min-height: 0; }
:host([hidden]) { display: none; }
canvas, ::slotted(img), slot { object-fit: inherit; object-position: inherit; }
canvas, ::slotted(img) { position: absolute; inset: 0; width: 100%; height: 100%; }
slot { visibility: hidden; }`;

const elements = new Set(); // on the page, with a picture
let shared; // pages have few contexts: one draws for all

function sharedRenderer() {
  const onrestored = () => elements.forEach((element) => element.paint());
  return (shared ??= new Renderer(document.createElement("canvas"), { onrestored }));
}

export class GjxImage extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ["src", "alt", "loading", "width", "height", "nograin"];

  constructor() {
    super();
    this.internals = this.attachInternals();
    const root = this.attachShadow({ mode: "open" });
    this.sheet = new CSSStyleSheet();
    const fixed = new CSSStyleSheet();
    fixed.replaceSync(SHEET);
    root.adoptedStyleSheets = [fixed, this.sheet];
    const make = (name, part) => Object.assign(root.appendChild(document.createElement(name)), { part });
    this.sizer = make("div", "sizer");
    this.canvas = make("canvas", "canvas");
    this.label = make("span", "alt");
    this.cover = make("slot", "cover");
    this.cover.addEventListener("slotchange", () => this.look());
    this.resized = new ResizeObserver((entries) => {
      const { devicePixelContentBoxSize: device, contentRect: css } = entries.at(-1);
      const box = device?.[0] ?? {
        inlineSize: css.width * devicePixelRatio,
        blockSize: css.height * devicePixelRatio,
      };
      this.box = [box.inlineSize, box.blockSize];
      this.paint();
    });
  }

  get naturalWidth() {
    return this.image?.width ?? 0;
  }
  get naturalHeight() {
    return this.image?.height ?? 0;
  }
  get complete() {
    return !this.src || this.state === "loaded" || this.state === "broken";
  }

  /** When the picture is there, whole; rejects for one that cannot be drawn. */
  decode() {
    const ended = () => (this.state === "loaded" ? Promise.resolve() : Promise.reject(this.error));
    if (this.complete && this.src) return ended();
    return new Promise((resolve) =>
      ["load", "error"].forEach((name) => this.addEventListener(name, resolve, { once: true })),
    ).then(ended);
  }

  connectedCallback() {
    try {
      this.resized.observe(this, { box: "device-pixel-content-box" });
    } catch {
      this.resized.observe(this);
    }
    if (!this.complete) this.start();
    else if (this.image) elements.add(this);
    this.describe();
  }

  disconnectedCallback() {
    this.resized.disconnect();
    this.seen?.disconnect();
    elements.delete(this);
    if (!this.complete) this.fetching?.abort();
  }

  attributeChangedCallback(name, before, after) {
    if (before === after) return;
    if (name === "src" || (name === "loading" && this.state === "waiting")) this.start();
    else if (name === "nograin") this.paint();
    else this.describe();
  }

  /** Loads at once, or when it is about to be seen. */
  start() {
    this.fetching?.abort();
    this.seen?.disconnect();
    Object.assign(this, { state: "waiting", image: undefined, error: undefined });
    elements.delete(this);
    this.label.textContent = "";
    if (!this.isConnected || !this.src) return;
    if (this.loading !== "lazy") return this.load();
    this.seen = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) {
          this.seen.disconnect();
          this.load();
        }
      },
      { rootMargin: "300px" },
    );
    this.seen.observe(this);
  }

  async load() {
    const { signal } = (this.fetching = new AbortController());
    this.state = "loading";
    try {
      let data = new Uint8Array(1 << 14);
      let size = 0;
      let layers = 0;
      let read = 0;
      const response = await fetch(this.src, { signal });
      if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
      const stream = response.body.getReader();
      for (let part; !(part = await stream.read()).done;) {
        if (size + part.value.length > data.length) {
          const more = new Uint8Array(2 * (size + part.value.length));
          more.set(data);
          data = more;
        }
        data.set(part.value, size);
        size += part.value.length;
        if (size > LIMITS.fileBytes) refuse(`got more than ${LIMITS.fileBytes} bytes`);
        const whole = countLayers(data.subarray(0, size));
        if (whole > layers) {
          this.show(decode(data.subarray(0, size), { partial: true }));
          [layers, read] = [whole, size];
        }
      }
      if (read < size || !this.image?.whole) this.show(decode(data.subarray(0, size)));
      this.state = "loaded";
      this.dispatchEvent(new Event("load"));
    } catch (error) {
      if (signal.aborted) return;
      Object.assign(this, { state: "broken", image: undefined, error });
      elements.delete(this);
      this.canvas.width = this.canvas.height = 0;
      this.describe();
      this.dispatchEvent(new ErrorEvent("error", { message: error.message, error }));
    }
  }

  show(image) {
    this.image = image;
    if (this.isConnected) elements.add(this);
    this.describe();
    this.paint();
  }

  /** Size, role and words follow from the attributes and the picture. */
  describe() {
    const [width, height] = ["width", "height"].map((name) => parseInt(this.getAttribute(name)));
    const natural = this.image ?? { width, height };
    const rules = [];
    if (width >= 0) rules.push(`width: ${width}px`);
    if (height >= 0) rules.push(`height: ${height}px`);
    if (natural.width && natural.height) rules.push(`aspect-ratio: ${natural.width} / ${natural.height}`);
    const sizer = `width: ${this.naturalWidth}px; max-width: 100%`;
    this.sheet.replaceSync(`:host { ${rules.join("; ")} } [part=sizer] { ${sizer} }`);
    const decorative = this.getAttribute("alt") === "";
    this.internals.role = decorative ? "presentation" : "img";
    this.internals.ariaLabel = decorative ? null : this.alt || null;
    this.label.textContent = this.state === "broken" ? this.alt : "";
  }

  /** Device pixels that the whole picture takes, by object-fit. */
  extent() {
    const [bw, bh] = this.box;
    const { width, height } = this.image;
    const by = [bw / width, bh / height];
    const fit = getComputedStyle(this).objectFit;
    if (fit === "fill") return [bw, bh];
    const contained = Math.min(...by);
    const scale =
      { contain: contained, cover: Math.max(...by), "scale-down": Math.min(contained, 1) }[fit] ?? 1;
    return [width * scale, height * scale];
  }

  /** Draws what its canvas lacks. */
  paint() {
    if (!this.image || !this.box?.[0] || !this.box[1]) return;
    const whole = this.extent();
    const renderer = sharedRenderer();
    const most = Math.min(
      1,
      (renderer.most ?? 8192) / Math.max(...whole),
      4096 / Math.sqrt(whole[0] * whole[1]),
    );
    const [width, height] = whole.map((length) => Math.max(1, Math.round(length * most)));
    const { canvas } = this;
    const grain = !this.hasAttribute("nograin");
    const painted = this.painted === this.image && this.grained === grain;
    if (painted && canvas.width === width && canvas.height === height) return;
    renderer.drawn = ""; // it keeps no picture
    renderer.show(this.image, { grain }).draw(undefined, width, height);
    if (renderer.lost) return; // painted when it is restored
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(renderer.canvas, 0, 0);
    Object.assign(this, { painted: this.image, grained: grain });
  }

  /** Shows an image inside once it is there. */
  look() {
    const images = this.cover.assignedElements().filter((element) => element.localName === "img");
    const there = images.some((image) => image.complete && image.naturalWidth > 0);
    this.cover.style.visibility = there ? "visible" : "";
    for (const image of there ? [] : images)
      image.addEventListener("load", () => this.look(), { once: true });
  }
}

for (const name of ["src", "alt", "loading"])
  Object.defineProperty(GjxImage.prototype, name, {
    get() {
      return this.getAttribute(name) ?? "";
    },
    set(value) {
      this.setAttribute(name, value);
    },
  });

if (globalThis.customElements && !customElements.get("gjx-image"))
  customElements.define("gjx-image", GjxImage);
