// A picture with boxes on it: true ones dashed and around their edge, answered ones solid and within it, so that both
// are seen where they are equal.

import { el } from "./parts.js";

const [HIGHEST, LEAST] = [32, 400]; // rem that a picture is shown high; px of a side to which small ones are enlarged
const GAP = 4; // px between a box and its label

/**
 * A picture of the given address in a frame to draw on; small ones are shown larger. `size` is of its stored pixels, as
 * the server says it: models are given these, whatever a camera noted of turning them, and browsers count otherwise.
 */
export function picture(address, alt, [width, height]) {
  const image = el("img", { src: address, alt });
  const frame = el("div", { class: "frame" }, image);
  const times = Math.max(1, Math.ceil(LEAST / Math.max(width, height)));
  image.style.aspectRatio = `${width} / ${height}`;
  image.style.width = `min(${width * times}px, ${(HIGHEST * width) / height}rem)`;
  frame.classList.toggle("tiny", times > 1);
  new ResizeObserver(() => apart(frame)).observe(frame);
  return frame;
}

/** Draw boxes of a kind ("true" or "said") on a frame, in place of those it had; `size` is the stored picture's. */
export function drawBoxes(frame, boxes, size, kind) {
  frame.querySelectorAll(`.box.${kind}`).forEach((one) => one.remove());
  for (const { box, label, names } of boxes) {
    const shown = el("div", { class: `box ${kind}` }, label ? el("span", {}, label) : null);
    shown.names = names; // whose box it is, where several share it
    shown.style.left = `${(100 * box[0]) / size[0]}%`;
    shown.style.top = `${(100 * box[1]) / size[1]}%`;
    shown.style.width = `${(100 * (box[2] - box[0])) / size[0]}%`;
    shown.style.height = `${(100 * (box[3] - box[1])) / size[1]}%`;
    frame.append(shown);
  }
  apart(frame);
}

/** Put each label above or below its box, within the frame and where it hides no other, as far as there is room. */
function apart(frame) {
  const whole = frame.getBoundingClientRect();
  const placed = [];
  for (const label of frame.querySelectorAll(".box span")) {
    label.style.transform = "";
    label.style.maxWidth = `${whole.width}px`;
    const { left, right, top, height } = label.getBoundingClientRect();
    if (!height) continue; // not shown yet; it is put in its place when it is
    const aside = Math.min(0, whole.right - right) || Math.max(0, whole.left - left);
    const box = label.parentElement.getBoundingClientRect();
    const tops = [...Array(8).keys()].flatMap((n) => {
      const both = [box.top - GAP - (n + 1) * height, box.bottom + GAP + n * height];
      return label.parentElement.matches(".true") ? both.reverse() : both;
    });
    const hides = (one, at) => left + aside < one.right && right + aside > one.left && at < one.top + height && at + height > one.top;
    const free = (at) => at >= whole.top && at + height <= whole.bottom && !placed.some((one) => hides(one, at));
    const at = tops.find(free) ?? tops[0];
    label.style.transform = `translate(${aside}px, ${at - top}px)`;
    placed.push({ left: left + aside, right: right + aside, top: at });
  }
}
