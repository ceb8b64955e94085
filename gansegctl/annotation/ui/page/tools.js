// The tools: parts of the image, brush, eraser, polygon, fill. Each ends in one stroke.

import { getBytes, postForBytes } from "./api.js";
import { $, active, canvas, height, now, outbox, refresh, showMessage, width } from "./page.js";
import * as strokes from "./strokes.js";

const mapKey = () => `${now.place}/${now.level}`;

export async function loadParts() {
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

function commit(bits, tool) {
  const value = active();
  const runs = strokes.runsOf(bits);
  if (!runs.length) return;
  for (let i = 0; i < bits.length; i++) if (bits[i]) now.mask[i] = value;
  outbox.put({ kind: "paint", exemplar: now.place, class: value, runs, tool });
  $("undo").disabled = false;
  refresh();
}

export function back(kind) {
  dropDraft();
  outbox.put({ kind, exemplar: now.place });
}

export function dropDraft() {
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

export function penMove(spot) {
  strokes.drag(canvas.draft, width(), height(), now.pen, spot, canvas.radius);
  now.pen = spot;
  refresh();
}

export function penUp() {
  const bits = canvas.draft;
  dropDraft();
  if (bits) commit(bits, now.tool);
}

export function closePolygon() {
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
export function use(spot, split, byKey) {
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

export function fillRest() {
  commit(strokes.pixelsEqual(now.mask, strokes.EMPTY), "rest");
}
