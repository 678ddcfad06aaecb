// Pictures of 2D Gaussians on a page: reads .gjx files, draws them at any zoom, and defines <gjx-image>.
//
//   import { decode, Renderer } from "./gjx.js";
//   new Renderer(canvas).show(decode(await (await fetch("photo.gjx")).arrayBuffer())).draw();
//
// One module without dependencies; decode and rasterize run without a browser too. The format is docs/format.md.

// What a reader accepts. `numbers` are colours of all channels, `overlaps` Gaussians met in tiles of 16 x 16 pixels.
export const LIMITS = {
  fileBytes: 2 ** 28, pixels: 2 ** 27, gaussians: 2 ** 22, numbers: 2 ** 25, overlaps: 2 ** 24, channels: 32,
};

/** Bytes that are no whole .gjx file within the limits; the message says what is wrong. */
export class FormatError extends Error {
  name = "FormatError";
}

const refuse = (message) => {
  throw new FormatError(message);
};
const damaged = (what) => refuse(`damaged: ${what} is out of range`);

// Integers. All of them are below 2^53, so that double precision holds them exactly; those that may pass 2^31 are
// divided and never shifted.

const VERSION = 2;
const F = [65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194]; // 2^(i / 8) in 1 / 2^16
const power = (eighths) => Math.floor(F[eighths & 7] * 2 ** (eighths >> 3));
const stepOf = (code) => 2 ** (code / 8 - 16);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const bits = (value, most) => Math.min(value > 1 ? 32 - Math.clz32(value) : value, most);

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
  constructor(data, begin, end, p, n) {
    Object.assign(this, { data, begin, at: begin, end, p, n, low: 0, high: 2 ** 32 - 1, code: 0 });
    for (let i = 0; i < 4; i++) this.code = this.code * 256 + this.byte();
  }

  byte() {
    const at = this.at++;
    return at < this.end ? this.data[at] : 0;
  }

  raw(p) {
    const middle = this.low + Math.floor(((this.high - this.low) * p) / 65536);
    const bit = this.code <= middle ? 1 : 0;
    if (bit) this.high = middle;
    else this.low = middle + 1;
    while ((this.low ^ this.high) >>> 24 === 0) {
      this.low = (this.low << 8) >>> 0;
      this.high = ((this.high << 8) | 255) >>> 0;
      this.code = ((this.code << 8) | this.byte()) >>> 0;
    }
    return bit;
  }

  bit(model) {
    const p = this.p[model], n = this.n[model], bit = this.raw(p);
    this.p[model] = clamp(p + Math.floor(((65536 * bit - p) * RATES[n]) / 65536), 64, 65472);
    if (n < 64) this.n[model] = n + 1;
    return bit;
  }

  even(count) {
    let value = 0;
    for (let i = 0; i < count; i++) value = 2 * value + this.raw(32768);
    return value;
  }

  uniform(n) {
    let value = 0;
    while (n > 1) {
      const upper = n >> 1;
      if (this.raw(Math.floor((upper * 65536) / n))) {
        value += n - upper;
        n = upper;
      } else n -= upper;
    }
    return value;
  }

  magnitude(model) {
    for (let i = 0; i < 20; i++) if (!this.bit(model + i)) return i;
    let e = 0;
    while (this.raw(32768)) if (++e > 32) damaged("a number of bits");
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
function readLength(data, at, end) {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    if (at >= end) return null;
    const byte = data[at++];
    value += (byte & 127) * 128 ** i;
    if (byte < 128) return value < 2 ** 32 ? [value, at] : refuse("damaged: a length has too many bits");
  }
  return refuse("damaged: a length has too many bits");
}

/** Chunks {kind, begin, end, size} as far as they are whole, with right check sums unless `quickly`. */
function readChunks(data, quickly) {
  if ([0x8b, 0x47, 0x4a, 0x58].some((byte, i) => data[i] !== byte)) refuse("not a .gjx file: its signature is missing");
  const chunks = [];
  let at = 4;
  for (let found; at < data.length; ) {
    found = readLength(data, at + 1, data.length);
    if (!found || found[0] + found[1] + 4 > data.length) return { chunks, whole: false };
    const begin = found[1], end = begin + found[0];
    const sum = new DataView(data.buffer, data.byteOffset + end).getUint32(0);
    if (!quickly && sum !== crc(data, at, end)) refuse(`damaged: the check sum of the chunk at byte ${at} is wrong`);
    chunks.push({ kind: data[at], begin, end, size: end + 4 - at });
    at = end + 4;
  }
  return { chunks, whole: true };
}

