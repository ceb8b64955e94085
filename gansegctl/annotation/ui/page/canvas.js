// The three canvases: the image, the mask in its classes' colours, and the ink on top (parts, cursor, corners).

import { $ } from "./page.js";
import { EMPTY } from "./strokes.js";

const SHARPEST = 2048; // pixels a side of the ink canvas, at most

export class Canvas {
  constructor(width, height, colours) {
    this.width = width;
    this.height = height;
    this.colours = colours;
    this.zoom = 1;
    this.parts = null; // the map whose outlines are drawn
    this.hover = -1; // the part under the pointer
    this.corners = [];
    this.cursor = { x: width >> 1, y: height >> 1 };
    this.radius = 0;
    this.draft = null; // pixels of the stroke being made
    for (const id of ["image", "mask"]) Object.assign($(id), { width, height });
    new ResizeObserver(() => this.fit()).observe($("stage"));
    this.fit();
  }

  fit() {
    const stage = $("stage");
    const room = Math.min((stage.clientWidth - 16) / this.width, (stage.clientHeight - 16) / this.height);
    const scale = Math.max(room, 0.1) * this.zoom;
    const [w, h] = [Math.round(this.width * scale), Math.round(this.height * scale)];
    if (this.scale === scale) return;
    this.scale = scale;
    $("canvas").style.width = `${w}px`;
    $("canvas").style.height = `${h}px`;
    const sharp = Math.min(window.devicePixelRatio || 1, SHARPEST / Math.max(w, h));
    Object.assign($("ink"), { width: Math.round(w * sharp), height: Math.round(h * sharp) });
    this.drawInk();
  }

  setZoom(zoom) {
    const stage = $("stage");
    const across = (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth;
    const down = (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight;
    this.zoom = Math.min(Math.max(zoom, 1), 16);
    this.fit();
    stage.scrollLeft = across * stage.scrollWidth - stage.clientWidth / 2;
    stage.scrollTop = down * stage.scrollHeight - stage.clientHeight / 2;
    $("zoom").textContent = this.zoom === 1 ? "fit" : `${Math.round(this.zoom * 100)} %`;
  }

  /** The pixel under a pointer event, or null beside the image. */
  at(event) {
    const box = $("ink").getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    return x >= 0 && y >= 0 && x < this.width && y < this.height ? { x, y } : null;
  }

  reveal() {
    const stage = $("stage"), s = this.scale, box = $("canvas");
    const x = box.offsetLeft - stage.offsetLeft + this.cursor.x * s, y = box.offsetTop - stage.offsetTop + this.cursor.y * s;
    if (x < stage.scrollLeft || x > stage.scrollLeft + stage.clientWidth - s) stage.scrollLeft = x - stage.clientWidth / 2;
    if (y < stage.scrollTop || y > stage.scrollTop + stage.clientHeight - s) stage.scrollTop = y - stage.clientHeight / 2;
  }

  drawImage(image) {
    $("image").getContext("2d").drawImage(image, 0, 0);
  }

  drawMask(mask, draftClass) {
    const context = $("mask").getContext("2d");
    const pixels = context.createImageData(this.width, this.height);
    for (let i = 0; i < mask.length; i++) {
      const value = this.draft && this.draft[i] ? draftClass : mask[i];
      if (value === EMPTY) continue;
      const [r, g, b] = this.colours[value];
      pixels.data.set([r, g, b, 255], i * 4);
    }
    context.putImageData(pixels, 0, 0);
  }

  drawInk() {
    const ink = $("ink"), context = ink.getContext("2d");
    const s = ink.width / this.width;
    context.clearRect(0, 0, ink.width, ink.height);
    if (this.parts) {
      this.outline(context, s, (p, q) => this.parts[p] !== this.parts[q], "rgb(255 255 255 / 38%)", 1);
      if (this.hover >= 0) {
        const inside = (p) => this.parts[p] === this.hover;
        this.outline(context, s, (p, q) => inside(p) !== inside(q), "#000", 4);
        this.outline(context, s, (p, q) => inside(p) !== inside(q), "#fff", 2);
      }
    }
    if (this.corners.length) {
      context.beginPath();
      for (const { x, y } of [...this.corners, this.cursor]) context.lineTo((x + 0.5) * s, (y + 0.5) * s);
      this.stroke(context);
      for (const { x, y } of this.corners) {
        context.fillStyle = "#fff";
        context.fillRect((x + 0.5) * s - 3, (y + 0.5) * s - 3, 6, 6);
      }
    }
    const { x, y } = this.cursor, r = this.radius;
    context.beginPath();
    if (r > 0) context.arc((x + 0.5) * s, (y + 0.5) * s, (r + 0.5) * s, 0, 7);
    else context.rect(x * s, y * s, s, s);
    this.stroke(context);
  }

  stroke(context) {
    context.lineWidth = 3;
    context.strokeStyle = "rgb(0 0 0 / 75%)";
    context.stroke();
    context.lineWidth = 1.25;
    context.strokeStyle = "#fff";
    context.stroke();
  }

  outline(context, s, differ, colour, thick) {
    const { width, height } = this;
    context.beginPath();
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const p = y * width + x;
        if (x + 1 < width && differ(p, p + 1)) {
          context.moveTo((x + 1) * s, y * s);
          context.lineTo((x + 1) * s, (y + 1) * s);
        }
        if (y + 1 < height && differ(p, p + width)) {
          context.moveTo(x * s, (y + 1) * s);
          context.lineTo((x + 1) * s, (y + 1) * s);
        }
      }
    }
    context.lineWidth = thick;
    context.strokeStyle = colour;
    context.stroke();
  }
}
