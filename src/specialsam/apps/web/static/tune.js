// Correct & tune: masks made right by clicks and brush, saved with a name; tuned on; the better specialist put to use.

import { attempt, by, get, make, percent, points as inPoints, post, ask, reopened, say } from "./api.js";
import { trend } from "./charts.js";
import { countsOf, decoded, extent } from "./rle.js";
import { Stage, painted } from "./stage.js";

const MARK = [86, 180, 233], ACCEPTED = [[240, 228, 66], [0, 158, 115], [204, 121, 167], [230, 159, 0]];
const BEFORE = 20;
let stage, calls, picture = null, mask = null, drawnOn = null, prior = null, clicks = [], undone = [], accepted = [], stored = [], watching = null, list = [], offered = null, busy = 0, awaited = false;

/** Whatever the model is answering just now is no answer to what lies here from now on. */
const unasked = () => { busy++; awaited = false; };

const mode = () => document.querySelector("[name=tune-mode]:checked").value;
const brushing = () => mode() === "brush" || mode() === "eraser";

/** `called`: models(told), which lists the models anew. */
export function start(called) {
  calls = called;
  stage = new Stage(by("tune-canvas"), { point: click, stroke, key }, () => (brushing() ? "brush" : "click"));
  by("tune-mode").addEventListener("change", () => by("tune-canvas").classList.toggle("draws", brushing()));
  by("brush").addEventListener("input", () => { size(); stage.draw(); });
  for (const [id, work] of Object.entries({ "tune-undo": undo, "tune-clear": clear, accept, keep, tune, stop })) by(id).addEventListener("click", work);
  by("who").value = localStorage.getItem("who") ?? "";
  by("who").addEventListener("change", () => localStorage.setItem("who", by("who").value));
}

export function entered() {
  refresh();
  watch();
  stage.draw();
}

export function left() {
  clearTimeout(watching);
}

/** A picture to correct, with masks that are already there: a single one is opened, of several each is accepted.
    A single one of the picture that is being corrected joins what was accepted on it.
    `asked` {points, box} is what asked for the single one: further clicks are added to it. */
export function take(shown, masks, asked = null) {
  const again = shown === picture;
  picture = shown;
  by("tune-empty").hidden = true;
  by("tune-figure").hidden = false;
  stage.show(picture.bitmap, picture.height, picture.width);
  if (!again || masks.length > 1) [accepted, stored] = [masks.length > 1 ? [...masks] : [], []];
  reset(masks.length === 1 ? masks[0].slice() : null, asked);
  size();
}

function size() {
  stage.brush = (by("brush").value / 400) * Math.max(picture?.width ?? 0, picture?.height ?? 0);
}

function reset(begun = null, asked = null) {
  unasked();
  const length = picture.height * picture.width;
  mask = begun ?? new Uint8Array(length);
  drawnOn = new Int8Array(length);  // 1 painted, -1 wiped: it outlasts what the model answers to further clicks
  prior = asked?.box ?? null;
  clicks = [...(asked?.points ?? [])];
  undone = [];
  show();
}

function remember() {
  undone.push({ mask: mask.slice(), drawnOn: drawnOn.slice(), clicks: [...clicks], prior });
  if (undone.length > BEFORE) undone.shift();
}

function key(name) {
  const step = name === "[" ? -3 : name === "]" ? 3 : 0;
  if (step) {
    by("brush").value = Number(by("brush").value) + step;
    size();
    return true;
  }
  return { u: undo, a: accept, c: clear }[name]?.() ?? false;
}

/** A click asks the model with all clicks since the mask was begun; what the brush drew stays as it was drawn. */
async function click(x, y, remove) {
  remember();
  clicks.push({ x, y, label: remove || mode() === "remove" ? 0 : 1 });
  stage.points = clicks;
  stage.draw();
  const prompt = { points: clicks.map((one) => [one.x, one.y]), labels: clicks.map((one) => one.label), box: prior };
  const mine = ++busy;
  awaited = true;
  show();
  const told = await attempt(() => reopened("segment", { prompts: [prompt] }, picture));
  if (mine !== busy) return;
  awaited = false;
  if (!told) return show();
  mask = told.objects.length ? decoded(told.objects[0].rle) : new Uint8Array(mask.length);
  for (let i = 0; i < mask.length; i++) if (drawnOn[i]) mask[i] = drawnOn[i] > 0 ? 1 : 0;
  show();
}

