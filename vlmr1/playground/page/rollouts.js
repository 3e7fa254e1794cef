// The view of a training: its curve, its groups filtered and ordered, and one group with its picture and boxes.

import { by, drawBoxes, el, fault, get, number, picture, problemList } from "./parts.js";

const SAID = {
  unread: "an answer that could not be read",
  wrong: "no right answer",
  truncated: "a cut-off answer",
  zero_variance: "zero variance",
  alarm: "an alarm at their step",
};
const ORDER = { step: "as trained", latest: "latest first", lowest: "lowest reward", highest: "highest reward", widest: "widest spread" };
let shown = []; // groups listed
let total = 0;
let asking = 0; // the newest list asked for
let opening = 0; // the newest group asked for
let take = null;

/** Begin; `given` takes a question to the view that asks, or is null where there is none. */
export async function startRollouts(facts, given) {
  take = given;
  const { filters, orders } = facts.rollouts;
  by("show").append(...filters.map((name) => el("label", {}, el("input", { type: "checkbox", value: name }), SAID[name])));
  by("fold").open = matchMedia("(min-width: 48rem)").matches; // on a narrow screen the groups come first
  by("filters").elements.order.append(...orders.map((name) => el("option", { value: name }, ORDER[name])));
  by("filters").addEventListener("change", () => list());
  by("filters").addEventListener("submit", (event) => (event.preventDefault(), list()));
  by("more").addEventListener("click", () => list(shown.length));
  by("groups").addEventListener("keydown", arrows);
  by("reread").addEventListener("click", () => begin());
  await begin();
}

async function begin() {
  try {
    const about = await get("rollouts/about");
    by("run-name").textContent = `${about.name}: ${about.groups} groups`;
    by("curve").replaceChildren(curve(about.steps));
    const source = by("filters").elements.source;
    by("of-source").hidden = about.sources.length < 2;
    source.replaceChildren(el("option", { value: "" }, "all"), ...about.sources.map((name) => el("option", {}, name)));
    await list();
  } catch (error) {
    fault(error.message);
  }
}

function curve(steps) {
  const [width, height, left, low] = [900, 140, 5, 5];
  const rewards = steps.map((one) => one.reward);
  const [least, most] = [Math.min(...rewards), Math.max(...rewards)];
  const x = (i) => left + (i * (width - left - 5)) / Math.max(1, steps.length - 1);
  const y = (value) => 8 + ((most - value) * (height - low - 12)) / (most - least || 1);
  const make = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `mean reward by step, from ${number(rewards[0])} to ${number(rewards.at(-1))}`, preserveAspectRatio: "none" });
  const line = { fill: "none", "vector-effect": "non-scaling-stroke" };
  svg.append(make("polyline", { ...line, points: rewards.map((value, i) => `${x(i)},${y(value)}`).join(" "), stroke: "var(--act)", "stroke-width": 2 }));
  steps.forEach((one, i) => {
    if (!one.alarms.length) return;
    const mark = make("line", { ...line, x1: x(i), x2: x(i), y1: 0, y2: height - low, stroke: "var(--bad)", "stroke-width": 2, "stroke-dasharray": "4 3" });
    mark.append(make("title", {}, `step ${one.step}: ${one.alarms.join("; ")}`));
    svg.append(mark);
  });
  const caption = `Mean reward of steps ${steps[0].step} to ${steps.at(-1).step}, between ${number(least)} and ${number(most)}`;
  const alarms = steps.flatMap((one) => one.alarms.map((said) => el("li", {}, `step ${one.step}: ${said}`)));
  return el("div", {}, svg, el("p", { class: "note" }, caption), alarms.length ? el("details", { open: true }, el("summary", {}, `${alarms.length} alarms`), el("ul", { class: "problems" }, ...alarms)) : null);
}

async function list(offset = 0) {
  const mine = ++asking;
  fault("");
  const wanted = new URLSearchParams();
  const fields = by("filters").elements;
  for (const name of ["first", "last", "least", "most", "source", "order"]) if (fields[name].value) wanted.set(name, fields[name].value);
  wanted.set("show", [...by("show").querySelectorAll("input:checked")].map((one) => one.value).join(","));
  wanted.set("offset", offset);
  try {
    const found = await get(`rollouts/groups?${wanted}`);
    if (mine !== asking) return;
    shown = offset ? [...shown, ...found.groups] : found.groups;
    total = found.total;
    if (!offset) by("groups").replaceChildren();
    by("groups").append(...found.groups.map(line));
    by("found").textContent = total ? `${shown.length} of ${total} groups` : "no such group";
    by("more").hidden = shown.length >= total;
    if (!offset && shown.length) await open(shown[0].number);
    else if (!offset) by("group").replaceChildren();
  } catch (error) {
    fault(error.message);
  }
}

