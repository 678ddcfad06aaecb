// The viewer's page: pan, zoom, ellipses, the original under a wipe, and where the bytes go.

import { decode, largestFirst, Renderer } from "./gjx.js";

const MOST_SCALE = 100; // device pixels for a pixel of the picture
const at = (id) => document.getElementById(id);
const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const bytesOf = (text) => Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const stage = at("stage");
const frame = document.querySelector(".frame");
const outlines = at("outlines");
let renderer = new Renderer(at("picture"));
let image, order, pane, picked, due; // pane: device pixels; picked: {index, share}
let view = { x: 0, y: 0, scale: 1, fitted: true }; // the point in the middle; device pixels for the picture's

// The picture and where it is.

function open(data, name) {
  at("message").textContent = "";
  try {
    image = decode(data);
  } catch (error) {
    at("message").textContent = `${name} cannot be drawn: ${error.message}`;
    if (!image) at("picture").parentElement.setAttribute("aria-label", at("message").textContent);
    return;
  }
  at("name").textContent = document.title = name;
  frame.setAttribute("aria-label", `${name}, a picture of ${image.width} by ${image.height} pixels`);
  const bpp = (8 * image.bytes) / (image.width * image.height);
  at("facts").textContent =
    `${image.width} × ${image.height} pixels · ${number(image.count)} Gaussians · ` +
    `${number(image.bytes)} bytes · ${number(bpp, 3)} bits a pixel`;
  at("layers").max = at("layers").value = image.layers.length;
  at("layering").hidden = image.layers.length === 1;
  at("graining").hidden = !image.grain;
  at("count").value = 1000;
  picked = undefined;
  choose();
  tellBytes();
  tellPicked();
  fit();
}

/** The Gaussians that are shown. */
function choose() {
  order = largestFirst(image, Number(at("layers").value));
  const share = at("count").value / 1000; // of the slider; a cube, so that few are told apart
  const count = share === 1 ? order.length : Math.max(1, Math.round(order.length * share ** 3));
  order = order.subarray(0, count);
  at("counted").textContent =
    `${number(count)} of ${number(image.count)}` +
    (image.layers.length > 1 ? `, ${at("layers").value} of ${image.layers.length} layers` : "");
  at("count").setAttribute("aria-valuetext", at("counted").textContent);
  ask();
}

const fitting = () => Math.min(pane.width / image.width, pane.height / image.height, MOST_SCALE);

function fit() {
  view.fitted = true;
  ask();
}

/** Zooms so that the point under (x, y), device pixels of the pane, stays there. */
function zoomTo(scale, x = pane.width / 2, y = pane.height / 2) {
  const before = view.scale;
  scale = clamp(scale, Math.min(fitting(), 1) / 4, MOST_SCALE);
  const move = 1 / before - 1 / scale;
  Object.assign(view, {
    fitted: false,
    scale,
    x: view.x + (x - pane.width / 2) * move,
    y: view.y + (y - pane.height / 2) * move,
  });
  ask();
}

function pan(dx, dy) {
  Object.assign(view, { fitted: false, x: view.x - dx / view.scale, y: view.y - dy / view.scale });
  ask();
}

/** The upper left corner of the picture, on the pane's grid of device pixels. */
function origin() {
  return [
    Math.round(pane.width / 2 - view.x * view.scale),
    Math.round(pane.height / 2 - view.y * view.scale),
  ];
}

/** The picture's point under a pointer. */
function pointUnder(event) {
  const box = frame.parentElement.getBoundingClientRect();
  const by = pane.width / box.width;
  const [left, top] = origin();
  return [
    ((event.clientX - box.left) * by - left) / view.scale,
    ((event.clientY - box.top) * by - top) / view.scale,
  ];
}

// Drawing: once a frame at most, and only what has changed.

function ask() {
  due ??= requestAnimationFrame(() => {
    due = undefined;
    if (image && pane?.width && pane.height) draw();
  });
}

