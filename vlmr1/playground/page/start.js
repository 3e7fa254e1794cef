// Which views there are, and which one is shown.

import { startAsking } from "./ask.js";
import { by, fault, get } from "./parts.js";
import { startRollouts } from "./rollouts.js";

const VIEWS = ["ask", "rollouts"];

function show(view) {
  for (const one of VIEWS) {
    by(one).hidden = one !== view;
    if (one === view) by(`to-${one}`).setAttribute("aria-current", "page");
    else by(`to-${one}`).removeAttribute("aria-current");
  }
}

try {
  const facts = await get("facts");
  const there = [facts.models.length && "ask", facts.rollouts.run && "rollouts"].filter(Boolean);
  for (const view of there) {
    by(`to-${view}`).hidden = false;
    by(`to-${view}`).addEventListener("click", () => show(view));
  }
  show(there[0]);
  const take = facts.models.length ? startAsking(facts) : null;
  if (facts.rollouts.run)
    await startRollouts(facts, take && ((question) => (show("ask"), take(question))));
} catch (error) {
  fault(error.message);
}