/** Paint or wipe a disc; a stroke is undone as a whole. */
function stroke(x, y, first) {
  if (first) remember();
  const value = mode() === "brush" ? 1 : 0, radius = Math.max(0.5, stage.brush), { width, height } = picture;
  const [from, to] = first || !stroke.last ? [[x, y], [x, y]] : [stroke.last, [x, y]];
  const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / Math.max(1, radius / 2)));
  for (let i = 0; i <= steps; i++) {
    const [cx, cy] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * i) / steps);
    for (let row = Math.max(0, Math.ceil(cy - radius)); row <= Math.min(height - 1, cy + radius); row++) {
      const half = Math.sqrt(Math.max(0, radius * radius - (row - cy) ** 2));
      const [left, right] = [Math.max(0, Math.round(cx - half)), Math.min(width - 1, Math.round(cx + half))];
      if (right < left) continue;
      mask.fill(value, row * width + left, row * width + right + 1);
      drawnOn.fill(value || -1, row * width + left, row * width + right + 1);
    }
  }
  stroke.last = [x, y];
  show();
}

function undo() {
  const before = undone.pop();
  if (before) ({ mask, drawnOn, clicks, prior } = before);
  unasked();
  show();
  return true;
}

function clear() {
  if (!picture) return true;
  const before = [...undone];
  remember();
  before.push(undone.at(-1));
  reset();
  undone = before.slice(-BEFORE);
  show();
  return true;
}

const drawn = () => mask !== null && mask.includes(1);

function accept() {
  if (!drawn()) return true;
  if (awaited) {
    say("the model is still answering the last click; accept it when the answer is there");
    return true;
  }
  accepted.push(mask);
  reset();
  say(`${accepted.length} ${accepted.length === 1 ? "object" : "objects"} accepted; mark another, or save`, "good");
  return true;
}

function show() {
  if (!picture) return;
  const { height, width } = picture;
  stage.points = clicks;
  stage.layers = [...accepted.map((one, i) => painted(one, height, width, ACCEPTED[i % ACCEPTED.length], 70)), drawn() ? painted(mask, height, width, MARK) : null].filter(Boolean);
  stage.draw();
  by("tune-undo").disabled = !undone.length;
  by("tune-clear").disabled = !drawn();
  by("accept").disabled = !drawn() || awaited;
  const objects = `${accepted.length} ${accepted.length === 1 ? "object" : "objects"}`;
  const same = accepted.length === stored.length && accepted.every((one, i) => one === stored[i]);
  by("keep").disabled = same || !accepted.length;
  by("keep").textContent = !accepted.length ? "Save to the data set" : same ? `${objects} saved` : `Save ${objects} to the data set`;
  by("accepted").replaceChildren(...accepted.map((one, i) => {
    const remove = make("button", { class: "small", "aria-label": `Leave object ${i + 1} out`, onclick: () => { accepted.splice(i, 1); show(); } }, "Leave out");
    return make("li", {}, make("span", {}, `Object ${i + 1}: ${extent(one, height, width).area.toLocaleString("en")} pixels`), remove);
  }));
}

async function keep() {
  const from = picture, size = [picture.height, picture.width], sent = [...accepted];
  const masks = sent.map((one) => ({ size, counts: countsOf(one, ...size) }));
  const told = await attempt(() => reopened("corrections", { masks, who: by("who").value }, from));
  if (!told) return;
  if (picture === from) stored = sent; // they stay: a further save takes this one's place, and must hold them, too
  show();
  saved(told);
  say(`saved; the data set ${told.folder} holds ${told.pictures} ${told.pictures === 1 ? "picture" : "pictures"} with masks`, "good");
}

const refresh = () => attempt(async () => saved(await get("corrections")));

function saved(told) {
  by("set").textContent = `The data set ${told.folder} holds ${told.pictures} ${told.pictures === 1 ? "picture" : "pictures"} with masks. Tuning splits it into pictures to learn from, to choose by and to measure on.`;
  by("recent").tBodies[0].replaceChildren(...told.recent.map((one) => make("tr", {}, make("th", { scope: "row" }, one.name), make("td", { class: "text" }, one.who), make("td", { class: "text" }, one.when.replace("T", " ").slice(0, 16)), make("td", {}, String(one.objects)))));
  by("recent").closest(".card").hidden = !told.recent.length;
}