function draw() {
  if (view.fitted) Object.assign(view, { scale: fitting(), x: image.width / 2, y: image.height / 2 });
  view.x = clamp(view.x, 0, image.width);
  view.y = clamp(view.y, 0, image.height);
  const { scale } = view;
  const [left, top] = origin();
  const ratio = pane.ratio;
  const low = [Math.max(left, 0), Math.max(top, 0)];
  const high = [
    Math.min(pane.width, left + Math.round(image.width * scale)),
    Math.min(pane.height, top + Math.round(image.height * scale)),
  ];
  const size = [Math.max(1, high[0] - low[0]), Math.max(1, high[1] - low[1])];
  const part = [0, 1, 2, 3].map((i) => (low[i % 2] + (i > 1 ? size[i % 2] : 0) - [left, top][i % 2]) / scale);
  const box = frame.parentElement.getBoundingClientRect(); // the picture must not begin within a device pixel
  const [dx, dy] = [box.left, box.top].map((edge) => Math.round(edge * ratio) / ratio - edge);
  place(frame, low[0] / ratio + dx, low[1] / ratio + dy, size[0] / ratio, size[1] / ratio);
  const shown = { layers: Number(at("layers").value), count: order.length, grain: at("grain").checked };
  renderer.show(image, shown).draw(part, ...size);
  drawOutlines(part, ...size);
  const original = at("original");
  place(
    original,
    left / ratio + dx,
    top / ratio + dy,
    (image.width * scale) / ratio,
    (image.height * scale) / ratio,
  );
  original.style.imageRendering = scale >= 3 ? "pixelated" : "auto";
  tellZoom(`${number(100 * scale, scale < 0.1 ? 1 : 0)}%`);
}

function place(element, left, top, width, height) {
  Object.assign(element.style, {
    left: `${left}px`,
    top: `${top}px`,
    width: `${width}px`,
    height: `${height}px`,
  });
}

let told; // the timer by which a zoom is told once it rests
function tellZoom(zoom) {
  if (at("zoom").textContent === zoom) return;
  at("zoom").textContent = zoom;
  clearTimeout(told);
  told = setTimeout(() => (at("status").textContent = `Zoom ${zoom}`), 700);
}

/** Standard deviations and angle with the floor, in the picture's pixels. */
function ellipseOf(i) {
  const scale = (k) => Math.hypot(Math.exp(image.logScales[2 * i + k]), image.floor);
  return {
    x: image.means[2 * i],
    y: image.means[2 * i + 1],
    major: scale(0),
    minor: scale(1),
    theta: image.thetas[i],
  };
}

function colorOf(i) {
  const { channels, colors } = image;
  const gray = channels < 3;
  const byte = (c) => Math.round(255 * clamp(colors[channels * i + (gray ? 0 : c)], 0, 1));
  return [0, 1, 2].map(byte);
}

let outlined; // what was drawn last
function drawOutlines(part, width, height) {
  const all = at("ellipses").checked;
  const key = [part, width, height, all, order.length, image.bytes, picked?.index].join();
  if (key === outlined) return;
  outlined = key;
  Object.assign(outlines, { width, height });
  const context = outlines.getContext("2d");
  const { scale } = view;
  const trace = (i, sigmas) => {
    const { x, y, major, minor, theta } = ellipseOf(i);
    const reach = sigmas * major * scale;
    const [px, py] = [(x - part[0]) * scale, (y - part[1]) * scale];
    if (px + reach < 0 || py + reach < 0 || px - reach > width || py - reach > height) return false;
    context.beginPath();
    context.ellipse(px, py, reach, sigmas * minor * scale, theta, 0, 2 * Math.PI);
    return true;
  };
  if (all) {
    context.fillStyle = "#000a";
    context.fillRect(0, 0, width, height);
    context.lineWidth = pane.ratio;
    for (const i of order) {
      const [r, g, b] = colorOf(i).map((value) => 76 + 0.7 * value); // dark ones must show on a dark ground
      context.strokeStyle = `rgb(${r} ${g} ${b})`;
      if (trace(i, 1)) context.stroke();
    }
  }
  for (const sigmas of picked ? [1, image.cutoff] : [])
    for (const [color, wide] of [
      ["#000", 3],
      ["#fff", 1.4],
    ]) {
      Object.assign(context, { strokeStyle: color, lineWidth: wide * pane.ratio });
      context.setLineDash(sigmas === 1 ? [] : [5 * pane.ratio, 4 * pane.ratio]);
      if (trace(picked.index, sigmas)) context.stroke();
    }
}

