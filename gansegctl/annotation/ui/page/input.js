// Pointer and keys: the action that each of them calls.

import { $, canvas, height, now, refresh, showMessage, state, width } from "./page.js";
import { EMPTY } from "./strokes.js";
import { back, closePolygon, dropDraft, fillRest, penMove, penUp, use } from "./tools.js";

const TOOLS = { g: "parts", b: "brush", e: "eraser", l: "polygon", f: "fill" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Listen from now on. actions: { pickTool, pickClass, pickLevel, setBrush, setOpacity, show }. */
export function listen(actions) {
  const keys = keysOf(actions);
  listenToPointers();
  document.addEventListener("keydown", (event) => onKey(event, actions, keys));
}

function describe() {
  const { x, y } = canvas.cursor, p = y * width() + x, value = now.mask[p];
  const what = value === EMPTY ? "not painted" : state.classes[value].name;
  return `Row ${y + 1}, column ${x + 1}: ${what}`;
}

function moveTo(spot) {
  canvas.cursor = spot;
  const part = canvas.parts ? canvas.parts[spot.y * width() + spot.x] : -1;
  if (now.pen) penMove(spot);
  canvas.hover = part;
  canvas.drawInk();
}

function listenToPointers() {
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

const keysOf = ({ pickClass, pickLevel, setBrush, setOpacity, show }) => ({
  z: () => back("undo"), y: () => back("redo"), r: fillRest,
  d: () => pickLevel((now.level + 1) % state.levels),
  o: () => setOpacity((Number($("opacity").value) + 20) % 120),
  ",": () => setBrush(Number($("brush").value) - 1), ".": () => setBrush(Number($("brush").value) + 1),
  "+": () => canvas.setZoom(canvas.zoom * 1.5), "=": () => canvas.setZoom(canvas.zoom * 1.5), "-": () => canvas.setZoom(canvas.zoom / 1.5),
  n: () => show(now.place + 1), p: () => show(now.place - 1),
  "[": () => pickClass(now.cls - 1), "]": () => pickClass(now.cls + 1),
  "?": () => $("help").showModal(),
});

function onKey(event, { pickClass, pickTool }, keys) {
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
  else if (keys[key]) keys[key]();
  else if (/^[0-9]$/.test(key)) {
    const k = key === "0" ? 9 : Number(key) - 1;
    if (k < state.classes.length) pickClass(k);
  } else return;
  event.preventDefault();
}
