// The view of a training: its curve, and its groups filtered and ordered. group.js shows one of them.

import { keep, kept } from "./address.js";
import { curve } from "./curve.js";
import { groupOf, marks } from "./group.js";
import { by, el, fault, get, number } from "./parts.js";

const SAID = {
  unread: "an answer that could not be read",
  wrong: "no right answer",
  truncated: "a cut-off answer",
  zero_variance: "zero variance",
  alarm: "an alarm at their step",
};
const ORDER = { step: "as trained", latest: "latest first", lowest: "lowest reward", highest: "highest reward", widest: "widest spread" };
const FIELDS = ["first", "last", "least", "most", "source", "order"];
let shown = 0; // groups listed
let asking = 0; // the newest list asked for
let opening = 0; // the newest group asked for
let take = null;
let line = null; // the curve

/** Begin; `given` takes a question to the view that asks, or is null where there is none. */
export async function startRollouts(facts, given) {
  take = given;
  const { filters, orders } = facts.rollouts;
  by("show").append(...filters.map((name) => el("label", {}, el("input", { type: "checkbox", value: name }), SAID[name])));
  by("fold").open = matchMedia("(min-width: 48rem)").matches; // on a narrow screen the groups come first
  by("filters").elements.order.append(...orders.map((name) => el("option", { value: name }, ORDER[name])));
  by("filters").addEventListener("change", filtered);
  by("filters").addEventListener("submit", (event) => (event.preventDefault(), filtered()));
  by("filters").addEventListener("reset", () => setTimeout(filtered)); // when the fields are empty
  by("more").addEventListener("click", () => list(shown));
  by("groups").addEventListener("keydown", arrows);
  by("reread").addEventListener("click", begin);
  addEventListener("popstate", restored);
  await begin();
}

async function begin() {
  try {
    const about = await get("rollouts/about");
    by("run-name").textContent = `${about.name.split("/").slice(-2).join("/")}: ${about.groups} groups`;
    by("run-name").title = about.name;
    line = curve(about.steps);
    by("curve").replaceChildren(line);
    by("of-source").hidden = about.sources.length < 2;
    by("filters").elements.source.replaceChildren(el("option", { value: "" }, "all"), ...about.sources.map((name) => el("option", {}, name)));
    await restored();
  } catch (error) {
    fault(error.message);
  }
}

/** Show what the address says. */
async function restored() {
  const fields = by("filters").elements;
  for (const name of FIELDS) fields[name].value = kept().get(name) ?? (name === "order" ? "step" : "");
  const show = (kept().get("show") ?? "").split(",");
  for (const one of by("show").querySelectorAll("input")) one.checked = show.includes(one.value);
  await list();
}

/** Put the filters into the address and list what passes them. */
async function filtered() {
  const fields = by("filters").elements;
  const parts = Object.fromEntries(FIELDS.map((name) => [name, fields[name].value]));
  if (parts.order === "step") parts.order = "";
  parts.show = [...by("show").querySelectorAll("input:checked")].map((one) => one.value).join(",");
  keep({ ...parts, group: "" });
  await list();
}

async function list(offset = 0) {
  const mine = ++asking;
  fault("");
  const wanted = kept();
  wanted.set("offset", offset);
  let found;
  try {
    found = await get(`rollouts/groups?${wanted}`);
  } catch (error) {
    found = { total: 0, groups: [], why: error.message };
  }
  if (mine !== asking) return;
  if (!offset) by("groups").replaceChildren();
  by("groups").append(...found.groups.map(item));
  shown = offset + found.groups.length;
  by("found").textContent = found.total ? `${shown} of ${found.total} groups` : found.why ?? none(found);
  by("found").className = found.why ? "fault" : found.total ? "" : "hint";
  by("list").hidden = !found.total;
  if (!found.total) by("fold").open = true; // for there it is mended
  by("more").hidden = shown >= found.total;
  const group = Number(kept().get("group")) || found.groups[0]?.number;
  if (offset) return mark(group);
  if (group) await open(group);
  else by("group").replaceChildren(), line.at(null);
}

/** Which filters it is due to that no group is left. */
function none({ of, alone }) {
  const now = kept();
  const range = (low, high) => [now.get(low) && `from ${now.get(low)}`, now.get(high) ? `to ${now.get(high)}` : "on"].filter(Boolean).join(" ");
  const said = { ...SAID, step: `a step ${range("first", "last")}`, mean: `a mean reward ${range("least", "most")}`, source: `the source ${now.get("source")}` };
  const empty = Object.keys(alone).filter((name) => !alone[name]);
  if (empty.length) return `No group has ${empty.map((name) => said[name]).join(", nor ")}; change that, or reset the filters.`;
  const each = Object.entries(alone).map(([name, count]) => `${said[name]} (${count} of ${of} groups)`);
  return `No group has all of these: ${each.join(", ")}; change one, or reset the filters.`;
}

function item(group) {
  const found = marks(group);
  const read = [`step ${group.step}`, group.question, `mean reward ${number(group.mean)}`, ...found.map((one) => one.textContent)].join(", ");
  const button = el("button", { type: "button", "data-number": group.number, "aria-label": read, onclick: () => go(group.number) },
    el("span", {}, `${group.step}`), el("span", { class: "asked", title: group.question }, group.question), el("span", { class: "mean" }, number(group.mean)));
  if (found.length) button.append(el("span", { class: "marks" }, ...found));
  return el("li", {}, button);
}

function go(number, quietly = false) {
  keep({ group: `${number}` }, quietly);
  return open(number);
}

function arrows(event) {
  const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = way && event.target.closest("li")?.[way]?.querySelector("button");
  if (!next) return;
  event.preventDefault();
  next.focus();
  go(Number(next.dataset.number), true);
}

function mark(number) {
  for (const one of by("groups").querySelectorAll("button")) {
    if (Number(one.dataset.number) === number) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  }
}

async function open(number) {
  const mine = ++opening;
  mark(number);
  try {
    const group = await get(`rollouts/group/${number}`);
    if (mine !== opening) return;
    by("group").replaceChildren(...groupOf(group, take));
    line.at(group.step);
  } catch (error) {
    if (mine === opening) by("group").replaceChildren(el("p", { class: "fault", role: "alert" }, error.message));
  }
}
