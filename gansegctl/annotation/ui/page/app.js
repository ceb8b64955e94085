// The page: one image, tools, keys. Pixels are in strokes.js, canvases in canvas.js, the server in api.js.

import { Canvas } from "./canvas.js";
import { Outbox, Unanswered, getBytes, getJson, getImage, postForBytes, postJson } from "./api.js";
import * as strokes from "./strokes.js";
import { Proposals, element } from "./proposals.js";

const $ = (id) => document.getElementById(id);
const TOOLS = { g: "parts", b: "brush", e: "eraser", l: "polygon", f: "fill" };
const now = { place: 0, tool: "parts", cls: 0, level: 1, mask: null, parts: new Map(), pen: null, key: false };
let state, canvas, outbox, proposals;

history.replaceState(null, "", "/"); // the token leaves the address bar; the cookie stays

// -- where things stand ------------------------------------------------------------------------------------------

const width = () => state.size[1];
const height = () => state.size[0];
const here = () => state.exemplars[now.place];
const active = () => (now.tool === "eraser" ? strokes.EMPTY : now.cls);
const mapKey = () => `${now.place}/${now.level}`;

function showMessage(text) {
  $("spot").textContent = text;
}

function saved(how, waiting, why) {
  $("saved").className = how;
  $("saved").dataset.waiting = waiting;
  const held = waiting ? ` ${waiting} stroke${waiting > 1 ? "s" : ""} held in this browser.` : "";
  $("saved").textContent = how === "saved" ? "All strokes are on disk" : how === "saving" ? "Saving…"
    : `No answer from gansegctl${why ? ` (${why})` : ""}. Paint on:${held} Start the same command again.`;
}

function showStanding(standing) {
  state.exemplars[standing.exemplar] = standing;
  const at = $("strip").children[standing.exemplar];
  if (at) at.querySelector("small").textContent = `${Math.round(standing.painted * 100)} % painted`;
  if (standing.exemplar !== now.place) return;
  $("undo").disabled = !standing.undo && !outbox.waiting.length;
  $("redo").disabled = !standing.redo;
  $("rest").disabled = standing.painted >= 1;
}

function refresh() {
  canvas.drawMask(now.mask, active());
  canvas.drawInk();
}

function answered(stroke, standing, last, refused) {
  if (refused) showMessage(`Not taken: ${refused}`);
  if (!standing) return last ? loadMask() : undefined;
  const expected = here() && standing.exemplar === now.place ? here().changes + 1 : null;
  const astray = expected !== null && stroke.kind === "paint" && standing.changes !== expected;
  showStanding(standing);
  if (last && standing.exemplar === now.place) {
    if (standing.mask) now.mask = strokes.decode(standing.mask, width() * height());
    else if (astray) loadMask(); // another tab paints too
    refresh();
  }
  proposals.soon();
}

// -- images ----------------------------------------------------------------------------------------------------

async function loadMask() {
  const place = now.place;
  const standing = await getJson(`api/mask/${place}`);
  if (place !== now.place) return;
  now.mask = strokes.decode(standing.mask, width() * height());
  for (const stroke of outbox.waiting) { // painted while nobody listened
    if (stroke.exemplar === place && stroke.kind === "paint") {
      for (let i = 0; i < stroke.runs.length; i += 2) now.mask.fill(stroke.class, stroke.runs[i], stroke.runs[i] + stroke.runs[i + 1]);
    }
  }
  showStanding(standing);
  refresh();
}

async function show(place) {
  now.place = (place + state.exemplars.length) % state.exemplars.length;
  dropDraft();
  [...$("strip").children].forEach((b, i) => b.setAttribute("aria-current", String(i === now.place)));
  $("why").textContent = `Seed ${here().seed}. Why this image: ${here().why}.`;
  const [loaded] = await Promise.all([getImage(`api/image/${now.place}`), loadMask()]);
  canvas.drawImage(loaded);
  await loadParts();
  if (proposals.found) proposals.draw();
  document.body.dataset.ready = now.place;
}

function drawStrip() {
  $("strip").replaceChildren(...state.exemplars.map((e, i) =>
    element("button", { type: "button", title: e.why, onclick: () => show(i) },
      element("img", { src: `api/image/${i}`, alt: "" }),
      element("span", {}, `Seed ${e.seed}`, element("small", {}, `${Math.round(e.painted * 100)} % painted`)))));
}

async function add(seed) {
  const standing = await postJson("api/add", { seed });
  state.exemplars[standing.exemplar] = standing;
  drawStrip();
  await show(standing.exemplar);
}

