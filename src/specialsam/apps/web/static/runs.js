// Runs: what lies in the folder of runs, by one prompt strategy, with every page that a run has.

import { attempt, by, get, make, percent, points } from "./api.js";

let runs = [];

export function start() {
  by("strategy").addEventListener("change", show);
  by("refresh").addEventListener("click", entered);
}

export function entered() {
  attempt(async () => {
    runs = (await get("runs")).runs;
    const names = [...new Set(runs.flatMap((run) => run.gains.map((one) => one.strategy)))];
    const before = by("strategy").value || (names.includes("interior") ? "interior" : names[0]);
    by("strategy").replaceChildren(...names.map((name) => make("option", { value: name, selected: name === before }, name.replaceAll("_", " "))));
    by("runs-none").hidden = runs.length > 0;
    by("runs").hidden = !runs.length;
    show();
  });
}

function show() {
  by("runs").tBodies[0].replaceChildren(...runs.map(row));
}

function row(run) {
  const gain = run.gains.find((one) => one.strategy === by("strategy").value);
  const side = gain ? (gain.high < 0 ? "down" : gain.low > 0 && !gain.few ? "up" : "flat") : "";
  const numbers = gain
    ? [make("td", {}, make("b", { class: side }, points(gain.gain)), make("span", { class: "ci" }, `${points(gain.low)} to ${points(gain.high)}`)), make("td", {}, percent(gain.base)), make("td", {}, percent(gain.tuned)), make("td", {}, String(gain.images))]
    : [1, 2, 3, 4].map(() => make("td", {}, "\u2013"));
  const pages = run.pages.map((page) => make("button", { class: "small", "aria-label": `Open the ${page.name} of ${run.name}`, onclick: () => open(run, page) }, page.name));
  return make("tr", {}, make("th", { scope: "row" }, run.name), ...numbers, make("td", { class: "text" }, ...pages), ...[run.job, run.model, run.date].map((text) => make("td", { class: "text" }, text)));
}

function open(run, page) {
  by("report").hidden = false;
  by("report-title").textContent = `${run.name}: ${page.name}`;
  by("report-link").href = page.address;
  by("report-frame").src = page.address;
  by("report-frame").title = `${page.name} of ${run.name}`;
  by("report").scrollIntoView({ block: "start" });
}
