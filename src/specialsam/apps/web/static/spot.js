// Spot: a photograph, clicks and boxes, base and specialist side by side.

import { attempt, by, percent, reopened, save, say, shown, upload } from "./api.js";
import { compressed, countsOf, decoded, extent, union } from "./rle.js";
import { Stage, layerOf } from "./stage.js";

export const BASE = [213, 94, 0], TUNED = [86, 180, 233];
let stage, others, picture = null, steps = [], answer = null, asking = null, under = false, used = null;

const mode = () => document.querySelector("[name=spot-mode]:checked").value;

/** `calls`: correct(picture, masks, asked) and opened(picture), of the other tab. */
export function start(calls) {
  others = calls;
  stage = new Stage(
    by("spot-canvas"),
    {
      point: (x, y, remove) => step({ x, y, label: remove || mode() === "remove" ? 0 : 1 }),
      box: (box) => step({ box }),
      key: (name) => ({ f: find, u: undo, c: clear })[name]?.() ?? false,
    },
    mode,
  );
  by("spot-mode").addEventListener("change", () => by("spot-canvas").classList.toggle("draws", mode() === "box"));
  by("file").addEventListener("change", (event) => { if (event.target.files[0]) open(event.target.files[0]); event.target.value = ""; });
  for (const name of ["dragover", "dragleave", "drop"])
    addEventListener(name, (event) => {
      event.preventDefault();
      by("drop").classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0] && !by("panel-spot").hidden) open(event.dataTransfer.files[0]);
    });
  addEventListener("paste", (event) => { if (event.clipboardData.files[0] && !by("panel-spot").hidden) open(event.clipboardData.files[0]); });
  by("slider").addEventListener("input", slide);
  for (const [id, work] of Object.entries({ find, undo, clear, "save-mask": saveMask, "save-coco": saveCoco, "save-crop": saveCrop }))
    by(id).addEventListener("click", work);
  by("to-correct").addEventListener("click", () => others.correct(picture, masksOf(answer.objects), asked()));
}

export function models(list) {
  const before = used?.id;
  used = list.find((one) => one.in_use);
  by("spot-note").textContent = used?.specialist
    ? used.finder ? "Base and specialist answer the same prompts." : "Base and specialist answer the same prompts. This specialist has no finder: Find asks it on a grid of points."
    : "No specialist is in use: this is the base alone, and Find asks it on a grid of points. Tune one under Correct & tune.";
  if (before !== undefined && before !== used?.id && picture) answer?.found ? find() : steps.length ? again() : undefined;
}

async function open(file) {
  say(`reading ${file.name} ...`);
  const began = performance.now();
  const told = await attempt(() => upload(file));
  if (!told) return;
  let bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap || bitmap.width !== told.width || bitmap.height !== told.height)  // a format of the server's alone
    bitmap = await fetch(shown(told.image)).then((one) => one.blob()).then(createImageBitmap).catch(() => null);
  picture = { id: told.image, name: file.name.replace(/\.[^.]*$/, "") || "picture", height: told.height, width: told.width, bitmap, file };
  steps = [];
  answer = null;
  asking = null;  // what was asked about the picture before is nobody's answer now
  by("spot-figure").hidden = false;
  by("drop").classList.add("small");
  by("drop").querySelector("span").textContent = `${file.name}, ${told.width} \u00d7 ${told.height} pixels. Drop or choose another.`;
  stage.show(bitmap, told.height, told.width);
  others.opened(picture);
  show();
  say(`ready after ${Math.round(performance.now() - began)} ms: click on what you look for, drag a box around it, or press Find`, "good");
}

function step(one) {
  if (answer?.found) steps = [];
  if (one.box) steps = steps.filter((other) => !other.box);
  steps.push(one);
  again();
}

function undo() {
  if (answer?.found) steps = [];
  else steps.pop();
  steps.length ? again() : clear();
  return true;
}

function clear() {
  steps = [];
  answer = null;
  asking = null;
  show();
  return true;
}

/** What asked for the answer that is shown; what was found alone is asked for by its box. */
function asked() {
  if (answer.found) return { points: [], box: answer.objects.length === 1 ? answer.objects[0].box : null };
  return { points: steps.filter((one) => !one.box), box: steps.find((one) => one.box)?.box ?? null };
}

/** Ask with all clicks so far; while an answer is on its way the newest question alone waits. */
function again() {
  const points = steps.filter((one) => !one.box), box = steps.find((one) => one.box)?.box ?? null;
  stage.points = points;
  stage.box = box;
  stage.draw();
  const prompt = { points: points.map(({ x, y }) => [x, y]), labels: points.map(({ label }) => label), box };
  question("segment", { prompts: [prompt] }, false);
}

