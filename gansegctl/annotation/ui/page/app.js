// The page: images of the strip, classes and options, and how a session begins and ends. Tools are in tools.js, pointer
// and keys in input.js, pixels in strokes.js, canvases in canvas.js, the server in api.js.

import { Outbox, Unanswered, getBytes, getJson, getImage, postJson } from "./api.js";
import { Canvas } from "./canvas.js";
import { listen } from "./input.js";
import { $, canvas, height, here, now, outbox, proposals, refresh, share, showMessage, state, width } from "./page.js";
import { Proposals, element } from "./proposals.js";
import * as strokes from "./strokes.js";
import { back, dropDraft, fillRest, loadParts } from "./tools.js";

history.replaceState(null, "", "/"); // the token leaves the address bar; the cookie stays

// -- where things stand ------------------------------------------------------------------------------------------

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
}

async function begin() {
  const session = await getJson("api/state");
  const [rows, columns] = session.size;
  $("dataset").textContent = (session.about.dataset || "").split("/").pop();
  $("dataset").title = session.about.dataset || "";
  now.mask = new Uint8Array(rows * columns).fill(strokes.EMPTY);
  share(
    session,
    new Canvas(columns, rows, session.classes.map((c) => c.colour)),
    new Outbox(answered, saved),
    new Proposals({ add, show, take, places: () => state.exemplars, current: () => here().seed }),
  );
  drawClasses();
  drawStrip();
  buttons();
  listen({ pickTool, pickClass, pickLevel, setBrush, setOpacity, show });
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