// What is told.

/** The Gaussian that weighs most at a point of the picture, and its share there. */
function pick([x, y]) {
  let total = 0;
  let most = 0;
  let index = -1;
  const tau = Math.exp(-(image.cutoff ** 2) / 2);
  for (const i of order) {
    const { x: mx, y: my, major, minor, theta } = ellipseOf(i);
    const cos = Math.cos(theta);
    const sin = Math.sin(theta);
    const u = (cos * (x - mx) + sin * (y - my)) / major;
    const v = (cos * (y - my) - sin * (x - mx)) / minor;
    const weight = (Math.exp((u * u + v * v) / -2) - tau) * Math.exp(image.logWeights[i]);
    if (weight <= 0) continue;
    total += weight;
    if (weight > most) [most, index] = [weight, i];
  }
  const inside = x >= 0 && y >= 0 && x <= image.width && y <= image.height;
  const before = picked?.index;
  picked = inside && index >= 0 ? { index, share: most / total } : undefined;
  tellPicked();
  if (before !== picked?.index) ask();
}

function tellPicked() {
  const list = at("numbers");
  if (!picked)
    return list.replaceChildren(
      Object.assign(document.createElement("dd"), {
        textContent: "Point at the picture.",
        style: "text-align: left; grid-column: 1 / 3",
      }),
    );
  const { index, share } = picked;
  const { x, y, major, minor, theta } = ellipseOf(index);
  let layer = 0;
  for (let left = index; left >= image.layers[layer]; layer++) left -= image.layers[layer];
  const values = [...image.colors.subarray(image.channels * index, image.channels * (index + 1))];
  const rows = {
    Number: number(index + 1),
    "Place by size": number(order.indexOf(index) + 1),
    Layer: `${layer + 1} of ${image.layers.length}`,
    Centre: `${number(x, 2)}, ${number(y, 2)}`,
    Deviations: `${number(major, 2)} × ${number(minor, 2)} px`,
    Angle: `${number((theta * 180) / Math.PI, 1)}°`,
    Colour: values
      .slice(0, 4)
      .map((value) => number(value, 3))
      .join(", "),
    ...(image.logWeights[index] && { Weight: number(Math.exp(image.logWeights[index]), 2) }),
    "Share here": `${number(100 * share)}%`,
  };
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  list.replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => [make("dt", name), make("dd", value)]),
  );
  const swatch = Object.assign(document.createElement("span"), { className: "key" });
  swatch.style.background = `rgb(${colorOf(index).join(" ")})`;
  list.querySelectorAll("dd")[6].prepend(swatch);
}

const HUES = ["#4a7fd4", "#d9822b", "#3f9a6b", "#b452a4", "#8a8f98", "#c9a227", "#5bb5c9"];