function find() {
  if (!picture) return true;
  steps = [];
  stage.points = [];
  stage.box = null;
  stage.draw();
  say("looking ...");
  question("find", {}, true);
  return true;
}

async function question(path, body, found) {
  asking = { path, body, found, picture };
  if (under) return;
  under = true;
  while (asking) {
    const now = asking, began = performance.now();
    const told = await attempt(() => reopened(now.path, now.body, now.picture));
    if (asking === now) {
      asking = null;
      if (told) {
        answer = { ...told, found: now.found, time: performance.now() - began };
        show();
      }
    }
  }
  under = false;
}

const masksOf = (objects) => objects.map((one) => decoded(one.rle));

function show() {
  const beside = answer?.beside.length > 0 && used?.specialist;
  stage.points = steps.filter((one) => !one.box);
  stage.box = steps.find((one) => one.box)?.box ?? null;
  const layer = (objects, colour, side) => {
    const made = objects.length ? layerOf(masksOf(objects), picture.height, picture.width, colour) : null;
    return made ? [{ ...made, side }] : [];
  };
  stage.layers = answer
    ? [...(beside ? layer(answer.beside, BASE, "left") : []), ...layer(answer.objects, used?.specialist ? TUNED : BASE, beside ? "right" : null)]
    : [];
  slide();
  by("slide").hidden = !beside;
  by("answer").hidden = !answer;
  for (const id of ["undo", "clear"]) by(id).disabled = !steps.length && !answer;
  by("find").disabled = !picture;
  if (!answer) return;
  const objects = answer.objects;
  by("count").textContent = objects.length;
  by("score").textContent = objects.length ? percent(objects[0].score) + " %" : "\u2013";
  by("time").textContent = `${Math.round(answer.time)} ms`;
  by("agree").textContent = beside && objects.length ? `Base and specialist share ${percent(overlap())} % of what either shows (IoU).` : "";
  for (const id of ["save-mask", "save-coco", "save-crop", "to-correct"]) by(id).disabled = !objects.length;
  if (!by("panel-spot").hidden) say(objects.length ? `${objects.length} ${objects.length === 1 ? "object" : "objects"} in ${Math.round(answer.time)} ms` : "nothing found", objects.length ? "good" : "");
}

function overlap() {
  const length = picture.height * picture.width;
  const [one, other] = [answer.objects, answer.beside].map((objects) => union(masksOf(objects), length));
  let both = 0, any = 0;
  for (let i = 0; i < length; i++) { both += one[i] & other[i]; any += one[i] | other[i]; }
  return any ? both / any : 0;
}

function slide() {
  const beside = answer?.beside.length > 0 && used?.specialist;
  stage.divider = beside ? by("slider").value / 100 : null;
  stage.draw();
}

async function saveMask() {
  const canvas = new OffscreenCanvas(picture.width, picture.height), context = canvas.getContext("2d");
  const pixels = context.createImageData(picture.width, picture.height);
  const mask = union(masksOf(answer.objects), picture.height * picture.width);
  mask.forEach((value, i) => pixels.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  save(await canvas.convertToBlob(), `${picture.name}-mask.png`);
}

function saveCoco() {
  const size = [picture.height, picture.width];
  const annotations = answer.objects.map((one, i) => {
    const mask = decoded(one.rle), { x0, y0, x1, y1, area } = extent(mask, ...size);
    const rle = { size, counts: compressed(countsOf(mask, ...size)) };
    return { id: i + 1, image_id: 1, category_id: 1, segmentation: rle, bbox: [x0, y0, x1 - x0 + 1, y1 - y0 + 1], area, iscrowd: 0, score: one.score };
  });
  const images = [{ id: 1, file_name: picture.file.name, width: picture.width, height: picture.height }];
  const coco = { images, annotations, categories: [{ id: 1, name: "object" }] };
  save(new Blob([JSON.stringify(coco)], { type: "application/json" }), `${picture.name}-coco.json`);
}

async function saveCrop() {
  const { x0, y0, x1, y1 } = extent(union(masksOf(answer.objects), picture.height * picture.width), picture.height, picture.width);
  const margin = Math.round(0.1 * Math.max(x1 - x0, y1 - y0));
  const [left, top] = [Math.max(0, x0 - margin), Math.max(0, y0 - margin)];
  const [wide, tall] = [Math.min(picture.width, x1 + margin + 1) - left, Math.min(picture.height, y1 + margin + 1) - top];
  const canvas = new OffscreenCanvas(wide, tall);
  const scale = picture.bitmap.width / picture.width;  // of a picture that the server had to scale down
  canvas.getContext("2d").drawImage(picture.bitmap, left * scale, top * scale, wide * scale, tall * scale, 0, 0, wide, tall);
  save(await canvas.convertToBlob(), `${picture.name}-crop.png`);
}