async function take(seed) {
  const place = now.place;
  const proposed = new Uint8Array(await getBytes(`api/proposal/${seed}/labels`));
  if (place !== now.place) return showMessage("Not taken: another image is shown by now"); // its mask is not this one's
  const mask = now.mask.map((v, i) => (v === strokes.EMPTY ? proposed[i] : v));
  now.mask = mask;
  outbox.put({ kind: "replace", exemplar: now.place, runs: strokes.encode(mask), tool: "proposal" });
  refresh();
}

// -- parts -------------------------------------------------------------------------------------------------------

async function loadParts() {
  canvas.parts = null;
  canvas.hover = -1;
  if (now.tool !== "parts") return canvas.drawInk();
  const key = mapKey();
  if (!now.parts.has(key)) {
    showMessage("Finding the parts of this image…");
    now.parts.set(key, new Uint32Array(await getBytes(`api/parts/${key}`)));
    showMessage("");
  }
  if (key !== mapKey() || now.tool !== "parts") return;
  canvas.parts = now.parts.get(key);
  document.body.dataset.parts = key;
  canvas.drawInk();
}

async function splitAt({ x, y }) {
  const key = mapKey();
  const bytes = await postForBytes(`api/parts/${key}`, { pixel: y * width() + x });
  now.parts.set(key, new Uint32Array(bytes));
  document.body.dataset.splits = Number(document.body.dataset.splits || 0) + 1;
  await loadParts();
  showMessage("Split further.");
}

// -- strokes -----------------------------------------------------------------------------------------------------

function commit(bits, tool) {
  const value = active();
  const runs = strokes.runsOf(bits);
  if (!runs.length) return;
  for (let i = 0; i < bits.length; i++) if (bits[i]) now.mask[i] = value;
  outbox.put({ kind: "paint", exemplar: now.place, class: value, runs, tool });
  $("undo").disabled = false;
  refresh();
}

function back(kind) {
  dropDraft();
  outbox.put({ kind, exemplar: now.place });
}

function dropDraft() {
  now.pen = null;
  now.key = false;
  canvas.draft = null;
  canvas.corners = [];
}

function penDown(spot) {
  now.pen = spot;
  canvas.draft = new Uint8Array(width() * height());
  strokes.disc(canvas.draft, width(), height(), spot.x, spot.y, canvas.radius);
  refresh();
}

function penMove(spot) {
  strokes.drag(canvas.draft, width(), height(), now.pen, spot, canvas.radius);
  now.pen = spot;
  refresh();
}

function penUp() {
  const bits = canvas.draft;
  dropDraft();
  if (bits) commit(bits, now.tool);
}

function closePolygon() {
  if (canvas.corners.length < 2) return;
  const bits = new Uint8Array(width() * height());
  strokes.polygon(bits, width(), height(), canvas.corners);
  dropDraft();
  commit(bits, "polygon");
}

function corner(spot) {
  const [first] = canvas.corners;
  if (first && canvas.corners.length > 2 && Math.hypot(first.x - spot.x, first.y - spot.y) * canvas.scale < 10) return closePolygon();
  canvas.corners.push({ ...spot });
  canvas.drawInk();
}

/** The tool at a pixel, by pointer or by key. */
function use(spot, split, byKey) {
  if (now.tool === "parts") {
    if (!canvas.parts) return;
    if (split) return splitAt(spot);
    commit(strokes.pixelsEqual(canvas.parts, canvas.parts[spot.y * width() + spot.x]), "parts");
  } else if (now.tool === "fill") {
    const bits = new Uint8Array(width() * height());
    strokes.flood(bits, now.mask, width(), height(), spot.x, spot.y);
    commit(bits, "fill");
  } else if (now.tool === "polygon") corner(spot);
  else if (!byKey) penDown(spot);
  else if (now.key) penUp();
  else {
    penDown(spot);
    now.key = true;
    showMessage("Brush down: move with the arrow keys, Space lifts it.");
  }
}

function fillRest() {
  commit(strokes.pixelsEqual(now.mask, strokes.EMPTY), "rest");
}

// -- tools and classes -------------------------------------------------------------------------------------------

function pickTool(tool) {
  if (now.tool !== tool) dropDraft();
  now.tool = tool;
  for (const b of $("tools").children) b.setAttribute("aria-pressed", String(b.dataset.tool === tool));
  $("detail-row").hidden = tool !== "parts";
  $("brush-row").hidden = tool !== "brush" && tool !== "eraser";
  canvas.radius = $("brush-row").hidden ? 0 : Number($("brush").value);
  return loadParts();
}

