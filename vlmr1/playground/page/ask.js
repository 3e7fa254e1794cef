// The view that asks: pictures, a question, a truth; and the answers of one model or two, as they come.

import { truthDrawing } from "./draw.js";
import { picture } from "./frame.js";
import { by, el, fault, faultAt, get, noFaults, refused } from "./parts.js";
import { readings, short } from "./reading.js";

let facts;
let pictures = []; // {name, blob, url, data, size, frame}
let opening = Promise.resolve(); // until the newest pictures are there
let under = null; // the AbortController of what is being asked
let drawing;

/** Begin; what is returned takes a question {task, text, truth, reward, pictures: addresses} into the form. */
export function startAsking(given) {
  facts = given;
  const models = facts.models.map((model, i) => el("option", { value: i }, model.name));
  by("model").append(...models);
  by("beside").append(el("option", { value: "" }, "nothing"), ...models.map((one) => one.cloneNode(true)));
  if (facts.models.length > 1) by("beside").value = "1";
  for (const menu of [by("model"), by("beside")]) {
    const entitle = () => (menu.title = facts.models[menu.value || NaN]?.title ?? ""); // its menu cuts long names
    menu.addEventListener("change", entitle);
    entitle();
  }
  by("task").append(...Object.keys(facts.tasks).map((name) => el("option", {}, name)));
  drawing = truthDrawing(() => pictures[0], () => task());
  by("task").addEventListener("change", taskChanged);
  by("truth").addEventListener("input", () => drawing.show());
  by("file").addEventListener("change", () => takeFiles(by("file").files));
  document.addEventListener("paste", (event) => !by("ask").hidden && event.clipboardData.files.length && takeFiles(event.clipboardData.files));
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, dragged);
  by("question").addEventListener("submit", (event) => (event.preventDefault(), ask()));
  by("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) by("question").requestSubmit();
  });
  by("stop").addEventListener("click", () => under?.abort());
  taskChanged();
  fillExamples();
  return take;
}

const task = () => ({ name: by("task").value, ...facts.tasks[by("task").value] });

function taskChanged() {
  under?.abort();
  const now = task();
  by("text").placeholder = now.text;
  by("truth").placeholder = now.truth;
  by("reward").replaceChildren(...now.rewards.map((name) => el("option", {}, name)));
  by("draw").hidden = !now.boxes;
  by("file").multiple = now.most > 1;
  const what = now.fewest > 1 ? "Drop the pictures before and after here" : "Drop a picture here";
  by("drop-said").textContent = `${what}, paste ${now.fewest > 1 ? "them" : "it"}, or`;
  drawing.stop();
  noFaults();
  drawing.show();
}

async function fillExamples() {
  try {
    const examples = await get("examples");
    by("example").append(...examples.map((one, i) => el("option", { value: i }, `${one.name} (${short(one.text)})`)));
    by("example").addEventListener("change", () => by("example").value !== "" && take(examples[Number(by("example").value)]));
  } catch (error) {
    fault(error.message);
  }
}

async function take(question) {
  by("task").value = question.task;
  taskChanged();
  by("text").value = question.text;
  by("truth").value = question.truth;
  by("reward").value = question.reward;
  const blobs = await Promise.all(question.pictures.map(async (address) => (await fetch(address)).blob()));
  await setPictures(blobs.map((blob, i) => ({ name: `picture ${i + 1}`, blob })));
}

function dragged(event) {
  if (by("ask").hidden) return;
  event.preventDefault();
  by("drop").classList.toggle("over", event.type === "dragover");
  if (event.type === "drop" && event.dataTransfer.files.length) takeFiles(event.dataTransfer.files);
}

/** Take files in place of the pictures that are there; of a pair the second may come by itself. */
async function takeFiles(files) {
  const given = [...files].map((file) => ({ name: file.name, blob: file }));
  await opening;
  noFaults();
  const { name, fewest, most } = task();
  by("file").value = "";
  if (given.length > most) return faultAt("file", `The task ${name} takes ${most === 1 ? "one picture" : `${most} pictures at most`}, not ${given.length}.`);
  by("example").value = "";
  by("truth").value = "";
  await setPictures([...(pictures.length < fewest ? pictures : []), ...given]);
}

