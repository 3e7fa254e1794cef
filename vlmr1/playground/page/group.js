// One group of rollouts: its question, its picture with the truth and all answered boxes, and each completion.

import { drawBoxes, picture } from "./frame.js";
import { el, key, number, problemList } from "./parts.js";

const MISSING = "the picture is not where the run says, or outside the run and the current folder; --images names its folder";

/** What is unusual of a group, in short. */
export function marks(group) {
  const found = [];
  const mark = (text, bad) => found.push(el("span", { class: bad ? "mark bad" : "mark" }, text));
  if (group.unread) mark(`${group.unread} not read`, true);
  if (group.wrong) mark("none right", true);
  if (group.truncated) mark(`${group.truncated} cut off`, true);
  if (group.zero_variance) mark("zero variance", false);
  if (group.alarm) mark("alarm", true);
  return found;
}

/** The elements that show a group; `take`, where it is given, takes its question to the view that asks. */
export function groupOf(group, take) {
  const addresses = group.sizes.map((_, i) => `rollouts/group/${group.number}/picture/${i}`);
  const missing = () => el("p", { class: "fault" }, MISSING);
  const frames = group.sizes.map((size, i) => (size ? picture(addresses[i], `picture ${i + 1}`, size) : missing()));
  frames.forEach((frame) => frame.querySelector("img")?.addEventListener("error", () => frame.replaceChildren(missing())));
  const boxes = together(group.completions);
  if (frames[0]?.matches(".frame")) {
    drawBoxes(frames[0], group.true_boxes.map((one) => ({ ...one, label: one.label || "truth" })), group.sizes[0], "true");
    drawBoxes(frames[0], boxes, group.sizes[0], "said");
  }
  const legend = [
    group.true_boxes.length ? key("true", "truth") : null,
    boxes.length ? key("said", "answers, each with the numbers of the completions that say it; point at one below to see its boxes alone") : null,
  ];
  const asked = { task: group.task, text: group.question, truth: group.truth, reward: group.method, pictures: addresses };
  const again = take ? el("button", { type: "button", class: "small", onclick: () => take(asked) }, "Ask this") : null;
  const title = el("h2", {}, `Step ${group.step}, question ${group.id} of ${group.source}`);
  return [
    el("div", { class: "row spread" }, title, again),
    el("p", { class: "said-text" }, group.problem),
    el("p", { class: "marks" }, ...marks(group)),
    group.alarms.length ? problemList(group.alarms) : null,
    el("figure", {}, el("div", { class: "row" }, ...frames), el("figcaption", {}, el("span", {}, ...legend))),
    el("p", { class: "said-text" }, el("b", {}, "Truth "), group.truth),
    table(group.completions, frames[0]),
  ].filter(Boolean);
}

/** The group's boxes, each with the numbers of the completions that say it. */
function together(completions) {
  const found = new Map();
  for (const one of completions)
    one.boxes.forEach((box, i) => {
      const which = `${box} ${one.labels[i]}`;
      const kept = found.get(which) ?? { box, names: [], said: one.labels[i] };
      if (!kept.names.includes(one.number)) kept.names.push(one.number);
      found.set(which, kept);
    });
  return [...found.values()].map((one) => ({ ...one, label: `${one.names.join(", ")} ${one.said}`.trim() }));
}

function table(completions, frame) {
  const names = Object.keys(completions[0].rewards);
  const columns = ["reward", "advantage", ...names];
  const head = el("tr", {}, el("th", { scope: "col" }, "no."), ...columns.map((name) => el("th", { scope: "col", class: "number" }, name)));
  return el("table", { class: "completions" }, el("thead", {}, head), ...completions.map((one) => completion(one, columns, names, frame)));
}

function completion(one, columns, names, frame) {
  const only = (on) => frame?.querySelectorAll(".box.said").forEach((box) => box.classList.toggle("faded", on && !box.names.includes(one.number)));
  const pick = el("button", { type: "button", "aria-label": `show only the boxes of completion ${one.number}` }, `${one.number}`);
  const figures = [number(one.reward), number(one.advantage, true), ...names.map((name) => number(one.rewards[name].value))];
  const reasons = names.map((name) => `${name}: ${one.rewards[name].reason}`).join("; ");
  const said = [
    el("code", {}, one.completion),
    el("p", { class: "note" }, `${reasons}; ${one.tokens} tokens${one.truncated ? ", cut off" : ""}`),
    problemList(one.problems.filter((problem) => !reasons.includes(problem))), // a reward that could not read says them
  ];
  const hears = { onmouseenter: () => only(true), onmouseleave: () => only(false), onfocusin: () => only(true), onfocusout: () => only(false) };
  return el("tbody", { "data-number": one.number, ...hears },
    el("tr", {}, el("td", {}, pick), ...figures.map((figure, i) => el("td", { class: "number", "data-name": columns[i] }, figure))),
    el("tr", {}, el("td", { colspan: columns.length + 1 }, ...said)));
}