const bytesOf = (data) =>
  ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);

/** How many layers are whole in the beginning of a file. Throws FormatError if that is no beginning of one. */
export function countLayers(data) {
  data = bytesOf(data);
  return data.length < 4 ? 0 : readChunks(data, true).chunks.filter((chunk) => chunk.kind === 0x4c).length;
}

function readHeader(data, { begin, end }, limits) {
  const view = new DataView(data.buffer, data.byteOffset + begin, end - begin);
  if (view.byteLength < 21) refuse("damaged: the header is too short");
  const [version, least] = [view.getUint8(0), view.getUint8(1)];
  if (least > VERSION) refuse(`got a file for readers of version ${least} and later, expected ${VERSION}`);
  if (version < VERSION) refuse(`got a file of version ${version}, which is no longer read; encode it anew`);
  const header = {
    version,
    height: view.getUint32(2),
    width: view.getUint32(6),
    channels: view.getUint8(10),
    layers: view.getUint8(11),
    blend: view.getUint8(12),
    cutoff: view.getUint16(13),
    floor: view.getUint16(15),
    steps: [17, 18, 19, 20].map((at) => view.getUint8(at)),
  };
  const ranges = {
    height: [1, limits.pixels], width: [1, limits.pixels], channels: [1, limits.channels], layers: [1, 4],
    blend: [0, 1], cutoff: [500, 8000], floor: [20, 4000],
  };
  for (const [name, [low, high]] of Object.entries(ranges))
    if (header[name] < low || header[name] > high)
      refuse(`got a header with ${name} ${header[name]}, expected ${low} to ${high}`);
  if (header.height * header.width > limits.pixels)
    refuse(`got ${header.width} x ${header.height} pixels, expected at most ${limits.pixels}`);
  if (view.byteLength !== 21 + 2 * header.channels) refuse(`damaged: a header of ${view.byteLength} bytes`);
  header.background = Array.from({ length: header.channels }, (_, c) => view.getInt16(21 + 2 * c));
  return header;
}

/** What the steps amount to, in integers. `bins` is by eighths of an octave of the aspect ratio. */
function gridOf([, logScale, turn]) {
  const scale = power(logScale - 128), turns = BigInt(power(turn - 128));
  const bins = Int32Array.from({ length: 97 }, (_, q) => {
    const count = (turns * BigInt(power(q) - power(-q)) + 2n ** 31n) >> 32n; // up to 2^60
    return count > 4096n ? 4096 : Math.max(Number(count), 1);
  });
  return { bins, eighths: Math.floor((756388 * scale) / 65536), level: Math.floor((141823 * scale) / 65536) };
}

/** Where the even bits of a Morton code lead. */
function gather(code) {
  code &= 0x55555555;
  code = (code | (code >> 1)) & 0x33333333;
  code = (code | (code >> 2)) & 0x0f0f0f0f;
  code = (code | (code >> 4)) & 0x00ff00ff;
  return (code | (code >> 8)) & 0xffff;
}

/** The integers of all layers, one after the other in the same arrays. */
class Layers {
  constructor(header, total) {
    const integers = (each = 1) => new Int32Array(total * each);
    this.header = header;
    this.grid = gridOf(header.steps);
    this.p = new Float64Array(503 + 252 * header.channels).fill(32768);
    this.n = new Uint8Array(this.p.length);
    this.morton = integers();
    this.codes = {
      cells: integers(2), parts: integers(), minor: integers(), ratio: integers(), turn: integers(), bins: integers(),
      levels: integers(), colors: integers(header.channels),
    };
    this.near = integers(4);
    this.weights = integers(4);
    this.angles = integers();
    this.values = Array.from({ length: header.channels }, () => new Float64Array(total));
    this.starts = [0];
    this.spread = 0; // of the last prediction's neighbours
    this.bits = { predictors: 0, position: 0, scale: 0, turn: 0, color: 0 };
  }

