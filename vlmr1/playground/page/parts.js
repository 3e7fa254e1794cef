// What both views share: making elements, asking the server, saying what is wrong.

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

export const by = (id) => document.getElementById(id);

/** A figure with three decimals, so that those in a column can be compared; with `sign` a plus is said too. */
export const number = (value, sign = false) => ((sign && value > 0 ? "+" : "") + value.toFixed(3)).replace("-", "−");

/** What the server says, or an Error with its sentence. */
export async function get(address) {
  const reply = await fetch(address);
  if (!reply.ok) throw await refused(reply);
  return reply.json();
}

/** What the server refused as an Error, with the `field` of the form that it is about, if it is about one. */
export async function refused(reply) {
  return Object.assign(new Error(await reply.text()), { field: reply.headers.get("X-Field") });
}

/** Show a sentence at the top of the page, or with "" none. */
export function fault(sentence) {
  by("fault").textContent = sentence;
  by("fault").hidden = !sentence;
}

/** Show a sentence at the control of that id, and go there. */
export function faultAt(id, sentence) {
  const control = by(id);
  noFaultAt(control);
  if (control.closest("details")) control.closest("details").open = true;
  const said = el("p", { class: "fault at", id: `${id}-fault`, role: "alert" }, sentence);
  (control.closest("label") ?? control).after(said);
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-describedby", said.id);
  control.addEventListener("input", () => noFaultAt(control), { once: true });
  control.focus();
}

function noFaultAt(control) {
  by(`${control.id}-fault`)?.remove();
  control.removeAttribute("aria-invalid");
  control.removeAttribute("aria-describedby");
}

/** Take every sentence back that stands at a control or at the top. */
export function noFaults() {
  fault("");
  document.querySelectorAll("[aria-invalid]").forEach(noFaultAt);
}

export const problemList = (problems) => el("ul", { class: "problems" }, ...problems.map((one) => el("li", {}, one)));

/** A swatch with its meaning, for under a picture. */
export const key = (kind, meaning) => el("span", { class: "keyed" }, el("span", { class: `key ${kind}` }), meaning);