function marks(group) {
  const found = [];
  const mark = (text, bad) => found.push(el("span", { class: bad ? "mark bad" : "mark" }, text));
  if (group.unread) mark(`${group.unread} not read`, true);
  if (group.wrong) mark("none right", true);
  if (group.truncated) mark(`${group.truncated} cut off`, true);
  if (group.zero_variance) mark("zero variance", false);
  if (group.alarm) mark("alarm", true);
  return found;
}

function line(group) {
  const button = el("button", { type: "button", "data-number": group.number, onclick: () => open(group.number) },
    el("span", {}, `${group.step}`), el("span", { class: "asked" }, group.question), el("span", { class: "mean" }, number(group.mean)));
  const found = marks(group);
  if (found.length) button.append(el("span", { class: "marks" }, ...found));
  return el("li", {}, button);
}

function arrows(event) {
  const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = way && event.target.closest("li")?.[way]?.querySelector("button");
  if (!next) return;
  event.preventDefault();
  next.focus();
  open(Number(next.dataset.number));
}

async function open(which) {
  const mine = ++opening;
  by("groups").querySelectorAll("button").forEach((one) => {
    if (Number(one.dataset.number) === which) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  });
  try {
    const group = await get(`rollouts/group/${which}`);
    if (mine === opening) by("group").replaceChildren(...whole(group));
  } catch (error) {
    fault(error.message);
  }
}

function whole(group) {
  const parts = [el("h2", {}, `Step ${group.step}, ${group.source} ${group.id}`), el("p", { class: "said-text" }, group.problem)];
  const addresses = group.sizes.map((_, i) => `rollouts/group/${group.number}/picture/${i}`);
  const missing = () => el("p", { class: "fault" }, "the picture is not where the run says, or outside the run and the current folder; --images names its folder");
  const frames = group.sizes.map((size, i) => (size ? picture(addresses[i], `picture ${i + 1}`, size) : missing()));
  if (group.true_boxes.length || group.completions.some((one) => one.boxes.length)) {
    drawBoxes(frames[0], group.true_boxes.map((one) => ({ ...one, label: one.label || "truth" })), group.sizes[0], "true");
    drawBoxes(frames[0], together(group.completions), group.sizes[0], "said");
  }
  frames.forEach((frame) => frame.querySelector("img")?.addEventListener("error", () => frame.replaceChildren(missing())));
  parts.push(el("figure", {}, el("div", { class: "row" }, ...frames),
    el("figcaption", {}, el("span", {}, el("span", { class: "key said" }), "answers by their number", el("span", { class: "key true" }), "truth"))));
  parts.push(el("p", { class: "note" }, el("b", {}, "Truth "), group.truth), el("p", {}, ...marks(group)));
  if (group.alarms.length) parts.push(el("ul", { class: "problems" }, ...group.alarms.map((one) => el("li", {}, one))));
  if (take) parts.push(el("button", { type: "button", class: "small", onclick: () => take(question(group, addresses)) }, "Ask this"));
  const names = Object.keys(group.completions[0].rewards);
  const head = el("tr", {}, ...["", "reward", "advantage", ...names].map((name) => el("th", { scope: "col" }, name)));
  const rows = group.completions.map((one) => completion(one, names, frames[0]));
  parts.push(el("div", { class: "wide" }, el("table", {}, el("thead", {}, head), ...rows)));
  return parts;
}

/** The group's boxes, each with the numbers of the completions that say it. */
function together(completions) {
  const found = new Map();
  for (const one of completions)
    one.boxes.forEach((box, i) => {
      const key = `${box} ${one.labels[i]}`;
      const kept = found.get(key) ?? { box, names: [], said: one.labels[i] };
      if (!kept.names.includes(one.number)) kept.names.push(one.number);
      found.set(key, kept);
    });
  return [...found.values()].map((one) => ({ ...one, label: `${one.names.map((name) => name + 1).join(", ")} ${one.said}`.trim() }));
}

function completion(one, names, frame) {
  const only = (on) => frame?.querySelectorAll(".box.said").forEach((box) => box.classList.toggle("faded", on && !box.names.includes(one.number)));
  const pick = el("button", { type: "button", "aria-label": `show only the boxes of completion ${one.number + 1}` }, `${one.number + 1}`);
  const cell = (value) => el("td", { class: "number" }, number(value));
  const reasons = names.map((name) => `${name}: ${one.rewards[name].reason}`).join("; ");
  const said = el("td", { colspan: names.length + 2 }, el("code", {}, one.completion), el("div", { class: "note" }, `${reasons}; ${one.tokens} tokens${one.truncated ? ", cut off" : ""}`), one.problems.length ? problemList(one.problems) : null);
  const hears = { onmouseenter: () => only(true), onmouseleave: () => only(false), onfocusin: () => only(true), onfocusout: () => only(false) };
  const figures = [one.reward, one.advantage, ...names.map((name) => one.rewards[name].value)];
  return el("tbody", { "data-number": one.number, ...hears }, el("tr", {}, el("td", {}, pick), ...figures.map(cell)), el("tr", {}, el("td", {}), said));
}

function question(group, pictures) {
  return { task: group.task, text: group.question, truth: group.truth, reward: group.method, pictures };
}