function tellBytes() {
  const labels = { position: "positions", scale: "scales", turn: "angles", color: "colours" };
  if (image.weighted) labels.weight = "weights";
  const rows = Object.entries(labels).map(([name, label]) => [label, image.bits[name] / 8]);
  const told = rows.reduce((sum, [, size]) => sum + size, 0);
  const grain = image.sizes.reduce((sum, [name, size]) => sum + (name === "grain") * size, 0);
  const metadata = image.sizes.filter(([name]) => !/^(header|layer|grain)/.test(name));
  const others = metadata.reduce((sum, [, size]) => sum + size, 0);
  rows.push(["frame and header", image.bytes - told - others - grain]);
  if (grain) rows.push(["grain", grain]);
  if (others) rows.push([`metadata (${metadata.map(([name]) => name).join(", ")})`, others]);
  at("shares").replaceChildren(
    ...rows.map(([, size], i) => {
      const share = document.createElement("div");
      Object.assign(share.style, { background: HUES[i], width: `${(100 * size) / image.bytes}%` });
      return share;
    }),
  );
  const layers = image.sizes.filter(([name]) => image.layers.length > 1 && name.startsWith("layer"));
  const filled = (body, list) =>
    body.replaceChildren(
      ...list.map(([name, size], i) => {
        const row = document.createElement("tr");
        const share = `${number((100 * size) / image.bytes, 1)}%`;
        row.append(
          ...[name, number(size), share].map((text, k) =>
            Object.assign(document.createElement(k ? "td" : "th"), { textContent: text }),
          ),
        );
        row.firstChild.scope = "row";
        if (i < rows.length)
          row.firstChild.prepend(
            Object.assign(document.createElement("span"), {
              className: "key",
              style: `background: ${HUES[i]}`,
            }),
          );
        return row;
      }),
    );
  filled(at("bytes").tBodies[0], [...rows, ...layers]);
}

// The pointer, the keys and the controls.

const pointers = new Map();
let moved = 0; // how far a press has been dragged
let wiping = false;

const inPane = (event) => {
  const box = frame.parentElement.getBoundingClientRect();
  const by = pane.width / box.width;
  const beside = at("reference").getBoundingClientRect(); // the same place of the other pane
  const other =
    stage.dataset.mode === "beside" && (event.clientX > box.right || event.clientY > box.bottom)
      ? beside
      : box;
  return [(event.clientX - other.left) * by, (event.clientY - other.top) * by];
};

stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomTo(
      view.scale * Math.exp(-clamp(event.deltaY * lines, -200, 200) * (event.ctrlKey ? 0.01 : 0.002)),
      ...inPane(event),
    );
  },
  { passive: false },
);

stage.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  stage.setPointerCapture(event.pointerId);
  wiping = event.target === at("handle");
  pointers.set(event.pointerId, inPane(event));
  moved = 0;
  stage.classList.toggle("dragging", !wiping);
});

stage.addEventListener("pointermove", (event) => {
  if (!image || !pane) return;
  const before = pointers.get(event.pointerId);
  const now = inPane(event);
  if (!before) {
    if (event.pointerType !== "touch") pick(pointUnder(event));
    return;
  }
  pointers.set(event.pointerId, now);
  moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (wiping) return setWipe((100 * now[0]) / pane.width);
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    zoomTo(
      (view.scale * apart(now)) / Math.max(apart(before), 1),
      (now[0] + other[0]) / 2,
      (now[1] + other[1]) / 2,
    );
  }
  pan((now[0] - before[0]) / pointers.size, (now[1] - before[1]) / pointers.size);
});

for (const name of ["pointerup", "pointercancel"])
  stage.addEventListener(name, (event) => {
    if (name === "pointerup" && moved < 5 * (pane?.ratio ?? 1) && image && !wiping) pick(pointUnder(event));
    pointers.delete(event.pointerId);
    wiping = false;
    if (!pointers.size) stage.classList.remove("dragging");
  });

stage.addEventListener("pointerleave", () => {
  if (!pointers.size && image && picked) {
    picked = undefined;
    tellPicked();
    ask();
  }
});

stage.addEventListener("dblclick", (event) =>
  zoomTo(view.scale * (event.shiftKey ? 0.5 : 2), ...inPane(event)),
);

const KEYS = {
  "+": () => zoomTo(view.scale * 1.25),
  "=": () => zoomTo(view.scale * 1.25),
  "-": () => zoomTo(view.scale / 1.25),
  0: fit,
  1: () => zoomTo(1),
  ArrowLeft: () => pan(pane.width / 8, 0),
  ArrowRight: () => pan(-pane.width / 8, 0),
  ArrowUp: () => pan(0, pane.height / 8),
  ArrowDown: () => pan(0, -pane.height / 8),
  e: () => at("ellipses").click(),
  g: () => at("grain").click(),
  Enter: () => {
    pick([view.x, view.y]);
    at("status").textContent = at("numbers").innerText.replace(/\n/g, " ");
  },
};

