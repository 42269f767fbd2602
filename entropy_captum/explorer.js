// The face of entropy_captum.explorer. Python owns the state; this draws it and sends what the user asks for.
// All places are pixels of the whole image or scene; `view` says which of them are on the canvases.

const OBJECT = "white", MARKED = "#ff2d87", PICKED = "#ffd500", LARGEST = 32, NEAR = 12, OPACITY = 0.8, SHADE = [204, 204, 204, 255];
const FOLLOWED = ["method", "beside", "grid_size", "n_samples", "folder"];
const FORMATS = { png: "PNG", npz: "npz", tif: "GeoTIFF" };
const HELP = "Arrow keys choose an object in that direction, N and Shift and N the next and the one before as one reads, Enter explains it, Shift and Enter add it to several, Escape cancels; plus, minus and zero zoom, Shift and arrow keys move.";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

function labelled(text, control) {
  return make("label", {}, make("span", { textContent: text }), control);
}

function button(text, name = "") {
  const made = make("button", { textContent: text, type: "button", title: name });
  if (name) made.setAttribute("aria-label", name);
  return made;
}

// Traits of type Bytes arrive as DataViews at any offset: copy before looking at them as numbers.
function numbers(view, kind) {
  return view ? new kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)) : new kind(0);
}

// The edges between pixels of h x w that differ, as a path from (left, top) on.
function edges(h, w, differs, left = 0, top = 0) {
  const path = new Path2D();
  const line = (x, y, toX, toY) => { path.moveTo(left + x, top + y); path.lineTo(left + toX, top + toY); };
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const k = y * w + x;
      if (x + 1 < w && differs(k, k + 1)) line(x + 1, y, x + 1, y + 1);
      if (y + 1 < h && differs(k, k + w)) line(x, y + 1, x + 1, y + 1);
    }
  return path;
}

// The objects of an image of ids, each with its middle, or where that is not its own, the nearest of its pixels.
function objectsOf(ids, w) {
  const found = new Map();
  ids.forEach((id, k) => {
    if (!id) return;
    const one = found.get(id) ?? { id, x: 0, y: 0, n: 0 };
    found.set(id, Object.assign(one, { x: one.x + (k % w) + 0.5, y: one.y + Math.floor(k / w) + 0.5, n: one.n + 1 }));
  });
  const all = [...found.values()].map(({ id, x, y, n }) => ({ id, x: x / n, y: y / n }));
  const hollow = new Map(all.filter(({ id, x, y }) => ids[Math.floor(y) * w + Math.floor(x)] !== id).map((one) => [one.id, { ...one, one, least: Infinity }]));
  if (hollow.size) ids.forEach((id, k) => {
    const middle = hollow.get(id);
    if (!middle) return;
    const x = (k % w) + 0.5, y = Math.floor(k / w) + 0.5, away = Math.hypot(x - middle.x, y - middle.y);
    if (away < middle.least) { middle.least = away; Object.assign(middle.one, { x, y }); }
  });
  return all;
}

// Outlines [x, y, x, y, ...] of footprints, or of what is predicted, as objects with a path each.
function objectsOfShapes(shapes) {
  return shapes.map(({ id, rings, middle, point }) => {
    const path = new Path2D();
    for (const ring of rings)
      for (let k = 0; k < ring.length; k += 2) k ? path.lineTo(ring[k], ring[k + 1]) : path.moveTo(ring[k], ring[k + 1]);
    return { id, x: middle[0], y: middle[1], path, point };
  });
}

// The nearest object from a place in a direction, within 45 degrees of it; null for none.
function nextObject(objects, from, [dx, dy]) {
  let best = null, least = Infinity;
  for (const one of objects) {
    const along = (one.x - from.x) * dx + (one.y - from.y) * dy, across = Math.abs((one.x - from.x) * dy) + Math.abs((one.y - from.y) * dx);
    if (one.id !== from.id && along > 0 && across <= along && along + across < least) [best, least] = [one, along + across];
  }
  return best;
}

// The next object as one reads a page, or the one before; the first, or last, where there is none yet.
function objectInOrder(objects, from, back) {
  const order = [...objects].sort((a, b) => a.y - b.y || a.x - b.x), k = order.findIndex(({ id }) => id === from?.id);
  return k < 0 ? order.at(back ? -1 : 0) : order[(k + (back ? -1 : 1) + order.length) % order.length];
}

// A picture (rows x columns) of colours, each four bytes; null is clear.
function painted(rows, columns, colorOf) {
  const canvas = make("canvas", { width: columns, height: rows }), context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) { const color = colorOf(k); if (color) picture.data.set(color, 4 * k); }
  context.putImageData(picture, 0, 0);
  return canvas;
}