async function tune() {
  offered = null;
  const told = await attempt(() => post("tuning"));
  if (told) { say("tuning has begun"); progress(told); watch(); }
}

async function stop() {
  const told = await attempt(() => ask("DELETE", "tuning"));
  if (told) { say("tuning is stopped"); progress(told); }
}

/** Look at the tuning every second as long as it runs. */
async function watch() {
  clearTimeout(watching);
  const told = await attempt(() => get("tuning"));
  if (!told) return;
  progress(told);
  if (told.state === "running" && !by("panel-tune").hidden) watching = setTimeout(watch, 1000);
}

async function progress(told) {
  const running = told.state === "running";
  by("progress").hidden = told.state === "idle";
  by("tune").disabled = running;
  by("stop").hidden = !running;
  const words = { running: "Tuning for", done: "Done after", failed: "Failed after", stopped: "Stopped after" };
  by("tune-state").textContent = told.state === "idle" ? "" : `${words[told.state]} ${Math.round(told.seconds)} s`;
  if (by("lines").textContent !== told.lines.join("\n")) {
    by("lines").textContent = told.lines.join("\n");
    by("lines").scrollTop = by("lines").scrollHeight;
  }
  const known = told.epochs.filter((one) => one.val_iou !== null);
  by("epochs").replaceChildren(...(known.length ? [trend(known.map((one) => one.val_iou), `IoU on the validation pictures after each of ${known.length} epochs`, percent, { names: [`epoch ${known[0].epoch}`, `epoch ${known.at(-1).epoch}: validation IoU ${percent(known.at(-1).val_iou)}`] })] : []));
  if (told.state === "done" && told.model && offered !== told.model) {
    offered = told.model;
    await calls.models();
    offer(told);
  }
  if (told.state === "failed") say(`tuning failed: ${told.lines.at(-1) ?? "it said nothing"}`, "bad");
}

const verdict = (gain) => (gain.high < 0 ? "worse" : gain.low <= 0 ? "unclear" : gain.few ? "few" : "use");
const interval = (gain) => `${inPoints(gain.low)} to ${inPoints(gain.high)}`;

function offer(told) {
  const gain = told.gain, box = by("offer");
  box.className = `verdict ${gain ? verdict(gain) : ""}`;
  const words = { use: "better than its base", few: "promising, but measured on very few pictures; correct more before you rely on it", worse: "worse than its base", unclear: "neither better nor worse than its base for sure: too few held-out pictures, or too small a gain" };
  box.replaceChildren(...(gain ? [make("p", { class: "big" }, `${inPoints(gain.gain)} points`), make("p", {}, `IoU ${percent(gain.base)} \u2192 ${percent(gain.tuned)}, 95 % interval ${interval(gain)}, on ${gain.images} held-out pictures: ${words[verdict(gain)]}.`)] : [make("p", {}, "It was tuned; its run measured no gain.")]));
  if (told.guard) box.append(make("p", { class: "note" }, told.guard));
  const use = make("button", { class: "main", id: "use-new", onclick: () => choose(told.model) }, "Use it");
  const report = told.report ? [make("a", { href: told.report, target: "_blank", rel: "noopener" }, "Its report")] : [];
  box.append(make("p", { class: "row" }, use, ...report));
  box.hidden = false;
  say("a new specialist is ready", "good");
}

const choose = (id) => attempt(async () => {
  await calls.models(await post("models/use", { model: id }));
  say(`${list.find((one) => one.in_use).name} answers from now on`, "good");
});

/** All models, the newest first, each one click away. */
export function models(told) {
  list = told;
  const current = list.findIndex((one) => one.in_use);
  by("models").replaceChildren(...list.map((one, i) => {
    const facts = one.gain ? `${inPoints(one.gain.gain)} points (${interval(one.gain)}), ${one.gain.images} pictures` : one.specialist ? "no gain known" : "the base";
    const use = one.in_use ? make("span", { class: "note" }, "in use") : make("button", { class: "small", onclick: () => choose(one.id) }, i < current ? "Go back to it" : "Use it");
    return make("li", { class: one.in_use ? "used" : "" }, make("b", {}, one.name), one.run ? ` from ${one.run}` : "", make("div", { class: "note" }, facts), make("p", { class: "row" }, use));
  }).reverse());
  const used = list[current];
  if (by("use-new")) by("use-new").hidden = used?.id === offered;
}
