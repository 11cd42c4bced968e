// Tabs, the models that may be chosen, and what is shared between the tabs.

import { attempt, by, get, make, post, say } from "./api.js";
import * as line from "./line.js";
import * as runs from "./runs.js";
import * as spot from "./spot.js";
import * as tune from "./tune.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const panels = { spot, tune, line, runs };

/** Show a tab; its module is told, as is the one that is left. */
export function open(name, focus = false) {
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    by(tab.getAttribute("aria-controls")).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  for (const [key, module] of Object.entries(panels)) (key === name ? module.entered : module.left)?.();
  if (location.hash.slice(1) !== name) say("");
  history.replaceState(null, "", `#${name}`);
}

by("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) open(tab.id.slice(4));
});
by("tabs").addEventListener("keydown", (event) => {
  const at = tabs.indexOf(document.activeElement);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  open(tabs[(next + tabs.length) % tabs.length].id.slice(4), true);
});

/** The models as the server lists them, into the choice and to the tabs that show them. */
async function models(told) {
  const list = (told ?? (await get("models"))).models;
  by("model").replaceChildren(
    ...list.map((one) => make("option", { value: one.id, selected: one.in_use }, `${one.name}${one.specialist ? "" : " (base)"}`)),
  );
  spot.models(list);
  tune.models(list);
}

by("model").addEventListener("change", () => attempt(async () => models(await post("models/use", { model: by("model").value }))));

spot.start({ correct: (picture, objects, asked) => { tune.take(picture, objects, asked); open("tune", true); }, opened: (picture) => tune.take(picture, []) });
tune.start({ models });
line.start();
runs.start();
attempt(models);
const asked = location.hash.slice(1);
open(asked in panels ? asked : "spot");