// The colour of a value where the largest of either sign is `top`, in a palette of 256 colours from -1 to 1; null for none.
function shaded(value, top, palette) {
  if (!Number.isFinite(value)) return null;
  const k = 4 * Math.round(127.5 * (1 + value / top));
  return palette.subarray(k, k + 4);
}

// A map in parts, each with its own scale: what surrounds the object, and the cells that hold part of it.
function scales(values, own, palettes) {
  const split = own.some(Boolean) && !own.every(Boolean);
  return (split ? [["around it", 0, palettes[0]], ["at the object", 1, palettes[1]]] : [["", null, palettes[0]]])
    .map(([name, which, palette]) => {
      const isIn = (k) => which === null || own[k] === which, [low, high] = range(values.filter((_, k) => isIn(k)));
      return { name, isIn, palette, low, high, top: Math.max(-low, high) || 1 };
    });
}

function range(values) {
  const known = values.filter(Number.isFinite);
  return known.length ? [known.reduce((a, b) => Math.min(a, b), 0), known.reduce((a, b) => Math.max(a, b))] : [0, 0];
}

// Longitude and latitude of a place by those of a grid of places over a box.
function lonlat({ box: [left, top, right, bottom], grid }, x, y) {
  const n = grid.length - 1;
  const u = clamp((x - left) / (right - left), 0, 1) * n, v = clamp((y - top) / (bottom - top), 0, 1) * n;
  const i = Math.min(Math.floor(u), n - 1), j = Math.min(Math.floor(v), n - 1), a = u - i, b = v - j;
  const mix = (c) => (1 - b) * ((1 - a) * grid[j][i][c] + a * grid[j][i + 1][c]) + b * ((1 - a) * grid[j + 1][i][c] + a * grid[j + 1][i + 1][c]);
  return [mix(0), mix(1)];
}

function pictureOf(bytes, type, onload) {
  const picture = new Image(), url = URL.createObjectURL(new Blob([bytes], { type }));
  picture.onload = () => { URL.revokeObjectURL(url); onload(picture); };
  picture.src = url;
}

// The cells of a map (rows x columns over a window) that are set, as a path.
function cellsOf(set, [rows, columns], [left, top, right, bottom]) {
  const path = new Path2D(), width = (right - left) / columns, height = (bottom - top) / rows;
  set.forEach((one, k) => { if (one) path.rect(left + (k % columns) * width, top + Math.floor(k / columns) * height, width, height); });
  return path;
}

// The border of the cells that are set.
function borderOfCells(set, [rows, columns], [left, top, right, bottom]) {
  const path = new Path2D();
  path.addPath(edges(rows, columns, (a, b) => set[a] !== set[b]), new DOMMatrix([(right - left) / columns, 0, 0, (bottom - top) / rows, left, top]));
  return path;
}