  read(data, begin, end, count) {
    const coder = new Coder(data, begin, end, this.p, this.n), { channels } = this.header;
    let before = 0;
    const spent = (field) => {
      this.bits[field] += coder.used() - before;
      before = coder.used();
    };
    if (this.starts.length === 1) {
      const number = () => ({ center: coder.even(26) - 2 ** 25, share: coder.even(8) - 128, slope: coder.even(8) - 128 });
      this.predictors = Array.from({ length: 2 + channels }, number);
      spent("predictors");
    }
    const first = this.starts.at(-1), last = first + count;
    this.readPositions(coder, first, last);
    spent("position");
    this.findNeighbors(first, last);
    this.readScales(coder, first, last);
    spent("scale");
    for (let i = first; i < last; i++) this.readTurn(coder, i);
    spent("turn");
    this.readColors(coder, first, last);
    spent("color");
    this.starts.push(last);
  }

  readPositions(coder, first, last) {
    const { cells, parts } = this.codes;
    let morton = 0, context = 128;
    for (let i = first; i < last; i++) {
      const size = coder.magnitude(20 * Math.min(context >> 4, 15));
      if (size > 32) damaged("a position");
      morton += size < 2 ? size : (2 + coder.bit(320 + size)) * 2 ** (size - 2) + coder.even(size - 2);
      if (morton >= 2 ** 30) damaged("a position");
      context += (16 * size - context) >> 2;
      this.morton[i] = morton;
      cells[2 * i] = gather(morton);
      cells[2 * i + 1] = gather(morton >> 1);
    }
    for (let i = first; i < last; i++) parts[i] = coder.even(6);
  }

  findNeighbors(first, last) {
    const { near, weights, morton, starts, codes: { cells } } = this;
    const places = starts.slice(0, -1), apart = new Float64Array(4), found = new Int32Array(4);
    for (let i = first; i < last; i++) {
      const x = cells[2 * i], y = cells[2 * i + 1];
      apart.fill(Infinity);
      const consider = (j) => {
        const dx = cells[2 * j] - x, dy = cells[2 * j + 1] - y, d = dx * dx + dy * dy;
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
        const low = Math.max(places[layer] - 6, starts[layer]), high = Math.min(places[layer] + 6, starts[layer + 1]);
        for (let j = low; j < high; j++) consider(j);
      }
      for (let k = 0; k < 4; k++) {
        near[4 * i + k] = apart[k] < Infinity ? found[k] : 0;
        weights[4 * i + k] = Math.floor(65536 / (1 + apart[k]));
      }
    }
  }

  /** The prediction without the slope's part; leaves the neighbours' spread. */
  predict({ center, share }, values, i) {
    const { near, weights } = this, at = 4 * i;
    const w0 = weights[at], w1 = weights[at + 1], w2 = weights[at + 2], w3 = weights[at + 3], t = w0 + w1 + w2 + w3;
    this.spread = 0;
    if (t === 0) return center;
    const a = values[near[at]], b = values[near[at + 1]], c = values[near[at + 2]], d = values[near[at + 3]];
    const m = Math.floor((w0 * a + w1 * b + w2 * c + w3 * d + (t >> 1)) / t);
    const off = w0 * Math.abs(a - m) + w1 * Math.abs(b - m) + w2 * Math.abs(c - m) + w3 * Math.abs(d - m);
    this.spread = Math.floor(off / t);
    return center + Math.floor((share * (m - center)) / 32);
  }

  readScales(coder, first, last) {
    const { minor, ratio } = this.codes, [ofMinor, ofRatio] = this.predictors;
    for (let i = first; i < last; i++) {
      const predicted = this.predict(ofMinor, minor, i);
      const value = predicted + coder.signed(353 + 21 * bits(this.spread, 2));
      if (Math.abs(value) > 8192) damaged("a scale");
      minor[i] = value;
    }
    let least = 0;
    for (let i = first; i < last; i++) {
      const predicted = this.predict(ofRatio, ratio, i) + ((ofRatio.slope * minor[i]) >> 5);
      const value = predicted + coder.signed(416 + 21 * bits(this.spread, 2));
      if (Math.abs(value) > 8192) damaged("a scale");
      ratio[i] = value;
      least = Math.min(least, value);
    }
    if (least < 0) damaged("a scale");
  }

