// Drawing the truth on the first picture, by pointer or by keyboard, into the text that says it; and reading that text.

import { by, drawBoxes, el, fault } from "./parts.js";

const STEP = 0.02; // of a side, that a key moves a box by

/** `first()` is the first picture, `task()` the present task. Gives {stop, boxes}. */
export function truthDrawing(first, task) {
  let on = false;
  let box = null; // being drawn, in pixels of the picture

  by("draw").addEventListener("click", () => (on ? stop() : start()));
  document.addEventListener("keydown", key);

  function start() {
    const picture = first();
    if (!picture) return fault("no picture to draw on; drop one, paste it, or choose a file");
    on = true;
    by("draw").setAttribute("aria-pressed", "true");
    by("drawing").hidden = false;
    by("labelled").hidden = task().name !== "ovd";
    const names = by("text").value.split(",").map((name) => name.trim());
    by("names").replaceChildren(...names.map((name) => el("option", { value: name })));
    by("label").value ||= names[0];
    picture.frame.classList.add("drawing");
    picture.frame.tabIndex = 0;
    picture.frame.addEventListener("pointerdown", down);
    picture.frame.focus();
  }

  function stop() {
    on = false;
    box = null;
    by("draw").setAttribute("aria-pressed", "false");
    by("drawing").hidden = by("labelled").hidden = true;
    const frame = first()?.frame;
    frame?.classList.remove("drawing");
    frame?.removeAttribute("tabindex");
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
    const from = at(event);
    frame.setPointerCapture(event.pointerId);
    const move = (next) => {
      const to = at(next);
      show([Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])]);
    };
    const ended = new AbortController();
    const up = (next) => {
      ended.abort();
      move(next);
      if (box[2] > box[0] && box[3] > box[1]) keep(false);
      else show(null);
      box = null;
    };
    const dropped = () => (ended.abort(), show(null)); // e.g. the system took the finger for a gesture of its own
    frame.addEventListener("pointermove", move, ended);
    frame.addEventListener("pointerup", up, ended);
    frame.addEventListener("pointercancel", dropped, ended);
  }

  function key(event) {
    if (!on || document.activeElement !== first()?.frame) return;
    if (event.key === "Escape") return by("draw").focus(), stop();
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const { size } = first();
    const again = box !== null;
    const now = box ?? [0.35 * size[0], 0.35 * size[1], 0.65 * size[0], 0.65 * size[1]];
    const by_ = way.map((value, i) => value * Math.max(1, STEP * size[i]));
    const moved = now.map((value, i) => (event.shiftKey && i < 2 ? value : value + by_[i % 2]));
    for (const i of [0, 1]) {
      moved[i] = Math.min(Math.max(0, moved[i]), size[i] - 2);
      moved[i + 2] = Math.min(Math.max(moved[i] + 2, moved[i + 2]), size[i]);
    }
    show(moved.map(Math.round));
    keep(again);
  }

  function show(next) {
    box = next;
    const { frame, size } = first();
    drawBoxes(frame, [...boxes(), ...(box ? [{ box, label: "" }] : [])], size, "true");
  }

  /** Write the box into the text: of rec in place of what it says, of ovd behind it or, with `again`, over the last. */
  function keep(again) {
    const { frame, size } = first();
    if (task().name === "rec") by("truth").value = JSON.stringify(box);
    else {
      const listed = boxes().map((one) => ({ bbox_2d: one.box, label: one.label }));
      if (again) listed.pop();
      by("truth").value = JSON.stringify([...listed, { bbox_2d: box, label: by("label").value || "object" }]);
    }
    drawBoxes(frame, boxes(), size, "true");
  }

  /** The boxes that the text says, as far as it can be read; the server judges it. */
  function boxes() {
    if (!task().boxes) return [];
    let said;
    try {
      said = JSON.parse(by("truth").value);
    } catch {
      return []; // half typed
    }
    const items = task().name === "rec" ? [{ bbox_2d: said, label: "" }] : Array.isArray(said) ? said : [];
    return items.filter((one) => Array.isArray(one?.bbox_2d) && one.bbox_2d.length === 4 && one.bbox_2d.every(Number.isFinite))
      .map((one) => ({ box: one.bbox_2d, label: String(one.label ?? "") }));
  }

  return { stop, boxes };
}