function pickClass(k) {
  now.cls = (k + state.classes.length) % state.classes.length;
  [...$("classes").children].forEach((b, i) => b.setAttribute("aria-pressed", String(i === now.cls)));
  if (now.tool === "eraser") pickTool("brush");
  canvas.drawInk();
}

function pickLevel(level) {
  now.level = level;
  $("detail").value = String(level);
  return loadParts();
}

function setBrush(r) {
  $("brush").value = String(r);
  canvas.radius = $("brush-row").hidden ? 0 : Number($("brush").value);
  canvas.drawInk();
}

function setOpacity(value) {
  $("opacity").value = String(value);
  $("mask").style.opacity = String(value / 100);
  document.body.style.setProperty("--proposal", String(Math.max(value, 20) / 100));
}

function drawClasses() {
  $("classes").replaceChildren(...state.classes.map((c, i) => {
    const key = i < 9 ? String(i + 1) : i === 9 ? "0" : "";
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = `rgb(${c.colour.join(" ")})`;
    return element("button", { type: "button", "data-class": i, onclick: () => pickClass(i), ...(key && { "aria-keyshortcuts": key }) },
      swatch, c.name, ...(key ? [element("kbd", {}, key)] : []));
  }));
}

// -- pointer and keys --------------------------------------------------------------------------------------------

function describe() {
  const { x, y } = canvas.cursor, p = y * width() + x, value = now.mask[p];
  const what = value === strokes.EMPTY ? "not painted" : state.classes[value].name;
  return `Row ${y + 1}, column ${x + 1}: ${what}`;
}

function moveTo(spot) {
  canvas.cursor = spot;
  const part = canvas.parts ? canvas.parts[spot.y * width() + spot.x] : -1;
  if (now.pen) penMove(spot);
  canvas.hover = part;
  canvas.drawInk();
}

function pointers() {
  const ink = $("ink");
  ink.addEventListener("pointerdown", (event) => {
    const spot = canvas.at(event);
    if (!spot || event.button !== 0) return;
    ink.focus({ preventScroll: true });
    if (now.key) penUp();
    moveTo(spot);
    use(spot, event.shiftKey, false);
    if (now.pen) ink.setPointerCapture(event.pointerId);
  });
  ink.addEventListener("pointermove", (event) => {
    const spot = canvas.at(event);
    if (!spot || now.key) return;
    moveTo(spot);
    showMessage(describe());
  });
  for (const end of ["pointerup", "pointercancel"]) {
    ink.addEventListener(end, () => {
      if (now.pen && !now.key) penUp();
    });
  }
  ink.addEventListener("pointerleave", () => {
    canvas.hover = -1;
    canvas.drawInk();
  });
  ink.addEventListener("dblclick", () => now.tool === "polygon" && closePolygon());
  $("stage").addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    canvas.setZoom(canvas.zoom * (event.deltaY < 0 ? 1.25 : 0.8));
  }, { passive: false });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onCanvasKey(event) {
  const step = ARROWS[event.key];
  if (step) {
    const by = event.shiftKey ? 8 : 1, { x, y } = canvas.cursor;
    moveTo({ x: Math.min(Math.max(x + step[0] * by, 0), width() - 1), y: Math.min(Math.max(y + step[1] * by, 0), height() - 1) });
    canvas.reveal();
    showMessage(describe());
  } else if (event.key === " ") use({ ...canvas.cursor }, event.shiftKey, true);
  else if (event.key === "Enter" && now.tool === "polygon") closePolygon();
  else if (event.key === "Enter") use({ ...canvas.cursor }, event.shiftKey, true);
  else if (event.key === "Backspace") canvas.corners.pop();
  else if (event.key === "Escape") dropDraft();
  else return false;
  refresh();
  return true;
}

