// Small charts as SVG, drawn in the page's own colours.

const SPACE = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const text = (x, y, words, anchor = "start") => svg("text", { x, y, "text-anchor": anchor }, words);

/** A frame of `wide` x `tall` that says in words what it shows. */
export const frame = (wide, tall, label, ...children) =>
  svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": label }, ...children);

/** A line through values; `format` writes the ends of the axis, `level` is drawn across. */
export function trend(values, label, format, { wide = 300, tall = 96, level = null, names = [] } = {}) {
  const all = level === null ? values : [...values, level];
  let [low, high] = [Math.min(...all), Math.max(...all)];
  if (high - low < 1e-9) [low, high] = [low - Math.abs(low) * 0.1 - 1e-3, high + Math.abs(high) * 0.1 + 1e-3];
  const x = (i) => 46 + (values.length > 1 ? (i * (wide - 58)) / (values.length - 1) : (wide - 58) / 2);
  const y = (value) => tall - 20 - ((value - low) / (high - low)) * (tall - 32);
  const points = values.map((value, i) => `${x(i)},${y(value)}`).join(" ");
  return frame(wide, tall, label,
    svg("line", { x1: 46, y1: tall - 20, x2: wide - 8, y2: tall - 20, class: "axis" }),
    text(40, y(high) + 4, format(high), "end"), text(40, y(low) + 4, format(low), "end"),
    ...(level === null ? [] : [svg("line", { x1: 46, y1: y(level), x2: wide - 8, y2: y(level), class: "faint" })]),
    svg("polyline", { points, class: "tuned" }),
    ...(values.length <= 40 ? values.map((value, i) => svg("circle", { cx: x(i), cy: y(value), r: 3, class: "dot" })) : []),
    ...(names.length ? [text(46, tall - 5, names[0]), text(wide - 8, tall - 5, names[names.length - 1], "end")] : []),
  );
}

/** Bars of counts; `ends` are written below the first and the last. */
export function bars(counts, label, ends, { wide = 900, tall = 130 } = {}) {
  const most = Math.max(1, ...counts), step = (wide - 44) / counts.length;
  return frame(wide, tall, label,
    svg("line", { x1: 36, y1: tall - 22, x2: wide - 8, y2: tall - 22, class: "axis" }),
    text(30, 16, String(most), "end"), text(30, tall - 20, "0", "end"),
    ...counts.map((count, i) => svg("rect", {
      x: 36 + i * step + 0.08 * step, width: 0.84 * step, y: tall - 22 - (count / most) * (tall - 36), height: (count / most) * (tall - 36), class: "bar", rx: Math.min(2, step / 4),
    })),
    text(36, tall - 6, ends[0]), text(wide - 8, tall - 6, ends[1], "end"),
  );
}

/** A strip of web with its events: metres along, millimetres across. */
export function roll(metres, width, events, label, { wide = 900, tall = 190 } = {}) {
  const x = (metre) => 44 + (metre / Math.max(metres, 1e-3)) * (wide - 56), y = (mm) => 10 + (mm / Math.max(width, 1e-3)) * (tall - 48);
  const marks = events.map((one) => {
    const place = { cx: x((one.along_m[0] + one.along_m[1]) / 2), cy: y((one.across_mm[0] + one.across_mm[1]) / 2) };
    const title = svg("title", {}, `${one.severity}, ${((one.along_m[0] + one.along_m[1]) / 2).toFixed(2)} m`);
    if (one.severity === "minor") return svg("circle", { ...place, r: 4.5, class: one.severity }, title);
    const turn = one.severity === "critical" ? { transform: `rotate(45 ${place.cx} ${place.cy})` } : {};
    return svg("rect", { x: place.cx - 4.5, y: place.cy - 4.5, width: 9, height: 9, class: one.severity, ...turn }, title);
  });
  return frame(wide, tall, label,
    svg("rect", { x: 44, y: 10, width: wide - 56, height: tall - 48, class: "web", rx: 3 }),
    text(38, 20, "0", "end"), text(38, tall - 38, `${Math.round(width)}`, "end"), text(4, (tall - 28) / 2 + 4, "mm"),
    text(44, tall - 22, "0 m"), text(wide - 12, tall - 22, `${metres.toFixed(1)} m`, "end"),
    ...marks, ...legend(tall),
  );
}

function legend(tall) {
  const y = tall - 5;
  return [["minor", 92], ["major", 156], ["critical", 220]].flatMap(([name, x]) => [
    name === "minor" ? svg("circle", { cx: x, cy: y - 4, r: 4, class: name }) : svg("rect", { x: x - 4, y: y - 8, width: 8, height: 8, class: name, ...(name === "critical" ? { transform: `rotate(45 ${x} ${y - 4})` } : {}) }),
    text(x + 10, y, name),
  ]);
}