  readTurn(coder, i) {
    const { ratio, turn, bins } = this.codes;
    const count = this.grid.bins[Math.min(Math.floor((ratio[i] * this.grid.eighths + 32768) / 65536), 96)];
    bins[i] = count;
    if (count > 1) {
      const start = this.weights[4 * i] ? Math.floor((this.angles[this.near[4 * i]] * count) / 65536) : 0;
      let apart;
      if (count < 8) apart = coder.uniform(count);
      else {
        let node = 1;
        for (let k = 0; k < 3; k++) node = 2 * node + coder.bit(479 + node);
        const low = ((node - 8) * count + 7) >> 3, high = ((node - 7) * count + 7) >> 3;
        apart = low + coder.uniform(high - low);
      }
      turn[i] = (start + apart) % count;
    }
    this.angles[i] = Math.floor((65536 * turn[i]) / count);
  }

  readColors(coder, first, last) {
    const { minor, ratio, levels, colors } = this.codes, { channels } = this.header;
    const units = new Int32Array(last - first), classes = new Uint8Array(last - first);
    for (let i = first; i < last; i++) {
      const level = clamp(-Math.floor(((2 * minor[i] + ratio[i]) * this.grid.level + 32768) / 65536), -24, 12);
      levels[i] = level;
      units[i - first] = Math.floor((F[2 * (level & 3)] * 1024) / 2 ** (16 - (level >> 2)));
    }
    for (let k = 0; k < channels; k++) {
      const values = this.values[k], predictor = this.predictors[2 + k];
      for (let i = first; i < last; i++) {
        const unit = units[i - first], predicted = this.predict(predictor, values, i);
        const context = 4 * bits(Math.floor(this.spread / unit), 2) + classes[i - first];
        const surprise = coder.signed(503 + 252 * k + 21 * context);
        const value = Math.floor((predicted + (unit >> 1)) / unit) + surprise;
        if (Math.abs(value) > 1048576) damaged("a colour");
        colors[channels * i + k] = value;
        values[i] = value * unit;
        classes[i - first] = bits(Math.abs(surprise), 3);
      }
    }
  }
}

/**
 * The picture in a file: its header, `codes` (its integers), and what they stand for, of N Gaussians: `means` [N, 2]
 * pixels, `logScales` [N, 2] (major, minor), `thetas` [N] radians, `colors` [N, C]; `layers` are counts of Gaussians.
 *
 * With `partial` a file that was cut off is read as far as its layers are whole. Throws FormatError, and nothing else,
 * for whatever is not such a file or exceeds the `limits`.
 */
export function decode(data, { partial = false, limits = {} } = {}) {
  limits = { ...LIMITS, ...limits };
  data = bytesOf(data);
  if (data.length > limits.fileBytes) refuse(`got ${data.length} bytes, expected at most ${limits.fileBytes}`);
  const { chunks, whole } = readChunks(data);
  if (chunks[0]?.kind !== 0x48) refuse("damaged: no header");
  const header = readHeader(data, chunks[0], limits), found = sorted(data, chunks, header);
  if (!partial && (!whole || found.bodies.length < header.layers))
    refuse(`cut off: ${found.bodies.length} of ${header.layers} layers are whole`);
  if (!found.bodies.length) refuse("cut off before the first layer's end");
  const counted = found.bodies.map(({ begin, end }) => {
    const [count, start] = readLength(data, begin, end) ?? refuse("damaged: a layer without a count");
    if (count < 1 || count > end - start) refuse(`got a layer of ${count} Gaussians in ${end - start} bytes`);
    return { count, start, end };
  });
  const total = counted.reduce((sum, { count }) => sum + count, 0);
  if (total > limits.gaussians || total * header.channels > limits.numbers)
    refuse(`got ${total} Gaussians, expected at most ${limits.gaussians}`);
  const layers = new Layers(header, total);
  for (const { count, start, end } of counted) layers.read(data, start, end, count);
  const blend = ["weighted_average", "accumulated_sum"][header.blend];
  const image = {
    ...header, blend, cutoff: header.cutoff / 1000, floor: header.floor / 1000,
    background: header.background.map((value) => value / 1000),
    whole: whole && found.bodies.length === header.layers, count: total, layers: counted.map(({ count }) => count),
    codes: layers.codes, bits: layers.bits, sizes: found.sizes, metadata: found.metadata, bytes: data.length,
    ...meaning(header, layers.codes, total),
  };
  checkDrawable(image, limits);
  return image;
}

