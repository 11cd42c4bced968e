// Line: what an inspection shows and stored, looked at every second while this tab is open.

import { attempt, by, get, make } from "./api.js";
import { bars, roll, trend } from "./charts.js";

const KEPT = 2000, ROWS = 60, BINS = 48, LATENCIES = 240;
let timer = null, last = 0, events = [], latencies = [], open = false, streamed = false;

export function start() {
  by("live").addEventListener("error", () => { streamed = false; by("live").hidden = true; });
  by("roll-page").addEventListener("click", () => {
    const frame = by("roll-frame");
    frame.hidden = !frame.hidden;
    if (!frame.hidden) frame.src = "/api/v1/line/roll";
  });
}

export function entered() {
  open = true;
  look();
}

export function left() {
  open = false;
  clearTimeout(timer);
  by("live").removeAttribute("src");  // ends the stream
  streamed = false;
}

async function look() {
  clearTimeout(timer);
  const told = await attempt(() => get(`line?after=${last}`));
  if (!open) return;
  if (told) show(told);
  timer = setTimeout(look, 1000);
}

function show(told) {
  by("line-none").hidden = told.watched;
  by("line-all").hidden = !told.watched;
  if (!told.watched) return;
  if (told.total < events.length) events = [];  // another roll under the same name
  events = [...events, ...told.events].slice(-KEPT);
  last = events.at(-1)?.seq ?? 0;
  by("line-blind").hidden = told.picture;
  if (told.picture && !streamed) {
    streamed = true;
    by("live").hidden = false;
    by("live").src = `/api/v1/line/stream?${Date.now()}`;
  }
  by("line-title").textContent = [told.camera, told.job && `job ${told.job}`, told.roll && `roll ${told.roll}`].filter(Boolean).join(", ") || "Line";
  const n = told.numbers, ms = (value) => `${Math.round(1000 * value)} ms`;
  facts({
    pictures: n.pictures?.toLocaleString("en"), "a second": n.fps?.toFixed(1), events: told.total.toLocaleString("en"), position: `${told.metres.toFixed(2)} m`,
    "latency, p50": n.p50 === undefined ? undefined : ms(n.p50), p95: n.p95 === undefined ? undefined : ms(n.p95), "passed over": n.passed, lost: n.lost,
    "alarms from": n.threshold?.toFixed(3), "score now": n.score?.toFixed(3),
  });
  by("line-age").textContent = told.age === null ? "The inspection has written no numbers yet." : told.age > 5 ? `No news for ${told.age < 120 ? `${Math.round(told.age)} s` : `${Math.round(told.age / 60)} min`}: it has ended or stands still.` : "It is running.";
  if (n.p95 !== undefined && told.age < 5) latencies = [...latencies, 1000 * n.p95].slice(-LATENCIES);
  by("latency").replaceChildren(latencies.length ? trend(latencies, `95th percentile of the latency, ${Math.round(latencies.at(-1))} ms now`, (value) => `${Math.round(value)} ms`, { names: ["p95 since this tab was opened", "now"] }) : make("p", { class: "note" }, "Shown while it is running."));
  if (told.events.length || !by("roll").firstChild) drawn(told);
}

function facts(values) {
  by("line-facts").replaceChildren(...Object.entries(values).filter(([, value]) => value !== undefined).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
}

function drawn(told) {
  const times = events.map((one) => Date.parse(one.time)), clock = (at) => new Date(at).toLocaleTimeString("en-GB");
  if (times.length) {
    const from = times[0], span = Math.max(60000, times.at(-1) - from), counts = Array(BINS).fill(0);
    for (const at of times) counts[Math.min(BINS - 1, Math.floor(((at - from) / span) * BINS))]++;
    by("alarms").replaceChildren(bars(counts, `${times.length} alarms from ${clock(from)} to ${clock(from + span)}`, [clock(from), clock(from + span)], { wide: by("alarms").clientWidth || 900 }));
  } else by("alarms").replaceChildren(make("p", { class: "note" }, "No alarm yet."));
  const ends = events.map((one) => one.along_m[1]), sides = events.map((one) => one.across_mm[1]);
  const [metres, width] = [Math.max(told.metres, 0.1, ...ends), Math.max(told.numbers.width_mm ?? 0, 1, ...sides)];
  by("roll-card").hidden = !told.total && metres <= 0.1;
  by("roll").replaceChildren(roll(metres, width, events, `${events.length} events on ${metres.toFixed(1)} m of web, ${Math.round(width)} mm wide`, { wide: by("roll").clientWidth || 900 }));
  by("roll-page").hidden = !told.roll_page;
  by("events").closest(".card").hidden = !events.length;
  by("events").tBodies[0].replaceChildren(...events.slice(-ROWS).reverse().map(row));
}

function row(one) {
  const middle = (pair, digits) => ((pair[0] + pair[1]) / 2).toFixed(digits);
  const look = one.snapshot ? make("button", { class: "small", "aria-label": `Show the picture of the event at ${middle(one.along_m, 2)} metres`, onclick: () => snapshot(one) }, "Show") : "\u2013";
  return make("tr", {},
    make("td", {}, one.time.slice(11, 19)), make("td", {}, middle(one.along_m, 3)), make("td", {}, `${Math.round(one.across_mm[0])} to ${Math.round(one.across_mm[1])}`),
    make("td", { class: "text" }, make("span", { class: `mark ${one.severity}` }), one.severity), make("td", {}, one.area_mm2.toFixed(0)), make("td", {}, one.score.toFixed(2)), make("td", {}, look));
}

function snapshot(one) {
  const title = `${one.severity} at ${((one.along_m[0] + one.along_m[1]) / 2).toFixed(3)} m`;
  by("snapshot-title").textContent = title;
  by("snapshot-picture").src = `/api/v1/line/snapshots/${one.seq}`;
  by("snapshot-picture").alt = `The marked picture: ${title}`;
  by("snapshot").showModal();
}
