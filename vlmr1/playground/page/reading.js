// What was read of one answer: its boxes on the picture, its reasoning, the parser's complaints, its reward.

import { drawBoxes, picture } from "./frame.js";
import { el, key, number, problemList } from "./parts.js";

export const short = (text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);

/** All that was read of an answer to what was asked; `boxes` says whether its task has any. */
export function readings(done, asked, boxes) {
  const part = (title, ...shown) => el("section", {}, el("h3", {}, title), ...shown);
  const said = (text) => el("p", { class: "said-text" }, text);
  return [
    boxes ? boxed(done, asked) : null,
    part("Reasoning", said(done.thinking?.trim() || "none")),
    part("Answer as it was read", boxes ? boxList(done) : said(done.said || "none")),
    part("What the parser complained about", done.problems.length ? problemList(done.problems) : said("nothing")),
    part(done.total === null ? "Reward of the form alone, for no truth is given" : "Reward", ...rewards(done)),
    el("p", { class: "note" }, `${done.tokens ?? "?"} tokens in ${done.seconds.toFixed(1)} s.${boxes ? ` Boxes are read as of a picture of ${done.frame.join(" × ")}.` : ""}`),
  ].filter(Boolean);
}

function boxed(done, asked) {
  const { url, size } = asked.pictures[0];
  const frame = picture(url, "the picture with the answered boxes", size);
  const named = (other) => ({ box, label }) => ({ box, label: label || other });
  drawBoxes(frame, done.true_boxes.map(named("truth")), size, "true");
  drawBoxes(frame, done.boxes.map(named(short(asked.text))), size, "said");
  const truth = done.true_boxes.length ? key("true", "truth") : null;
  return el("figure", {}, frame, el("figcaption", {}, el("span", {}, key("said", "answer"), truth)));
}

function boxList(done) {
  if (!done.boxes.length) return el("p", { class: "said-text" }, done.none ? "None: it says that there is nothing" : "no box");
  const corners = (box) => `[${box.map((v) => Math.round(v * 10) / 10).join(", ")}]`;
  const rows = done.boxes.map(({ box, label }) => el("tr", {}, el("td", {}, label || "box"), el("td", {}, corners(box))));
  return el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...rows)));
}

/** What counts towards the reward, with its weight and why; at the foot the sum, where there is one. */
function rewards(done) {
  const row = (name, value, weight, why) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, value), el("td", { class: "number" }, weight), el("td", {}, why));
  const head = el("tr", {}, ...["part", "value", "weight", "why"].map((name, i) => el("th", { scope: "col", class: i % 3 ? "number" : null }, name)));
  const rows = Object.entries(done.rewards).map(([name, part]) => row(name, number(part.value), `× ${done.weights[name]}`, part.reason));
  const total = done.total === null ? null : el("tfoot", {}, row("reward", number(done.total), "", "their sum"));
  const table = el("div", { class: "measured" }, el("table", { class: "rewards" }, el("thead", {}, head), el("tbody", {}, ...rows), total));
  return [table, done.judged ? el("p", { class: "note" }, `Evaluation counts it as ${done.judged}.`) : null];
}
