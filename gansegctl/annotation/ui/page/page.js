// The state that the modules of the page share: the session, and where the annotator is in it.

import { EMPTY } from "./strokes.js";

export const $ = (id) => document.getElementById(id);
/** place: of the image shown; cls: the class; level: of the parts; pen: the last pixel of a stroke under way; key: the
 *  brush is down by a key. */
export const now = { place: 0, tool: "parts", cls: 0, level: 1, mask: null, parts: new Map(), pen: null, key: false };
export let state, canvas, outbox, proposals;

/** Set them, once: the session as the server describes it, and the objects that draw, send and propose. */
export function share(session, drawing, sender, panel) {
  [state, canvas, outbox, proposals] = [session, drawing, sender, panel];
}

export const width = () => state.size[1];
export const height = () => state.size[0];
export const here = () => state.exemplars[now.place];
export const active = () => (now.tool === "eraser" ? EMPTY : now.cls);

export function showMessage(text) {
  $("spot").textContent = text;
}

export function refresh() {
  canvas.drawMask(now.mask, active());
  canvas.drawInk();
}
