// A picture with masks, points and a box on a canvas; pointers and keys tell it in the picture's own pixels.

import { extent, union } from "./rle.js";

const POINT = 7;
const DRAG = 6;

/** A mask as a layer: filled faintly, its border opaque, no larger than its extent; colour is [r, g, b]. */
export function painted(mask, height, width, [r, g, b], fill = 96) {
  const around = extent(mask, height, width);
  if (!around) return null;
  const { x0, y0, x1, y1 } = around;
  const [wide, tall] = [x1 - x0 + 1, y1 - y0 + 1];
  const canvas = new OffscreenCanvas(wide, tall);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(wide, tall);
  const line = Math.max(1, Math.round(Math.max(height, width) / 500));
  for (let y = y0; y <= y1; y++)
    for (let x = x0; x <= x1; x++) {
      const at = y * width + x;
      if (!mask[at]) continue;
      const edge = x < line || y < line || x >= width - line || y >= height - line ||
        !mask[at - line] || !mask[at + line] || !mask[at - line * width] || !mask[at + line * width];
      pixels.data.set([r, g, b, edge ? 255 : fill], 4 * ((y - y0) * wide + x - x0));
    }
  context.putImageData(pixels, 0, 0);
  return { canvas, x: x0, y: y0 };
}

/** All masks of one model in one layer; null where there is nothing. */
export const layerOf = (masks, height, width, colour, fill) =>
  painted(masks.length === 1 ? masks[0] : union(masks, height * width), height, width, colour, fill);