function download(name, bytes) {
  const url = URL.createObjectURL(new Blob([bytes]));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function buildPanel(model) {
  const option = (value, textContent, chosen) => make("option", { value, textContent, selected: value === chosen });
  const options = (names, chosen) => names.map((name) => option(name, name || "none", chosen));
  const bind = (control, trait, read) => {
    control.addEventListener("change", () => { model.set(trait, read(control)); model.save_changes(); });
    return control;
  };
  const sizes = (chosen, ...usual) => options([...new Set([...usual, chosen ?? usual[0]])].sort((a, b) => a - b), chosen);
  const panel = {
    method: bind(make("select", {}, ...options(model.get("methods"), model.get("method"))), "method", (c) => c.value),
    beside: make("select"), shown: make("select"),
    grid_size: bind(make("select", {}, option("", "by the object's size", model.get("grid_size") ?? ""), ...sizes(model.get("grid_size"), 4, 8, 12, 16)),
      "grid_size", (c) => (c.value ? Number(c.value) : null)),
    n_samples: bind(make("select", {}, ...sizes(model.get("n_samples"), 4, 8, 16, 32, 64, 128)), "n_samples", (c) => Number(c.value)),
    view: make("select", {}, ...options(["score", "standard error", "image only"], "score")),
    opacity: make("input", { type: "range", min: 0, max: 1, step: 0.05, value: OPACITY }),
    explain: button("Explain"), cancel: button("Cancel"), save: button("Save"), copy: button("Copy as Python"),
    exports: model.get("formats").map((format) => Object.assign(button(FORMATS[format], `download as ${FORMATS[format]}`), { value: format })),
    folder: bind(make("input", { type: "text", value: model.get("folder") }), "folder", (c) => c.value),
    progress: make("progress", { value: 0, max: 1 }),
    message: make("div", { className: "ec-message" }), notices: make("ul", { className: "ec-notices" }),
    code: make("pre", { className: "ec-code", hidden: true, tabIndex: 0 }),
    verdict: make("div", { className: "ec-verdict" }), open: false,
  };
  panel.building = labelled("building", panel.shown);
  panel.shown.addEventListener("change", () => model.send({ kind: "show", number: Number(panel.shown.value), compared: model.get("compared") }));
  panel.beside.addEventListener("change", () => {
    const [kind, value] = panel.beside.value.split(/:(.*)/);
    if (kind === "kept") { model.send({ kind: "show", number: model.get("shown"), compared: Number(value) }); return; }
    if (model.get("compared") >= 0) model.send({ kind: "show", number: model.get("shown"), compared: -1 });
    model.set("beside", value);
    model.save_changes();
  });
  // What may stand beside the map: another method, or what was explained before.
  panel.list = () => {
    const kept = model.get("kept"), shown = model.get("shown"), compared = model.get("compared");
    const methods = ["", ...model.get("methods")].map((name) => make("option", { value: `method:${name}`, textContent: name || "none" }));
    const others = kept.map((name, k) => make("option", { value: `kept:${k}`, textContent: name, disabled: shown < 0 || k === shown }));
    panel.beside.replaceChildren(...methods, ...(others.length > 1 ? [make("optgroup", { label: "explained before" }, ...others)] : []));
    panel.beside.value = compared >= 0 ? `kept:${compared}` : `method:${model.get("beside")}`;
    panel.building.hidden = kept.length < (shown < 0 ? 1 : 2);
    panel.shown.disabled = model.get("running");
    const other = panel.shown.disabled ? "the one that is being explained" : "none";
    panel.shown.replaceChildren(...(shown < 0 ? [make("option", { value: -1, textContent: other })] : []),
      ...kept.map((name, k) => make("option", { value: k, textContent: name })));
    panel.shown.value = shown;
  };
  // What Python sets, the page shows.
  panel.follow = () => {
    panel.list();
    for (const name of FOLLOWED.filter((one) => one !== "beside")) {
      const control = panel[name], value = String(model.get(name) ?? "");
      if (control.options && ![...control.options].some((option) => option.value === value)) control.append(option(value, value));
      control.value = value;
    }
  };
  panel.message.setAttribute("role", "status");
  panel.progress.setAttribute("aria-label", "done so far");
  panel.code.setAttribute("aria-label", "Python that makes this result");
  panel.head = make("div", { className: "ec-head" }, panel.message, panel.progress);
  panel.element = make("div", { className: "ec-panel" }, panel.notices, panel.building, labelled("method", panel.method), labelled("compare with", panel.beside),
    labelled("patches a side", panel.grid_size), labelled("random draws", panel.n_samples),
    make("div", { className: "ec-buttons" }, panel.explain, panel.cancel),
    labelled("show", panel.view), labelled("opacity", panel.opacity), panel.verdict,
    labelled("save to", panel.folder), make("div", { className: "ec-buttons" }, panel.save, ...panel.exports, panel.copy), panel.code);
  return panel;
}

// A canvas with its caption and scale; there are two where two methods are compared.
function buildPane(width, height) {
  const pane = {
    canvas: make("canvas", { width, height, tabIndex: 0 }), caption: make("figcaption"), bars: make("div", { className: "ec-bars" }),
    layer: null, hatched: null, border: null,
  };
  pane.canvas.setAttribute("role", "application");
  pane.element = make("figure", {}, pane.caption, pane.canvas, pane.bars);
  return pane;
}

// The colours of a scale from its lowest to its highest value.
function buildBar({ name, palette, low, high, top }, unit, ground) {
  const colors = painted(1, 256, (k) => shaded(low + ((high - low) * k) / 255, top, palette));
  colors.setAttribute("aria-hidden", "true");
  const strip = make("div", { className: "ec-strip" }, colors), said = (text) => make("span", { textContent: text });
  strip.style.background = ground;
  return make("div", { className: "ec-bar" }, said(name), said(low.toPrecision(2)), strip, said(`${high.toPrecision(2)} ${unit}`));
}

function render({ model, el }) {
  const [h, w] = model.get("size"), isScene = model.get("is_scene");
  const ids = numbers(model.get("ids"), Int32Array);
  const { palettes, other: OTHER, ground: GROUND, hatched: HATCHED, marks: MARKS } = model.get("drawing");
  const width = 768, height = Math.round(width * clamp(h / w, 0.6, 1.3)), whole = Math.min(width / w, height / h);
  const panel = buildPanel(model), panes = [buildPane(width, height), buildPane(width, height)];
  const zoomIn = button("+", "zoom in"), zoomOut = button("−", "zoom out"), showAll = button("whole", "show all");
  const dragging = make("select", {}, make("option", { value: "box", textContent: "draw a box" }), make("option", { value: "move", textContent: "move the picture" }));
  const many = make("span"), several = make("input", { type: "checkbox" });
  const tools = make("div", { className: "ec-tools" }, zoomIn, zoomOut, showAll, labelled("choose several", several), labelled("drag to", dragging), many);
  const hover = make("div", { className: "ec-hover" }), legend = make("ul", { className: "ec-legend" }), row = make("div", { className: "ec-panes" });
  const view = { x: 0, y: 0, scale: whole }, pointers = new Map();
  const outlines = edges(h, ids.length ? w : 0, (a, b) => ids[a] !== ids[b]);
  let objects = objectsOf(ids, w), detail = null, picture = null, chosen = null, beside = null, candidate = null, current = null;
  let drag = null, pinch = null, at = null, looking = 0, asked = false, hasAsked = false, picked = [];
  dragging.value = isScene ? "move" : "box";
  el.append(make("div", { className: "ec-explorer" }, panel.head, make("div", { className: "ec-picture" }, tools, row, legend, hover), panel.element));

  const isCompared = () => Boolean(model.get("other").maps?.length);
  const names = () => [...new Set([model.get("method"), isCompared() ? "" : model.get("beside")])].filter(Boolean);
  const mapOf = (name) => model.get("maps").find((one) => one.method === name);
  const isShown = () => model.get("maps").length > 0 && names().every(mapOf);
  // What each pane shows: a method's map of the chosen place, or one that was explained before, with its own window and outline.
  const sources = () => {
    const other = model.get("other"), title = model.get("title"), window = model.get("window");
    const own = names().map((name) => ({ name, found: mapOf(name), window, region: chosen, title }));
    return isCompared() ? [own[0], { name: other.maps[0].method, found: other.maps[0], window: other.window, region: beside, title: other.title }] : own;
  };
  const active = () => panes.slice(0, names().length + isCompared());

  // Where the picture is smaller than the canvas it is in the middle, else no part of the canvas is empty.
  function move(x, y, scale = view.scale) {
    view.scale = clamp(scale, whole, Math.max(LARGEST, whole));
    const along = (start, size, shown) => (shown >= size ? (size - shown) / 2 : clamp(start, 0, size - shown));
    view.x = along(x, w, width / view.scale);
    view.y = along(y, h, height / view.scale);
    draw();
    showHover();
    if (isScene) { clearTimeout(looking); looking = setTimeout(look, 200); }
  }

  function zoom(factor, px = width / 2, py = height / 2) {
    const scale = clamp(view.scale * factor, whole, Math.max(LARGEST, whole));
    move(view.x + px / view.scale - px / scale, view.y + py / view.scale - py / scale, scale);
  }

  function look() {
    const box = [Math.floor(view.x), Math.floor(view.y), Math.ceil(view.x + width / view.scale), Math.ceil(view.y + height / view.scale)];
    model.send({ kind: "look", box, side: Math.max(width, height) });
  }

  // A pixel of the screen in pixels of the image.
  const fine = () => width / (active()[0].canvas.clientWidth || width) / view.scale;

  function stroke(context, path, color, thick) {
    context.lineCap = context.lineJoin = "round";
    for (const [style, line] of [["rgba(0, 0, 0, 0.6)", thick + 2], [color, thick]]) {
      context.strokeStyle = style;
      context.lineWidth = line * fine();
      context.stroke(path);
    }
  }

  // Dark and nearly grey is all but the region, as in figures.dimmed; `shade` covers its window in that grey.
  function dim(context, { shade }, [left, top, right, bottom]) {
    const around = new Path2D();
    around.rect(0, 0, w, h);
    around.rect(left, top, right - left, bottom - top);
    context.fillStyle = `rgb(${SHADE.slice(0, 3)})`;
    for (const [operation, alpha] of [["saturation", 0.5], ["multiply", 1]]) {
      Object.assign(context, { globalCompositeOperation: operation, globalAlpha: alpha });
      context.drawImage(shade, left, top, right - left, bottom - top);
      context.fill(around, "evenodd");
    }
    context.globalCompositeOperation = "source-over";
  }

  function hatch(context, path) {
    context.save();
    context.clip(path);
    context.globalAlpha = 0.45;
    context.strokeStyle = HATCHED;
    context.lineWidth = fine();
    context.beginPath();
    const [left, high] = [view.x, height / view.scale], right = left + width / view.scale;
    for (let x = left - high; x < right; x += 8 * fine()) { context.moveTo(x, view.y + high); context.lineTo(x + high, view.y); }
    context.stroke();
    context.restore();
  }

  function drawPane({ canvas, layer, hatched, border, bars }, source) {
    const isDim = panel.view.value !== "image only" && source.region && (source.found || model.get("running"));
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(view.scale, 0, 0, view.scale, -view.x * view.scale, -view.y * view.scale);
    context.imageSmoothingEnabled = view.scale < 1;
    if (picture) context.drawImage(picture, 0, 0, w, h);
    if (detail?.picture) { const [left, top, right, bottom] = detail.box; context.drawImage(detail.picture, left, top, right - left, bottom - top); }
    context.imageSmoothingEnabled = false;
    if (isDim) dim(context, source.region, source.window);
    context.globalAlpha = isDim ? 0.6 : 1;  // what may be clicked next
    stroke(context, outlines, isDim ? OTHER : OBJECT, 1);
    if (isScene) for (const one of objects) stroke(context, one.path, isDim ? OTHER : OBJECT, 1);
    if (layer) {
      const [left, top, right, bottom] = source.window;
      context.globalAlpha = Number(panel.opacity.value);
      context.drawImage(layer, left, top, right - left, bottom - top);
    }
    context.globalAlpha = 1;
    for (const bar of bars.querySelectorAll("canvas")) bar.style.opacity = panel.opacity.value;
    if (hatched) hatch(context, hatched);
    if (border) {
      context.setLineDash([4 * fine(), 3 * fine()]);
      context.lineWidth = fine();
      context.strokeStyle = OBJECT;
      context.stroke(border);
      context.setLineDash([]);
    }
    if (source.region) stroke(context, source.region.outline, OBJECT, 2);
    for (const path of picked) stroke(context, path, PICKED, 3);
    if (candidate) stroke(context, candidate.path ?? borderOf(candidate.id), MARKED, 2);
    if (drag?.box) { const path = new Path2D(); path.rect(drag.x, drag.y, drag.toX - drag.x, drag.toY - drag.y); stroke(context, path, MARKED, 2); }
    if (!objects.length && canvas.matches(":focus-visible")) {
      const x = view.x + width / view.scale / 2, y = view.y + height / view.scale / 2, arm = 12 / view.scale;
      stroke(context, new Path2D(`M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`), MARKED, 2);
    }
  }

  function draw() {
    const found = sources();
    active().forEach((pane, k) => drawPane(pane, found[k]));
  }

  function borderOf(id) { return edges(h, w, (a, b) => (ids[a] === id) !== (ids[b] === id)); }

  function updatePane(pane, { name, found, title, window, region }) {
    const kind = panel.view.value, isError = kind === "standard error";
    const called = model.get("kept").length > 1 && title ? `${title}, ${name}` : name;
    pane.layer = pane.hatched = pane.border = null;
    pane.bars.replaceChildren();
    pane.caption.textContent = found ? `${called}: ${found.made}` : model.get("running") ? called : `${name}: not explained yet`;
    pane.canvas.setAttribute("aria-label", `${name}. ${isScene ? "The scene" : "The image with the predicted objects outlined"}. ${HELP}`);
    if (!found || kind === "image only") return;
    const values = numbers(found[isError ? "errors" : "scores"], Float32Array), own = numbers(found.own, Uint8Array);
    if (values.some(Number.isFinite)) {
      const parts = scales(values, own, [palettes[kind], palettes.own].map((one) => numbers(one, Uint8Array)));
      const part = (k) => parts.find(({ isIn }) => isIn(k));
      pane.layer = painted(...found.shape, (k) => shaded(values[k], part(k).top, part(k).palette));
      pane.bars.append(...parts.map((one) => buildBar(one, found.unit, GROUND)));
      if (parts.length > 1 && region) pane.border = borderOfCells(own, found.shape, window);
      const rough = numbers(isError ? null : found.uncertain, Uint8Array);
      if (rough.some(Boolean)) pane.hatched = cellsOf(rough, found.shape, window);
    } else if (isError) pane.bars.append(make("div", { className: "ec-bar" }, make("span", { textContent: "no standard error" })));
  }

  // What the marks mean that are on the picture.
  function showLegend() {
    const seen = { own: (pane) => pane.border, uncertain: (pane) => pane.hatched };
    const known = Object.keys(MARKS).filter((name) => active().some(seen[name]));
    const swatch = (name) => make("span", { className: `ec-${name}`, ariaHidden: "true" });
    legend.replaceChildren(...known.map((name) => make("li", {}, swatch(name), MARKS[name])));
  }

  function update() {
    const shown = active();
    if (row.childElementCount !== shown.length) row.replaceChildren(...shown.map((pane) => pane.element));
    sources().forEach((source, k) => updatePane(shown[k], source));
    showLegend();
    panel.list();
    draw();
    showHover();
    showVerdict();
    status();
  }

  // The outline of a region in a window, and what dims all but it.
  function regionOf(bytes, [left, top, right]) {
    const region = numbers(bytes, Uint8Array), columns = right - left, rows = region.length / columns;
    return region.length ? { outline: edges(rows, columns, (a, b) => region[a] !== region[b], left, top),
      shade: painted(rows, columns, (k) => (region[k] ? null : SHADE)) } : null;
  }

  function showRegion() {
    const region = numbers(model.get("region"), Uint8Array), other = model.get("other");
    chosen = regionOf(model.get("region"), model.get("window"));
    beside = isCompared() ? regionOf(other.region, other.window) : null;
    if (region.length) {
      candidate = null;
      // Arrow keys go on from what is explained.
      const [left, top, right] = model.get("window"), k = region.indexOf(1), x = left + (k % (right - left)), y = top + Math.floor(k / (right - left));
      const context = panes[0].canvas.getContext("2d"), holds = ({ path }) => path && context.isPointInPath(path, x + 0.5, y + 0.5);
      context.setTransform(1, 0, 0, 1, 0, 0);
      current = objects.find((one) => one.id === ids[y * w + x] || holds(one)) ?? { x, y };
    }
    showExplain();
    draw();
  }

  // What was picked to be explained together: an object's border, a footprint's path, or a mark at a point.
  function showPicked() {
    picked = model.get("picked").map((place) => {
      const path = new Path2D();
      if (Array.isArray(place) && place.length === 4) { path.rect(place[0], place[1], place[2] - place[0], place[3] - place[1]); return path; }
      const one = objects.find(({ id, point }) => id === place || (Array.isArray(place) && point?.[0] === place[0] && point[1] === place[1]));
      if (one) return one.path ?? borderOf(one.id);
      if (Array.isArray(place)) path.arc(place[0] + 0.5, place[1] + 0.5, 6 / view.scale, 0, 7);
      return path;
    });
    showExplain();
    draw();
  }

  function showDetail() {
    const seen = model.get("detail");
    if (!seen.box) return;
    objects = objectsOfShapes(seen.shapes);
    many.textContent = seen.hidden ? `${seen.hidden.toLocaleString("en")} footprints here: zoom in to see them` : "";
    showPicked();
    const next = { box: seen.box, grid: seen.grid };
    pictureOf(seen.picture, "image/jpeg", (loaded) => { detail = { ...next, picture: loaded }; draw(); showHover(); });
  }

  // Until something was chosen there is nothing to explain.
  function showExplain() {
    panel.explain.disabled = !(hasAsked || candidate || chosen || picked.length || model.get("running"));
  }

  function status() {
    const [done, all] = model.get("progress"), running = model.get("running"), ready = !running && isShown();
    panel.progress.max = all || 1;
    if (running && !all) panel.progress.removeAttribute("value");
    else panel.progress.value = done;
    panel.cancel.disabled = !running;
    showExplain();
    for (const one of [panel.save, panel.copy, ...panel.exports]) one.disabled = !ready;
    panel.code.hidden ||= !ready || panel.code.textContent !== model.get("code");
    panel.message.textContent = model.get("message");
    const said = model.get("notices").map((text) => make("li", { textContent: text }));
    if (panel.notices.childElementCount || said.length) panel.notices.replaceChildren(...said);
    panel.notices.hidden = !said.length;
  }

  function showVerdict() {
    const rows = isShown() ? model.get("verdict") : [];
    panel.verdict.replaceChildren();
    if (!rows.length) return;
    const said = (value) => (typeof value === "number" ? value.toFixed(2) : value ?? "–");
    const cell = (value, k, head) => Object.assign(make(head || !k ? "th" : "td", { textContent: said(value) }), head || !k ? { scope: head ? "col" : "row" } : {});
    const line = (values, head = false) => make("tr", {}, ...values.map((value, k) => cell(value, k, head)));
    const table = (...lines) => make("table", {}, ...lines);
    const first = Object.keys(rows[0]).slice(0, 3), tested = rows.filter((row) => Object.keys(row).slice(3).some((name) => row[name] !== null));
    const body = rows.map((row) => Object.assign(line(first.map((name) => row[name])), { className: row.verdict === "control" ? "ec-control" : "" }));
    const more = make("details", { open: panel.open }, make("summary", { textContent: "L-SIT and H-SIT" }),
      table(line(["points", ...tested.map((row) => row.map)], true),
        ...Object.keys(rows[0]).slice(3).map((name) => line([name, ...tested.map((row) => row[name])]))));
    more.addEventListener("toggle", () => { panel.open = more.open; });
    panel.verdict.append(table(line(["map", "gap", "what follows"], true), ...body), make("p", { textContent: model.get("caution") }), more);
  }

  // What is known of the place under the pointer; read anew when the map or the view changes under it.
  function showHover() {
    if (!at) { hover.textContent = ""; return; }
    const x = view.x + at.px / view.scale, y = view.y + at.py / view.scale, placed = model.get("placed"), said = [];
    const column = Math.floor(x), line = Math.floor(y), found = sources();
    if (column < 0 || line < 0 || column >= w || line >= h) { hover.textContent = ""; return; }
    said.push(`column ${column}, row ${line}`);
    if (placed.transform) {
      const [a, b, c, d, e, f] = placed.transform, digits = placed.digits;
      said.push(`${(a * x + b * y + c).toFixed(digits)} ${(d * x + e * y + f).toFixed(digits)} ${placed.crs}`.trim());
      if (detail?.grid) said.push(lonlat(detail, x, y).map((v) => `${v.toFixed(6)}°`).join(" ") + " lon lat");
    }
    const id = ids[line * w + column];
    if (id) said.push(`object ${id}`);
    for (const { found: map, window: [left, top, right, bottom] } of isCompared() ? [found[at.pane] ?? found[0]] : found) {
      if (!map || column < left || column >= right || line < top || line >= bottom) continue;
      const [rows, columns] = map.shape, scores = numbers(map.scores, Float32Array), errors = numbers(map.errors, Float32Array);
      const k = Math.floor(((line - top) * rows) / (bottom - top)) * columns + Math.floor(((column - left) * columns) / (right - left));
      const error = Number.isFinite(errors[k]) ? ` ± ${errors[k].toPrecision(2)}` : "";
      const score = `${map.method} ${scores[k].toPrecision(3)}${error} ${map.unit}`;
      said.push(Number.isFinite(scores[k]) ? score : `${map.method}: nothing to score here`);
    }
    hover.textContent = said.join(" · ");
  }

  function pixels(event) {
    const box = event.currentTarget.getBoundingClientRect();
    return { px: ((event.clientX - box.left) / box.width) * width, py: ((event.clientY - box.top) / box.height) * height };
  }

  function place({ px, py }) {
    return { x: clamp(Math.floor(view.x + px / view.scale), 0, w - 1), y: clamp(Math.floor(view.y + py / view.scale), 0, h - 1) };
  }

  function explain(message) {
    hasAsked = true;
    status();
    model.send(message);
  }

  const isPick = (event) => event.shiftKey || several.checked;

  function explainAt({ x, y }, pick = false, reach = NEAR / view.scale) { explain({ kind: pick ? "pick" : "at", x, y, reach }); }

  // An object by its number or id; what is only predicted in a scene by a point in it.
  function explainObject({ id, point }) {
    if (point) explainAt({ x: point[0], y: point[1] }, false, 0);
    else explain({ kind: "object", id });
  }

  function pickObject(one) {
    const [x, y] = one.point ?? [Math.floor(one.x), Math.floor(one.y)];
    explainAt({ x, y }, true, 0.5);
  }

  const startDrag = (event) => {
    if (event.button) return;
    const start = pixels(event);
    event.currentTarget.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, start);
    pinch = null;
    if (pointers.size > 1) { drag = null; draw(); return; }
    const from = place(start), box = (dragging.value === "box") !== event.shiftKey;
    drag = { ...start, ...from, toX: from.x, toY: from.y, box, left: view.x, top: view.y, far: false };
  };

  const moveDrag = (event) => {
    at = { ...pixels(event), pane: panes.findIndex((pane) => pane.canvas === event.currentTarget) };
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, at);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const now = { px: (a.px + b.px) / 2, py: (a.py + b.py) / 2, apart: Math.hypot(a.px - b.px, a.py - b.py) || 1 };
      if (pinch) { move(view.x + (pinch.px - now.px) / view.scale, view.y + (pinch.py - now.py) / view.scale); zoom(now.apart / pinch.apart, now.px, now.py); }
      pinch = now;
    } else if (drag) {
      drag.far ||= Math.hypot(at.px - drag.px, at.py - drag.py) > 6;
      if (drag.box) { const to = place(at); drag.toX = to.x; drag.toY = to.y; draw(); }
      else if (drag.far) move(drag.left - (at.px - drag.px) / view.scale, drag.top - (at.py - drag.py) / view.scale);
    }
    showHover();
  };

  const endDrag = (event) => {
    const done = drag;
    drag = null;
    pointers.delete(event.pointerId);
    if (!done || event.type !== "pointerup") return draw();
    if (!done.far) explainAt(done, isPick(event));
    else if (done.box) {
      const { x, y, toX, toY } = done;
      explain({ kind: several.checked ? "pick" : "box", box: [Math.min(x, toX), Math.min(y, toY), Math.max(x, toX) + 1, Math.max(y, toY) + 1] });
    }
    draw();
  };

  const wheel = (event) => {
    if (!event.ctrlKey && document.activeElement !== event.currentTarget) return;  // else a page could not be scrolled past it
    event.preventDefault();
    const { px, py } = pixels(event);
    zoom(Math.exp(-event.deltaY / 300), px, py);
  };

  function step(direction, shift) {
    const part = [width, height].map((size) => size / view.scale / 4);
    if (shift || !objects.length) return move(view.x + direction[0] * part[0], view.y + direction[1] * part[1]);
    const middle = { x: view.x + width / view.scale / 2, y: view.y + height / view.scale / 2 };
    const away = (one) => Math.hypot(one.x - middle.x, one.y - middle.y);
    // Where the last one was left behind, keys start from what is seen.
    const next = current && inView(current) ? nextObject(objects, current, direction) : objects.reduce((a, b) => (away(b) < away(a) ? b : a));
    if (next) choose(next);
    else panel.message.textContent = `There is no object further that way${isScene ? " in this part: Shift and arrow keys move on" : "; N chooses the next"}`;
  }

  const inView = ({ x, y }) => x > view.x && y > view.y && x < view.x + width / view.scale && y < view.y + height / view.scale;

  function choose(one) {
    current = candidate = one;
    showExplain();
    panel.message.textContent = `${isScene ? `Building ${one.id}` : `Object ${one.id} of ${objects.length}`}: Enter explains it`;
    if (inView(one)) draw();
    else move(one.x - width / view.scale / 2, one.y - height / view.scale / 2);
  }

  const key = (event) => {
    const direction = { ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowUp: [0, -1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (direction) step(direction, event.shiftKey);
    else if (event.key.toLowerCase() === "n" && objects.length) choose(objectInOrder(objects, current, event.shiftKey));
    else if (event.key === "Enter" && candidate && isPick(event)) pickObject(candidate);
    else if (event.key === "Enter" && candidate) explainObject(candidate);
    else if (event.key === "Enter" && !objects.length) explainAt(place({ px: width / 2, py: height / 2 }));
    else if (event.key === "Escape") model.send({ kind: "cancel" });
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") move(0, 0, whole);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const reactions = { pointerdown: startDrag, pointermove: moveDrag, pointerup: endDrag, pointercancel: endDrag, keydown: key, focus: draw, blur: draw,
    pointerleave: () => { at = null; showHover(); } };
  for (const { canvas } of panes) {
    for (const [event, react] of Object.entries(reactions)) canvas.addEventListener(event, react);
    canvas.addEventListener("wheel", wheel, { passive: false });
  }
  zoomIn.addEventListener("click", () => zoom(1.5));
  zoomOut.addEventListener("click", () => zoom(1 / 1.5));
  showAll.addEventListener("click", () => move(0, 0, whole));
  panel.explain.addEventListener("click", () => (candidate && !model.get("picked").length ? explainObject(candidate) : explain({ kind: "again" })));
  panel.cancel.addEventListener("click", () => model.send({ kind: "cancel" }));
  panel.save.addEventListener("click", () => model.send({ kind: "save" }));
  for (const one of panel.exports) one.addEventListener("click", () => { asked = true; model.send({ kind: "export", format: one.value }); });
  panel.copy.addEventListener("click", async () => {
    panel.code.textContent = model.get("code");
    panel.code.hidden = false;
    const copied = await navigator.clipboard?.writeText(model.get("code")).then(() => true, () => false);
    panel.message.textContent = copied ? "Copied" : "Copy it from below";
  });
  panel.opacity.addEventListener("input", draw);
  panel.view.addEventListener("change", update);
  const files = ({ kind, names: called }, buffers) => {
    if (kind === "files" && asked) called.forEach((name, k) => download(name, buffers[k]));
    asked = false;
  };
  // One widget may be shown in several places: what a view listens to ends with it.
  const listeners = [[showRegion, ["region", "window", "other"]], [update, ["maps", "method", "beside", "verdict", "running", "kept", "shown", "compared", "other"]],
    [showDetail, ["detail"]], [showPicked, ["picked"]], [status, ["progress", "message", "code", "notices"]], [panel.follow, FOLLOWED]]
    .flatMap(([react, traits]) => traits.map((trait) => [`change:${trait}`, react])).concat([["msg:custom", files]]);
  for (const [event, react] of listeners) model.on(event, react);
  pictureOf(model.get("picture"), model.get("picture_type"), (loaded) => { picture = loaded; draw(); });
  showRegion();
  showDetail();
  panel.list();
  update();
  move(0, 0, whole);
  return () => {
    clearTimeout(looking);
    for (const [event, react] of listeners) model.off(event, react);
  };
}

export default { render };
