// The face of entropy_captum.explorer. Python owns the state; this draws it and sends what the user asks for.

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

function labelled(text, control) {
  return make("label", {}, make("span", { textContent: text }), control);
}

// Traits of type Bytes arrive as DataViews at any offset: copy before looking at them as numbers.
function numbers(view, kind) {
  return view ? new kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)) : new kind(0);
}

// A canvas of h x w that is clear but for the border of where `inside` is true.
function border(h, w, differs, color) {
  const canvas = make("canvas", { width: w, height: h });
  const context = canvas.getContext("2d");
  context.fillStyle = color;
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++)
      if ((x + 1 < w && differs(y * w + x, y * w + x + 1)) || (y + 1 < h && differs(y * w + x, y * w + x + w)))
        context.fillRect(x, y, 1, 1);
  return canvas;
}

// A map (rows x columns of numbers) in a palette of 256 colours.
function heatmap(values, rows, columns, palette, low, high) {
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  for (let k = 0; k < values.length; k++) {
    const known = Number.isFinite(values[k]);
    const shade = known ? Math.round((255 * (values[k] - low)) / (high - low || 1)) : 0;
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = palette[3 * shade + c];
    picture.data[4 * k + 3] = known ? 255 : 0;
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

function range(values) {
  const known = values.filter(Number.isFinite);
  return known.length ? [known.reduce((a, b) => Math.min(a, b), 0), known.reduce((a, b) => Math.max(a, b))] : [0, 0];
}

function buildPanel(model) {
  const options = (names, chosen) => names.map((name) => make("option", { value: name, textContent: name, selected: name == chosen }));
  const bind = (control, trait, read) => {
    control.addEventListener("change", () => { model.set(trait, read(control)); model.save_changes(); });
    return control;
  };
  const sizes = (chosen, ...usual) => options([...new Set([...usual, chosen])].sort((a, b) => a - b), chosen);
  const panel = {
    method: bind(make("select", {}, ...options(model.get("methods"), model.get("method"))), "method", (c) => c.value),
    grid_size: bind(make("select", {}, ...sizes(model.get("grid_size"), 4, 8, 12, 16)), "grid_size", (c) => Number(c.value)),
    n_samples: bind(make("select", {}, ...sizes(model.get("n_samples"), 4, 8, 16, 32, 64, 128)), "n_samples", (c) => Number(c.value)),
    view: make("select", {}, ...options(["score", "standard error", "image only"], "score")),
    opacity: make("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.6 }),
    explain: make("button", { textContent: "Explain", type: "button" }),
    cancel: make("button", { textContent: "Cancel", type: "button" }),
    folder: bind(make("input", { type: "text", value: model.get("folder") }), "folder", (c) => c.value),
    save: make("button", { textContent: "Save", type: "button" }),
    progress: make("progress", { value: 0, max: 1 }),
    message: make("div", { className: "ec-message" }),
    hover: make("div", { className: "ec-hover" }),
    scale: make("canvas", { width: 256, height: 1 }),
    low: make("span"), high: make("span"), verdict: make("div"),
  };
  // What Python sets, the page shows.
  panel.follow = () => {
    for (const name of ["method", "grid_size", "n_samples", "folder"]) {
      const control = panel[name], value = String(model.get(name));
      if (control.options && ![...control.options].some((option) => option.value === value))
        control.append(make("option", { value, textContent: value }));
      control.value = value;
    }
  };
  panel.message.setAttribute("role", "status");
  panel.progress.setAttribute("aria-label", "designs done");
  panel.element = make("div", { className: "ec-panel" }, panel.message, panel.progress,
    labelled("method", panel.method), labelled("grid", panel.grid_size), labelled("samples N", panel.n_samples),
    make("div", { className: "ec-buttons" }, panel.explain, panel.cancel),
    labelled("show", panel.view), labelled("opacity", panel.opacity),
    make("div", { className: "ec-bar" }, panel.low, panel.scale, panel.high), panel.hover, panel.verdict,
    labelled("save to", panel.folder), make("div", { className: "ec-buttons" }, panel.save));
  return panel;
}

function render({ model, el }) {
  const [h, w] = model.get("size");
  const ids = numbers(model.get("ids"), Int32Array);
  const palettes = { score: numbers(model.get("score_palette"), Uint8Array), "standard error": numbers(model.get("error_palette"), Uint8Array) };
  const zoom = Math.max(1, Math.round(512 / Math.max(h, w)));
  const canvas = make("canvas", { width: w * zoom, height: h * zoom, tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "The tile with the predicted objects outlined. Arrow keys choose an object, Enter explains it, Escape cancels.");
  const panel = buildPanel(model);
  el.append(make("div", { className: "ec-explorer" }, make("div", { className: "ec-picture" }, canvas), panel.element));
  const outlines = border(h, w, (a, b) => ids[a] !== ids[b], "white");
  const picture = new Image();
  const objects = ids.reduce((a, b) => Math.max(a, b), 0);
  // `current`: the object that the arrow keys are at; `candidate`: the same while it is not explained yet.
  let chosen = null, drag = null, layer = null, current = 0, candidate = 0;

  function draw() {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 1;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    if (layer) {
      context.globalAlpha = Number(panel.opacity.value);
      context.drawImage(layer, 0, 0, canvas.width, canvas.height);
      context.globalAlpha = 1;
    }
    context.drawImage(outlines, 0, 0, canvas.width, canvas.height);
    if (chosen) context.drawImage(chosen, 0, 0, canvas.width, canvas.height);
    if (drag) {
      context.strokeStyle = "#d81b60";
      context.lineWidth = 2;
      context.strokeRect(drag.x * zoom, drag.y * zoom, (drag.toX - drag.x) * zoom, (drag.toY - drag.y) * zoom);
    }
  }

  function shown() {
    const errors = panel.view.value === "standard error";
    return numbers(model.get(errors ? "errors" : "scores"), Float32Array);
  }

  function update() {
    const values = shown(), [rows, columns] = model.get("shape");
    layer = null;
    panel.scale.getContext("2d").clearRect(0, 0, 256, 1);
    panel.low.textContent = panel.high.textContent = "";
    if (values.some(Number.isFinite) && panel.view.value !== "image only") {
      const [low, high] = range(values), palette = palettes[panel.view.value];
      layer = heatmap(values, rows, columns, palette, low, high);
      panel.scale.getContext("2d").drawImage(heatmap([...Array(256).keys()], 1, 256, palette, 0, 255), 0, 0);
      panel.low.textContent = low.toPrecision(2);
      panel.high.textContent = `${high.toPrecision(2)} ${model.get("unit")}`;
    } else if (panel.view.value === "standard error" && model.get("scores")?.byteLength) panel.high.textContent = "no standard error";
    draw();
  }

  function showRegion() {
    const region = numbers(model.get("region"), Uint8Array);
    candidate = 0;
    chosen = region.length ? border(h, w, (a, b) => region[a] !== region[b], "#d81b60") : null;
    draw();
  }

  function status() {
    const [done, all] = model.get("progress"), running = model.get("running");
    panel.progress.max = all || 1;
    if (running && !all) panel.progress.removeAttribute("value");
    else panel.progress.value = done;
    panel.cancel.disabled = !running;
    panel.save.disabled = running || !model.get("scores")?.byteLength;
    panel.message.textContent = model.get("message");
  }

  function showVerdict() {
    const rows = model.get("verdict");
    panel.verdict.replaceChildren();
    if (!rows.length) return;
    const shown = (value) => (typeof value === "number" ? value.toFixed(2) : value);
    const line = (tag, values) => make("tr", {}, ...values.map((value) => make(tag, { textContent: shown(value) })));
    const names = Object.keys(rows[0]).filter((name) => name !== "map");
    panel.verdict.append(make("table", {}, line("th", ["", ...rows.map((row) => row.map)]),
      ...names.map((name) => line("td", [name, ...rows.map((row) => row[name])]))));
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.min(Math.max(Math.floor(value), 0), most - 1);
    return { x: clamp(((event.clientX - box.left) / box.width) * w, w), y: clamp(((event.clientY - box.top) / box.height) * h, h) };
  }

  function hover({ x, y }) {
    const [rows, columns] = model.get("shape");
    const scores = numbers(model.get("scores"), Float32Array), errors = numbers(model.get("errors"), Float32Array);
    const row = Math.floor((y * rows) / h), column = Math.floor((x * columns) / w), k = row * columns + column;
    if (!scores.length) panel.hover.textContent = ids[y * w + x] ? `object ${ids[y * w + x]}` : "";
    else {
      const error = Number.isFinite(errors[k]) ? ` ± ${errors[k].toPrecision(2)}` : "";
      panel.hover.textContent = `row ${row}, column ${column}: ${scores[k].toPrecision(3)}${error} ${model.get("unit")}`;
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    const at = place(event);
    drag = { ...at, toX: at.x, toY: at.y };
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    hover(at);
    if (drag) { drag.toX = at.x; drag.toY = at.y; draw(); }
  });
  canvas.addEventListener("pointerup", () => {
    const done = drag;
    drag = null;
    if (!done) return;
    const box = [Math.min(done.x, done.toX), Math.min(done.y, done.toY), Math.max(done.x, done.toX) + 1, Math.max(done.y, done.toY) + 1];
    if (box[2] - box[0] > 4 || box[3] - box[1] > 4) model.send({ kind: "box", box });
    else choose(ids[done.y * w + done.x]);
    draw();
  });

  canvas.addEventListener("pointercancel", () => { drag = null; draw(); });
  canvas.addEventListener("pointerleave", () => { panel.hover.textContent = ""; });

  function choose(id) {
    current = id || current;
    model.send({ kind: "object", id });
  }

  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && objects) {
      current = current ? ((current - 1 + step + objects) % objects) + 1 : step > 0 ? 1 : objects;
      candidate = current;
      panel.message.textContent = `Object ${current} of ${objects}: Enter explains it`;
      chosen = border(h, w, (a, b) => (ids[a] === current) !== (ids[b] === current), "#d81b60");
      draw();
    } else if (event.key === "Enter" && current) choose(current);
    else if (event.key === "Escape") model.send({ kind: "cancel" });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  panel.explain.addEventListener("click", () => (candidate ? choose(candidate) : model.send({ kind: "again" })));
  panel.cancel.addEventListener("click", () => model.send({ kind: "cancel" }));
  panel.save.addEventListener("click", () => model.send({ kind: "save" }));
  panel.opacity.addEventListener("input", draw);
  panel.view.addEventListener("change", update);
  // One widget may be shown in several places: what a view listens to ends with it.
  const listeners = [[update, ["scores", "errors"]], [showRegion, ["region"]], [status, ["progress", "running", "message", "scores"]],
    [showVerdict, ["verdict"]], [panel.follow, ["method", "grid_size", "n_samples", "folder"]]]
    .flatMap(([react, traits]) => traits.map((trait) => [`change:${trait}`, react]));
  for (const [event, react] of listeners) model.on(event, react);
  picture.onload = () => { showRegion(); update(); };
  picture.src = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
  status();
  showVerdict();
  return () => {
    for (const [event, react] of listeners) model.off(event, react);
    URL.revokeObjectURL(picture.src);
  };
}

export default { render };
