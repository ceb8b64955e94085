// Pixels and nothing else: what the tools touch, as arrays over the image. No page, no network.

export const EMPTY = 255;

/** Set pixels of a Uint8Array as [start, length, start, length, ...], rising. */
export function runsOf(bits) {
  const runs = [];
  for (let i = 0; i < bits.length; i++) {
    if (!bits[i]) continue;
    const start = i;
    while (i < bits.length && bits[i]) i++;
    runs.push(start, i - start);
  }
  return runs;
}

/** [value, length, ...] to a Uint8Array of n. */
export function decode(runs, n) {
  const mask = new Uint8Array(n);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    mask.fill(runs[i], at, at + runs[i + 1]);
    at += runs[i + 1];
  }
  return mask;
}

/** The inverse of decode. */
export function encode(mask) {
  const runs = [];
  for (let i = 0; i < mask.length; ) {
    const start = i;
    while (i < mask.length && mask[i] === mask[start]) i++;
    runs.push(mask[start], i - start);
  }
  return runs;
}

/** A disc of radius r (0: one pixel) about a pixel. */
export function disc(bits, width, height, x, y, r) {
  const reach = (r + 0.35) * (r + 0.35);
  for (let v = Math.max(0, y - r); v <= Math.min(height - 1, y + r); v++) {
    for (let u = Math.max(0, x - r); u <= Math.min(width - 1, x + r); u++) {
      if ((u - x) * (u - x) + (v - y) * (v - y) <= reach) bits[v * width + u] = 1;
    }
  }
}

/** Discs along a line, so that a quick hand leaves no gaps. */
export function drag(bits, width, height, from, to, r) {
  const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
  for (let i = 0; i <= steps; i++) {
    const x = Math.round(from.x + ((to.x - from.x) * i) / steps);
    const y = Math.round(from.y + ((to.y - from.y) * i) / steps);
    disc(bits, width, height, x, y, r);
  }
}

/** Pixels whose centres lie inside a polygon (even-odd), and those on its corners. */
export function polygon(bits, width, height, corners) {
  for (let y = 0; y < height; y++) {
    const cuts = [];
    for (let i = 0; i < corners.length; i++) {
      const a = corners[i], b = corners[(i + 1) % corners.length];
      if ((a.y <= y) !== (b.y <= y)) cuts.push(a.x + ((y - a.y) * (b.x - a.x)) / (b.y - a.y));
    }
    cuts.sort((p, q) => p - q);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      for (let x = Math.max(0, Math.ceil(cuts[i])); x <= Math.min(width - 1, Math.floor(cuts[i + 1])); x++) {
        bits[y * width + x] = 1;
      }
    }
  }
  for (const { x, y } of corners) bits[y * width + x] = 1;
}

/** The pixels of one value that hang together with (x, y) over edges. */
export function flood(bits, mask, width, height, x, y) {
  const value = mask[y * width + x];
  const open = [y * width + x];
  bits[open[0]] = 1;
  while (open.length) {
    const p = open.pop(), u = p % width;
    for (const q of [u > 0 ? p - 1 : -1, u < width - 1 ? p + 1 : -1, p - width, p + width]) {
      if (q >= 0 && q < mask.length && !bits[q] && mask[q] === value) {
        bits[q] = 1;
        open.push(q);
      }
    }
  }
}

/** The pixels at which a map has a value. */
export function pixelsEqual(map, value) {
  const bits = new Uint8Array(map.length);
  for (let i = 0; i < map.length; i++) bits[i] = map[i] === value ? 1 : 0;
  return bits;
}
