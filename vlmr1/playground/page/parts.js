// What both views share: making elements, asking the server, pictures with boxes on them.

/** An element with attributes (`on…` are listeners, null ones are left out) and children (elements or text). */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const HIGHEST = 32; // rem that a picture is shown high

export const by = (id) => document.getElementById(id);
export const number = (value) => (Math.round(value * 1000) / 1000).toString();

/** What the server says, or an Error with its sentence. */
export async function get(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(await reply.text());
  return reply.json();
}

/** Show a sentence at the top of the page, or with "" none. */
export function fault(sentence) {
  by("fault").textContent = sentence;
  by("fault").hidden = !sentence;
}

/**
 * A picture of the given address in a frame to draw on; small ones are shown larger. `size` is of its stored pixels, as
 * the server says it: models are given these, whatever a camera noted of turning them, and browsers count otherwise.
 */
export function picture(address, alt, [width, height], least = 300) {
  const image = el("img", { src: address, alt });
  const frame = el("div", { class: "frame" }, image);
  const times = Math.max(1, Math.ceil(least / Math.max(width, height)));
  image.style.aspectRatio = `${width} / ${height}`;
  image.style.width = `min(${width * times}px, ${(HIGHEST * width) / height}rem)`;
  frame.classList.toggle("tiny", times > 1);
  new ResizeObserver(() => apart(frame)).observe(frame);
  return frame;
}

/** Draw boxes of a kind ("true" or "said") on a frame, in place of those it had; `size` is the stored picture's. */
export function drawBoxes(frame, boxes, size, kind) {
  frame.querySelectorAll(`.box.${kind}`).forEach((one) => one.remove());
  const corners = new Map(); // labels by where they stand: boxes that share a corner share one
  for (const { box, label, names } of boxes) {
    const above = kind === "said" ? box[1] > 0.1 * size[1] : box[3] > 0.9 * size[1];
    const side = box[0] > 0.5 * size[0] ? "right" : "left";
    const shown = el("div", { class: `box ${kind} ${above ? "above" : "below"} ${side}` });
    shown.names = names; // whose box it is, where several share it
    shown.style.left = `${(100 * box[0]) / size[0]}%`;
    shown.style.top = `${(100 * box[1]) / size[1]}%`;
    shown.style.width = `${(100 * (box[2] - box[0])) / size[0]}%`;
    shown.style.height = `${(100 * (box[3] - box[1])) / size[1]}%`;
    const corner = [above, side, box[above ? 1 : 3], box[side === "left" ? 0 : 2]].join();
    if (label && corners.has(corner)) corners.get(corner).textContent += `; ${label}`;
    else if (label) {
      corners.set(corner, el("span", {}, label));
      shown.append(corners.get(corner));
    }
    frame.append(shown);
  }
  apart(frame);
}

/** Move labels away from their boxes until none hides another. */
function apart(frame) {
  const placed = [];
  for (const label of frame.querySelectorAll(".box span")) {
    label.style.transform = "";
    const { left, right, top, bottom, height } = label.getBoundingClientRect();
    const way = label.parentElement.classList.contains("above") ? -1 : 1;
    let by = 0;
    while (height && placed.some((one) => left < one.right && right > one.left && top + by < one.bottom && bottom + by > one.top)) by += way * height;
    label.style.transform = by ? `translateY(${by}px)` : "";
    placed.push({ left, right, top: top + by, bottom: bottom + by });
  }
}

/** The parts of a reward as a table; `total` stands at its foot where there is one. */
export function rewardTable(rewards, total) {
  const rows = Object.entries(rewards).map(([name, part]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, number(part.value)), el("td", {}, part.reason)),
  );
  if (total !== null && total !== undefined)
    rows.push(el("tr", {}, el("th", { scope: "row" }, "reward"), el("td", { class: "number" }, number(total)), el("td", {}, "accuracy + format")));
  return el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...rows)));
}

export const problemList = (problems) =>
  problems.length ? el("ul", { class: "problems" }, ...problems.map((one) => el("li", {}, one))) : el("p", { class: "said-text" }, "nothing");