export class Stage {
  /** `told` has any of point(x, y, remove), box([x0, y0, x1, y1]), stroke(x, y, first), key(name); `tool()` says what a drag does. */
  constructor(canvas, told, tool = () => "click") {
    Object.assign(this, { canvas, told, tool, picture: null, height: 0, width: 0, layers: [], points: [], box: null });
    Object.assign(this, { divider: null, cursor: null, brush: 0, corner: null, drag: null });
    this.context = canvas.getContext("2d");
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", () => { this.drag = null; this.draw(); });
    canvas.addEventListener("pointerleave", () => { if (this.tool() === "brush") { this.cursor = null; this.draw(); } });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.keyed(event));
    canvas.addEventListener("blur", () => { this.cursor = null; this.draw(); });
  }

  show(picture, height, width) {
    Object.assign(this, { picture, height, width, layers: [], points: [], box: null, cursor: null, corner: null });
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    for (const one of this.canvas.parentElement.children) one.style.maxWidth = `calc(72vh * ${width / height})`;
    this.draw();
  }

  /** Displayed pixels of a pixel of the picture. */
  get scale() { return this.canvas.clientWidth / this.width || 1; }

  place(event) {
    const frame = this.canvas.getBoundingClientRect();
    const inside = (value, side) => Math.min(side - 1, Math.max(0, value));
    return [
      inside(((event.clientX - frame.left) / frame.width) * this.width, this.width),
      inside(((event.clientY - frame.top) / frame.height) * this.height, this.height),
    ];
  }

  pressed(event) {
    if (!this.picture || event.button > 2 || event.button === 1) return;
    const [x, y] = this.place(event);
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x, y, at: [event.clientX, event.clientY], remove: event.button === 2 || event.shiftKey, box: false };
    if (this.tool() === "brush") this.told.stroke(x, y, true);
  }

  moved(event) {
    if (!this.picture) return;
    const [x, y] = this.place(event);
    if (this.tool() === "brush") {
      this.cursor = [x, y];
      if (this.drag) this.told.stroke(x, y, false);
      else this.draw();
      return;
    }
    if (!this.drag || this.drag.remove) return;
    const far = Math.hypot(event.clientX - this.drag.at[0], event.clientY - this.drag.at[1]) > DRAG;
    if (far || this.drag.box) {
      this.drag.box = true;
      this.draft = sorted(this.drag.x, this.drag.y, x, y);
      this.draw();
    }
  }

  released(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag || this.tool() === "brush") return;
    if (drag.box && this.told.box) this.told.box(this.draft);
    else if (!drag.box && this.tool() !== "box") this.told.point(drag.x, drag.y, drag.remove);
    this.draft = null;
    this.draw();
  }

  keyed(event) {
    if (!this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const name = event.key.toLowerCase();
    this.cursor ??= [this.width / 2, this.height / 2];
    if (event.key in steps) {
      const step = (Math.max(this.width, this.height) / 100) * (event.shiftKey ? 5 : 1);
      const [dx, dy] = steps[event.key];
      this.cursor = [
        Math.min(this.width - 1, Math.max(0, this.cursor[0] + dx * step)),
        Math.min(this.height - 1, Math.max(0, this.cursor[1] + dy * step)),
      ];
      if (this.corner) this.draft = sorted(...this.corner, ...this.cursor);
    } else if (event.key === "Enter" || event.key === " ") {
      if (this.tool() === "brush") { this.told.stroke(...this.cursor, true); }
      else this.told.point(...this.cursor, event.shiftKey);
    } else if (name === "b" && this.told.box) {
      if (!this.corner) this.corner = [...this.cursor];
      else {
        this.told.box(sorted(...this.corner, ...this.cursor));
        this.corner = this.draft = null;
      }
    } else if (!this.told.key?.(name)) return;
    event.preventDefault();
    this.draw();
  }

  draw() {
    const { canvas, context: c } = this;
    const ratio = devicePixelRatio || 1;
    const [wide, tall] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!wide || !tall) return;
    if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, wide, tall);
    if (!this.picture) return;
    c.imageSmoothingEnabled = wide < this.width;
    c.drawImage(this.picture, 0, 0, wide, tall);
    const split = this.divider === null ? null : Math.round(wide * this.divider);
    const [across, down] = [wide / this.width, tall / this.height];
    for (const { canvas: layer, x, y, side } of this.layers) {
      c.save();
      if (split !== null && side) {
        c.beginPath();
        c.rect(side === "left" ? 0 : split, 0, side === "left" ? split : wide - split, tall);
        c.clip();
      }
      c.drawImage(layer, x * across, y * down, layer.width * across, layer.height * down);
      c.restore();
    }
    c.scale(ratio, ratio);
    if (split !== null && this.layers.some(({ side }) => side)) this.drawDivider(split / ratio, tall / ratio);
    for (const box of [this.box, this.draft]) if (box) this.drawBox(box);
    for (const point of this.points) this.drawPoint(point);
    if (this.cursor) this.drawCursor();
  }

  drawDivider(x, tall) {
    const c = this.context;
    both(c, 3, 1.5, () => { c.beginPath(); c.moveTo(x, 0); c.lineTo(x, tall); });
    c.font = "600 12px system-ui, sans-serif";
    for (const [text, end, edge] of [["base", "right", x - 8], ["specialist", "left", x + 8]]) {
      const wide = c.measureText(text).width;
      const left = end === "right" ? edge - wide : edge;
      if (left < 2 || left + wide > this.canvas.clientWidth - 2) continue;
      c.fillStyle = "rgba(20, 26, 34, .78)";
      c.fillRect(left - 5, 7, wide + 10, 20);
      c.fillStyle = "#fff";
      c.fillText(text, left, 21);
    }
  }

  drawBox([x0, y0, x1, y1]) {
    const c = this.context, s = this.scale;
    both(c, 4, 2, () => { c.beginPath(); c.rect(x0 * s, y0 * s, (x1 - x0) * s, (y1 - y0) * s); }, [7, 4]);
  }

  drawPoint({ x, y, label }) {
    const c = this.context, s = this.scale, [px, py] = [(x + 0.5) * s, (y + 0.5) * s];
    c.beginPath();
    c.arc(px, py, POINT, 0, 7);
    c.fillStyle = label ? "#0b6cb2" : "#b33f08";
    c.fill();
    c.strokeStyle = "#fff";
    c.lineWidth = 2;
    c.stroke();
    c.beginPath();
    c.moveTo(px - 3.5, py);
    c.lineTo(px + 3.5, py);
    if (label) { c.moveTo(px, py - 3.5); c.lineTo(px, py + 3.5); }
    c.stroke();
  }

  drawCursor() {
    const c = this.context, s = this.scale, [x, y] = this.cursor.map((value) => value * s);
    if (this.tool() === "brush") {
      both(c, 3, 1.5, () => { c.beginPath(); c.arc(x, y, Math.max(1, this.brush * s), 0, 7); });
      return;
    }
    both(c, 4, 1.5, () => {
      c.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { c.moveTo(x + 4 * dx, y + 4 * dy); c.lineTo(x + 14 * dx, y + 14 * dy); }
    });
  }
}

/** A line that is seen on light and on dark. */
function both(c, outer, inner, path, dash = []) {
  for (const [width, colour] of [[outer, "rgba(20, 26, 34, .8)"], [inner, "#fff"]]) {
    path();
    c.setLineDash(colour === "#fff" ? dash : []);
    c.lineWidth = width;
    c.strokeStyle = colour;
    c.stroke();
  }
  c.setLineDash([]);
}

function sorted(x0, y0, x1, y1) {
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)].map(Math.round);
}