const KEYS = {
  z: () => back("undo"), y: () => back("redo"), r: fillRest,
  d: () => pickLevel((now.level + 1) % state.levels),
  o: () => setOpacity((Number($("opacity").value) + 20) % 120),
  ",": () => setBrush(Number($("brush").value) - 1), ".": () => setBrush(Number($("brush").value) + 1),
  "+": () => canvas.setZoom(canvas.zoom * 1.5), "=": () => canvas.setZoom(canvas.zoom * 1.5), "-": () => canvas.setZoom(canvas.zoom / 1.5),
  n: () => show(now.place + 1), p: () => show(now.place - 1),
  "[": () => pickClass(now.cls - 1), "]": () => pickClass(now.cls + 1),
  "?": () => $("help").showModal(),
};

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  const onImage = event.target === $("ink");
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "z") back(event.shiftKey ? "redo" : "undo");
    else if (event.key.toLowerCase() === "y") back("redo");
    else return;
    event.preventDefault();
    return;
  }
  if (event.altKey) return;
  if (onImage && onCanvasKey(event)) return event.preventDefault();
  if (event.target.matches("select, input:not([type=range])") || (!onImage && !$("single").checked)) return;
  const key = event.key.toLowerCase();
  if (TOOLS[key]) pickTool(TOOLS[key]);
  else if (KEYS[key]) KEYS[key]();
  else if (/^[0-9]$/.test(key)) {
    const k = key === "0" ? 9 : Number(key) - 1;
    if (k < state.classes.length) pickClass(k);
  } else return;
  event.preventDefault();
}

// -- finish ------------------------------------------------------------------------------------------------------

function askFinish() {
  const painted = state.exemplars.filter((e) => e.painted > 0);
  const open = painted.filter((e) => e.painted < 1);
  const left = state.exemplars.length - painted.length;
  $("done-text").textContent = [
    painted.length ? `The masks of ${painted.length} image${painted.length > 1 ? "s" : ""} will be written, and the dataset labelled.` : "Nothing is painted yet.",
    open.length ? `In ${open.map((e) => `seed ${e.seed}`).join(", ")} some pixels have no class; nothing will be learned from them.` : "",
    left ? `${left} unpainted image${left > 1 ? "s are" : " is"} left out.` : "",
    outbox.waiting.length ? "Some strokes are not on disk yet: wait until they are." : "",
  ].join(" ");
  $("done-yes").disabled = !painted.length || outbox.waiting.length > 0;
  $("done").showModal();
}

async function finish() {
  if ($("done").returnValue !== "yes") return;
  try {
    const { seeds } = await postJson("api/finish", {});
    $("over").hidden = false;
    $("over").firstElementChild.textContent = `Done: ${seeds.length} mask${seeds.length > 1 ? "s" : ""} written. gansegctl goes on in the terminal; this page can be closed.`;
  } catch (error) {
    showMessage(error.message);
  }
}

// -- beginning ---------------------------------------------------------------------------------------------------

function buttons() {
  for (const b of $("tools").children) b.addEventListener("click", () => pickTool(b.dataset.tool));
  const on = (id, does) => $(id).addEventListener("click", does);
  on("undo", () => back("undo"));
  on("redo", () => back("redo"));
  on("rest", fillRest);
  on("in", () => canvas.setZoom(canvas.zoom * 1.5));
  on("out", () => canvas.setZoom(canvas.zoom / 1.5));
  on("help-open", () => $("help").showModal());
  on("finish", askFinish);
  $("done").addEventListener("close", finish);
  $("detail").addEventListener("change", () => pickLevel(Number($("detail").value)));
  $("brush").addEventListener("input", () => setBrush(Number($("brush").value)));
  $("opacity").addEventListener("input", () => setOpacity(Number($("opacity").value)));
  document.addEventListener("keydown", onKey);
}

async function begin() {
  state = await getJson("api/state");
  $("dataset").textContent = (state.about.dataset || "").split("/").pop();
  $("dataset").title = state.about.dataset || "";
  canvas = new Canvas(width(), height(), state.classes.map((c) => c.colour));
  now.mask = new Uint8Array(width() * height()).fill(strokes.EMPTY);
  outbox = new Outbox(answered, saved);
  proposals = new Proposals({ add, show, take, places: () => state.exemplars, current: () => here().seed });
  drawClasses();
  drawStrip();
  buttons();
  pointers();
  setOpacity(60);
  pickClass(state.classes.length > 1 ? 1 : 0);
  pickTool("parts");
  await show(0);
  outbox.send();
  if (!outbox.waiting.length) saved("saved", 0);
  proposals.soon(0);
}

// An action got no answer: the page says so, and the action can be tried again.
window.addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Unanswered)) return;
  event.preventDefault();
  const { status, message } = event.reason;
  showMessage(status ? message : `No answer from gansegctl (${message}). Is it still running?`);
});

begin().catch((error) => {
  $("over").hidden = false;
  $("over").firstElementChild.textContent = `This page cannot begin: ${error.message}`;
});
