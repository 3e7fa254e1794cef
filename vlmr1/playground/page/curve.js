// The mean reward of every step as a line with axes, alarms as dashed marks, and the step that is looked at.

import { el, number } from "./parts.js";

const HEIGHT = 170;
const [LEFT, RIGHT, TOP, LOW] = [44, 8, 20, 24]; // px around the line, for the axes' words

/** A figure of steps {step, reward, alarms}; `figure.at(step)` marks one of them, null none. */
export function curve(steps) {
  const rewards = steps.map((one) => one.reward);
  const caption = `Mean reward of each step's completions, steps ${steps[0].step} to ${steps.at(-1).step}: between ${number(Math.min(...rewards))} and ${number(Math.max(...rewards))}, ${number(rewards.at(-1))} at the end.`;
  const svg = svgOf("svg", { role: "img", "aria-labelledby": "curve-said" });
  const alarms = steps.flatMap((one) => one.alarms.map((said) => el("li", {}, `step ${one.step}: ${said}`)));
  const list = el("details", { open: alarms.length < 4 }, el("summary", {}, `${alarms.length} alarm${alarms.length > 1 ? "s" : ""}`), el("ul", { class: "problems" }, ...alarms));
  const figure = el("figure", {}, svg, el("figcaption", { id: "curve-said" }, caption), alarms.length ? list : null);
  let now = null;
  const again = () => svg.clientWidth && draw(svg, steps, now);
  new ResizeObserver(again).observe(svg);
  figure.at = (step) => ((now = step), again());
  return figure;
}

function draw(svg, steps, now) {
  const width = svg.clientWidth;
  const rewards = steps.map((one) => one.reward);
  const down = ticks(Math.min(...rewards), Math.max(...rewards), 4);
  const along = ticks(steps[0].step, steps.at(-1).step, Math.max(3, Math.floor(width / 90)), 1);
  const [least, most] = [Math.min(down[0], ...rewards), Math.max(down.at(-1), ...rewards)];
  const [first, last] = [steps[0].step, steps.at(-1).step];
  const x = (step) => LEFT + ((step - first) * (width - LEFT - RIGHT)) / (last - first || 1);
  const y = (value) => TOP + ((most - value) * (HEIGHT - TOP - LOW)) / (most - least || 1);
  const upright = (step, kind) => svgOf("line", { class: kind, x1: x(step), x2: x(step), y1: TOP, y2: HEIGHT - LOW });
  const places = Math.max(0, ...down.map((value) => (`${value}`.split(".")[1] ?? "").length));
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(
    svgOf("text", { x: 0, y: 11 }, "mean reward"),
    svgOf("text", { x: 0, y: HEIGHT - 7 }, "step"),
    ...down.flatMap((value) => [
      svgOf("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svgOf("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(places)),
    ]),
    ...along.map((step) => svgOf("text", { x: x(step), y: HEIGHT - 7, "text-anchor": x(step) > width - 30 ? "end" : "middle" }, step)),
    ...steps.filter((one) => one.alarms.length).map((one) => upright(one.step, "alarm")),
    ...(now === null ? [] : [upright(now, "now")]),
    svgOf("polyline", { points: steps.map((one) => `${x(one.step)},${y(one.reward)}`).join(" ") }),
  );
}

/** Round values from `least` to `most`, about `many`, no nearer than `finest`. */
function ticks(least, most, many, finest = 0) {
  const raw = (most - least || 1) / many;
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(finest, [1, 2, 5, 10].map((times) => times * ten).find((one) => one >= raw));
  const found = [];
  for (let i = Math.ceil(least / step); i * step <= most + 1e-9; i++) found.push(Number((i * step).toPrecision(6)));
  return found.length ? found : [least];
}

function svgOf(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