/** Show these pictures, in place of those before and of what was asked about them. */
function setPictures(given) {
  opening = opening.then(() => replaced(given));
  return opening;
}

async function replaced(given) {
  noFaults();
  under?.abort();
  pictures.forEach((one) => URL.revokeObjectURL(one.url));
  pictures = [];
  by("answers").replaceChildren();
  try {
    pictures = await Promise.all(given.map(opened));
  } catch (error) {
    faultAt("file", error.message);
  }
  by("pictures").replaceChildren(
    ...pictures.map((one) => el("figure", {}, one.frame, el("figcaption", {}, el("span", {}, one.name), `${one.size.join(" × ")}`))),
  );
  drawing.stop();
  drawing.show();
}

async function opened({ name, blob }) {
  const size = await sizeOf(name, blob);
  const url = URL.createObjectURL(blob);
  const frame = picture(url, name, size);
  try {
    await frame.querySelector("img").decode();
  } catch {
    throw new Error(`${name}: is no picture that the browser can show; give a PNG, JPEG, WebP or BMP file`);
  }
  const data = new Uint8Array(await blob.arrayBuffer());
  return { name, blob, url, data: base64(data), size, frame };
}

/** [width, height] of a file's stored pixels, which the server reads. */
async function sizeOf(name, blob) {
  const reply = await fetch("size", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: blob });
  if (!reply.ok) throw new Error(`${name}: ${(await refused(reply)).message}`);
  return reply.json();
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

async function ask() {
  await opening;
  noFaults();
  under?.abort();
  under = new AbortController();
  const asked = frozen();
  const chosen = [by("model").value, by("beside").value].filter((value) => value !== "");
  const cards = chosen.map((value) => card(facts.models[Number(value)]));
  by("answers").replaceChildren(...cards.map((one) => one.whole));
  by("stop").disabled = false;
  by("state").textContent = "asking …";
  const now = under;
  let end;
  try {
    const done = await Promise.all(chosen.map((value, i) => one({ ...asked, model: Number(value) }, cards[i], now.signal)));
    end = now.signal.aborted ? "stopped" : done.every(Boolean) ? "answered" : "no answer";
  } catch (error) { // of a field, which holds for every model
    now.abort();
    by("answers").replaceChildren();
    faultAt(error.field === "pictures" ? "file" : error.field, error.message);
    end = "not asked";
  }
  if (now !== under) return;
  by("stop").disabled = true;
  by("state").textContent = end;
}

function card(model) {
  const stream = el("pre", { "aria-label": "what the model says", tabindex: "0" });
  const read = el("div", { class: "read" });
  const note = model.note ? el("p", { class: "note" }, model.note) : null;
  const head = el("div", {}, el("h2", { title: model.title }, model.name), note);
  return { whole: el("article", { class: "answer" }, head, stream, read), stream, read };
}

/** The form as it stands: what is asked now is shown as it was asked, whatever is typed meanwhile. */
function frozen() {
  return {
    task: by("task").value,
    text: by("text").value,
    truth: by("truth").value,
    reward: by("reward").value,
    temperature: by("temperature").valueAsNumber,
    seed: by("seed").valueAsNumber,
    longest: by("longest").valueAsNumber,
    pictures: [...pictures],
  };
}

/** Ask one model, showing its words as they come; whether it answered. Throws what is wrong with a field. */
async function one(asked, shown, signal) {
  const question = { ...asked, pictures: asked.pictures.map((one) => one.data) };
  try {
    const reply = await fetch("ask", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question), signal });
    if (!reply.ok) throw await refused(reply);
    for await (const line of linesOf(reply.body)) {
      if (line.error) throw new Error(line.error);
      const low = shown.stream.scrollHeight - shown.stream.scrollTop - shown.stream.clientHeight < 30;
      if (line.more) shown.stream.append(line.more);
      else shown.stream.textContent = line.done ? line.done.text : line.text;
      if (low) shown.stream.scrollTop = shown.stream.scrollHeight;
      if (line.done) {
        shown.read.replaceChildren(...readings(line.done, asked, facts.tasks[asked.task].boxes));
        return true;
      }
    }
  } catch (error) {
    if (error.field) throw error;
    if (error.name !== "AbortError") shown.read.replaceChildren(el("p", { class: "fault", role: "alert" }, error.message));
  }
  return false;
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}
