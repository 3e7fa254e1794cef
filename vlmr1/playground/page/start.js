// Which views there are, and which one is shown.

import { keep, kept } from "./address.js";
import { startAsking } from "./ask.js";
import { by, fault, get } from "./parts.js";
import { startRollouts } from "./rollouts.js";

const VIEWS = { ask: "Ask", rollouts: "Rollouts" };

function show(view) {
  for (const one of Object.keys(VIEWS)) {
    by(one).hidden = one !== view;
    if (one === view) by(`to-${one}`).setAttribute("aria-current", "page");
    else by(`to-${one}`).removeAttribute("aria-current");
  }
  document.title = `${VIEWS[view]} · vlmr1`;
}

try {
  const facts = await get("facts");
  const there = [facts.models.length && "ask", facts.rollouts.run && "rollouts"].filter(Boolean);
  const wanted = () => (there.includes(kept().get("view")) ? kept().get("view") : there[0]);
  const go = (view) => (keep({ view: view === there[0] ? "" : view }), show(view));
  for (const view of there) {
    by(`to-${view}`).hidden = false;
    by(`to-${view}`).addEventListener("click", () => go(view));
  }
  show(wanted());
  addEventListener("popstate", () => show(wanted()));
  const take = facts.models.length ? startAsking(facts) : null;
  if (facts.rollouts.run) await startRollouts(facts, take && ((question) => (go("ask"), take(question))));
} catch (error) {
  fault(error.message);
}
