// Drawing the truth on the first picture, by pointer or by keys, into the text that says it; and reading that text.
// The text alone holds the boxes: what was drawn or typed is what the keys move.

import { by, el, faultAt } from "./parts.js";
import { drawBoxes } from "./frame.js";

const STEP = 0.02; // of a side, that a key moves a box by; with Alt a pixel
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** `first()` is the first picture, `task()` the present task. Gives {stop, show}. */
export function truthDrawing(first, task) {
  let on = false;

  by("draw").addEventListener("click", () => (on ? stop() : start()));
  document.addEventListener("keydown", key);

  function start() {
    const picture = first();
    if (!picture) return faultAt("file", "There is no picture to draw on.");
    on = true;
    by("draw").setAttribute("aria-pressed", "true");
    by("drawing").hidden = false;
    by("several").hidden = by("labelled").hidden = task().name !== "ovd";
    const names = by("text").value.split(",").map((name) => name.trim());
    by("names").replaceChildren(...names.map((name) => el("option", { value: name })));
    by("label").value ||= names[0];
    const { frame } = picture;
    frame.classList.add("drawing");
    for (const [name, value] of Object.entries({ tabindex: 0, role: "application", "aria-label": "draw the truth", "aria-describedby": "drawing" }))
      frame.setAttribute(name, value);
    frame.addEventListener("pointerdown", down);
    frame.focus();
  }

  function stop() {
    on = false;
    by("draw").setAttribute("aria-pressed", "false");
    by("drawing").hidden = true;
    const frame = first()?.frame;
    frame?.classList.remove("drawing");
    for (const name of ["tabindex", "role", "aria-label", "aria-describedby"]) frame?.removeAttribute(name);
    frame?.removeEventListener("pointerdown", down);
  }

  function at(event) {
    const { frame, size } = first();
    const place = frame.getBoundingClientRect();
    const share = [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height];
    return share.map((value, i) => Math.round(Math.min(1, Math.max(0, value)) * size[i]));
  }

  function down(event) {
    event.preventDefault();
    const { frame } = first();
    frame.focus();
    const from = at(event);
    frame.setPointerCapture(event.pointerId);
    const box = (to) => [0, 1].map((i) => Math.min(from[i], to[i])).concat([0, 1].map((i) => Math.max(from[i], to[i])));
    const ended = new AbortController();
    const end = () => (ended.abort(), show());
    const up = (last) => {
      end();
      const drawn = box(at(last));
      if (drawn[2] > drawn[0] && drawn[3] > drawn[1]) add(drawn);
    };
    frame.addEventListener("pointermove", (next) => show([{ box: box(at(next)), label: "" }]), ended);
    frame.addEventListener("pointerup", up, ended);
    frame.addEventListener("pointercancel", end, ended); // e.g. the system took the finger for a gesture of its own
  }

  function key(event) {
    if (!on || document.activeElement !== first()?.frame) return;
    const several = task().name === "ovd";
    if (event.key === "Escape") return by("draw").focus(), stop();
    if (event.key === "Enter" && several && !event.ctrlKey && !event.metaKey) add(middle());
    else if (event.key === "Delete" && several) write(items()?.slice(0, -1));
    else if (WAYS[event.key]) moved(WAYS[event.key], event.shiftKey, event.altKey);
    else return;
    event.preventDefault();
  }

  const middle = () => [0.35, 0.35, 0.65, 0.65].map((share, i) => Math.round(share * first().size[i % 2]));

  /** Move the last box of the text, or its lower right corner; where there is none, one appears in the middle. */
  function moved(way, sizes, fine) {
    const { size } = first();
    const all = items();
    const last = all?.at(-1);
    if (!last) return all ? add(middle()) : write(null);
    const box = [...last.bbox_2d];
    for (const i of [0, 1]) {
      const step = way[i] * (fine ? 1 : Math.max(1, Math.round(STEP * size[i])));
      const [least, most] = [sizes ? box[i] + 1 - box[i + 2] : -box[i], size[i] - box[i + 2]];
      const by_ = Math.max(least, Math.min(most, step));
      if (!sizes) box[i] = tidy(box[i] + by_);
      box[i + 2] = tidy(box[i + 2] + by_);
    }
    write([...all.slice(0, -1), { ...last, bbox_2d: box }]);
  }

  const tidy = (value) => Math.round(value * 100) / 100;

  /** Of rec in place of the box that the text says, of ovd behind its boxes. */
  function add(box) {
    if (task().name === "rec") return write([{ bbox_2d: box }]);
    const kept = items();
    write(kept && [...kept, { bbox_2d: box, label: by("label").value || "object" }]);
  }

  function write(boxes) {
    if (!boxes) return faultAt("truth", "This cannot be read as boxes; mend it or clear it, then draw.");
    by("truth").value = boxes.length ? JSON.stringify(task().name === "rec" ? boxes[0].bbox_2d : boxes) : "";
    by("truth").dispatchEvent(new Event("input"));
  }

  /** The boxes that the text says, [] where it says none, null where it cannot be read. The server judges it. */
  function items() {
    const text = by("truth").value.replace(/```(json)?/g, "").trim();
    if (!text || text === "None") return [];
    let said;
    try {
      said = JSON.parse(text);
    } catch {
      return null; // half typed
    }
    const found = task().name === "rec" ? [{ bbox_2d: said }] : said;
    const good = (box) => Array.isArray(box) && box.length === 4 && box.every(Number.isFinite);
    return Array.isArray(found) && found.every((one) => good(one?.bbox_2d)) ? found : null;
  }

  /** Show the text's boxes on the picture, and more that are not in it yet. */
  function show(more = []) {
    if (!first() || !task().boxes) return first() && drawBoxes(first().frame, [], first().size, "true");
    const said = (items() ?? []).map((one) => ({ box: one.bbox_2d, label: String(one.label ?? "") }));
    const drawn = task().name === "rec" && more.length ? more : [...said, ...more];
    drawBoxes(first().frame, drawn, first().size, "true");
  }

  return { stop, show };
}