/** Chunks by what they are; refuses those that a reader may not skip. */
function sorted(data, chunks, header) {
  const names = { 0xc5: "exif", 0xc9: "icc", 0xd4: "text" };
  const found = { bodies: [], metadata: {}, sizes: [["header", chunks[0].size]] };
  for (const chunk of chunks.slice(1)) {
    const name = names[chunk.kind];
    if (chunk.kind === 0x4c) found.bodies.push(chunk);
    else if (name) found.metadata[name] = data.slice(chunk.begin, chunk.end);
    else if (chunk.kind < 128) refuse(`got a chunk of kind ${chunk.kind}, which this version may not skip`);
    const label = chunk.kind === 0x4c ? `layer ${found.bodies.length}` : (name ?? `unknown ${chunk.kind}`);
    found.sizes.push([label, chunk.size]);
  }
  if (found.bodies.length > header.layers) refuse(`damaged: ${found.bodies.length} layers, expected ${header.layers}`);
  return found;
}

/** What the integers stand for. */
function meaning({ height, width, channels, steps }, codes, total) {
  const [position, scale, , color] = steps.map(stepOf);
  const means = new Float32Array(2 * total), logScales = new Float32Array(2 * total);
  const thetas = new Float32Array(total), colors = new Float32Array(channels * total);
  const dct = Float64Array.from({ length: channels * channels }, (_, at) => {
    const k = Math.floor(at / channels), c = at % channels;
    return Math.cos((Math.PI * k * (2 * c + 1)) / (2 * channels)) * Math.sqrt((k ? 2 : 1) / channels);
  });
  for (let i = 0; i < total; i++) {
    const minor = codes.minor[i] * scale, major = (codes.minor[i] + codes.ratio[i]) * scale;
    if (major > 12 || minor < -12) damaged("a scale");
    const theta = (codes.turn[i] * Math.PI) / codes.bins[i], cos = Math.cos(theta), sin = Math.sin(theta);
    const a = Math.exp(2 * major), b = Math.exp(2 * minor), xx = a * cos * cos + b * sin * sin;
    const stretch = xx * Math.exp(-major - minor), slope = ((a - b) * cos * sin) / xx;
    let split = 0;
    for (const k of [1, 2, 3]) split += (stretch >= 2 ** (2 * k - 1)) - (stretch < 2 ** (1 - 2 * k));
    const rows = 2 ** (3 + split), column = Math.floor(codes.parts[i] / rows), row = codes.parts[i] % rows;
    const x = (column + 0.5) / 2 ** (3 - split), rise = (row + 0.5) / rows + slope * (x - 0.5);
    means[2 * i] = (codes.cells[2 * i] + x) * 8 * position - width / 16;
    means[2 * i + 1] = (codes.cells[2 * i + 1] + rise - Math.floor(rise)) * 8 * position - height / 16;
    logScales.set([major, minor], 2 * i);
    thetas[i] = theta;
    const unit = color * 2 ** (codes.levels[i] / 4);
    for (let c = 0; c < channels; c++) {
      let sum = 0;
      for (let k = 0; k < channels; k++) sum += codes.colors[channels * i + k] * dct[channels * k + c];
      colors[channels * i + c] = sum * unit;
      if (!(Math.abs(sum * unit) <= 1e4)) damaged("a colour");
    }
  }
  return { means, logScales, thetas, colors };
}

/** Refuses a set that meets too many tiles. */
function checkDrawable({ height, width, cutoff, floor, count, means, logScales }, limits) {
  let overlaps = 0;
  for (let i = 0; i < count; i++) {
    const radius = cutoff * Math.hypot(Math.exp(logScales[2 * i]), floor);
    const met = (at, size) => {
      const last = (size - 1) >> 4, mean = means[2 * i + at];
      const low = clamp(Math.floor((mean - radius) / 16), 0, last), high = Math.floor((mean + radius) / 16);
      return Math.max(clamp(high, -1, last) - low + 1, 0);
    };
    overlaps += met(0, width) * met(1, height);
  }
  if (overlaps > limits.overlaps) refuse(`got ${overlaps} Gaussians in tiles, expected at most ${limits.overlaps}`);
}