stage.addEventListener("keydown", (event) => {
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!act || !image || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});

function setWipe(percent) {
  percent = clamp(percent, 0, 100);
  at("wipe").value = percent;
  stage.style.setProperty("--wipe", `${percent}%`);
}

function setMode(mode) {
  stage.dataset.mode = mode;
  at("wiping").hidden = mode !== "wipe";
  document.querySelector(`[value=${mode}]`).checked = true;
}

at("modes").addEventListener(
  "change",
  (event) => event.target.name === "mode" && setMode(event.target.value),
);
at("wipe").addEventListener("input", () => setWipe(at("wipe").valueAsNumber));
for (const id of ["count", "layers"]) at(id).addEventListener("input", choose);
for (const id of ["ellipses", "grain"]) at(id).addEventListener("change", ask);
at("in").addEventListener("click", () => zoomTo(view.scale * 1.5));
at("out").addEventListener("click", () => zoomTo(view.scale / 1.5));
at("fit").addEventListener("click", fit);
at("same").addEventListener("click", () => zoomTo(1));
at("theme").addEventListener(
  "change",
  () => (document.documentElement.style.colorScheme = at("theme").value),
);

async function take(file) {
  if (!file) return;
  setMode("file");
  at("modes").hidden = true; // the original is of the file before
  open(new Uint8Array(await file.arrayBuffer()), file.name);
}

at("open").addEventListener("change", () => take(at("open").files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});

new ResizeObserver(() => {
  const box = frame.parentElement.getBoundingClientRect();
  const ratio = devicePixelRatio;
  pane = { width: Math.round(box.width * ratio), height: Math.round(box.height * ratio), ratio };
  ask();
}).observe(frame.parentElement);

// What a machine does, by ?benchmark.

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

async function benchmark(data) {
  at("measured").hidden = false;
  const rows = [];
  const tell = (name, value) => {
    rows.push([name, value]);
    at("speeds").tBodies[0].replaceChildren(
      ...rows.map((cells) => {
        const row = document.createElement("tr");
        row.append(
          ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })),
        );
        return row;
      }),
    );
  };
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  const timed = async (times, work) => {
    const taken = [];
    for (let i = 0; i < times; i++) {
      const began = performance.now();
      work(i);
      taken.push(performance.now() - began);
      if (i % 5 === 4) await pause();
    }
    return median(taken);
  };
  const measured = { by: renderer.by, size: [image.width, image.height], frames: {} };
  tell("drawn by", renderer.by === "2d" ? "hand" : `WebGL2, ${renderer.by}`);
  await pause();
  measured.decode = await timed(30, () => decode(data));
  tell("decode", `${number(measured.decode, 1)} ms`);
  const canvas = document.createElement("canvas");
  const own = new Renderer(canvas);
  const pixel = new Uint8Array(4);
  for (const count of new Set([2000, 10000, image.count].filter((count) => count <= image.count))) {
    own.show(image, { count });
    const ms = await timed(40, (i) => {
      own.draw([i / 64, 0, image.width + i / 64, image.height]); // a little apart, or nothing would be drawn
      own.gl?.readPixels(0, 0, 1, 1, own.gl.RGBA, own.gl.UNSIGNED_BYTE, pixel); // waits until it is done
    });
    measured.frames[count] = 1000 / ms;
    tell(
      `${image.width} × ${image.height}, ${number(count)} Gaussians`,
      `${number(1000 / ms, 1)} frames a second`,
    );
  }
  own.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  at("measured").dataset.measured = JSON.stringify(measured);
}

const asked = new URLSearchParams(location.search);
document.body.classList.toggle("plain", asked.has("plain")); // within another page

const data = bytesOf(at("file").textContent);
const source = at("source").textContent.trim();
at("modes").hidden = !source;
if (source) at("original").src = source;
setMode(source ? "wipe" : "file");
open(data, document.title);
if (image && asked.has("benchmark")) benchmark(data);
