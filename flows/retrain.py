"""The retraining flow: new data, the pipeline, the gate, a branch with the experiment, the release, its promotion.

    python -m flows.retrain --recipe recipes/smoke.yaml -S grpo.seed=2

It works in a clone of the project (`flows.checkout`), so that the working tree stays as it is. Its end is a state with
a name: Promoted, Refused, Passed (promotion was not wanted), Already promoted, Nothing to do. A refused candidate is
kept: published, noted in the store's log with the reason, its branch called refused/…. Its run is grey on the page,
neither green like one that promoted nor red like one that failed; to Prefect that is the type Cancelled.
Left out on purpose: merging branches, which is a person's to decide.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import State
from prefect.tasks import exponential_backoff

from flows import checkout, judging
from flows.artifacts import show_release
from flows.graph import digest_of, inputs_digest
from flows.notify import candidate_refused
from flows.pipeline import DELAY, RETRIES, pipeline
from flows.showing import failure_shown, show_text, unfailing
from vlmr1.errors import transient
from vlmr1.files import write_json
from vlmr1.release import registry
from vlmr1.release.log import read_log
from vlmr1.release.publish import clean
from vlmr1.release.store import open_store
from vlmr1.scrubbed import scrubbed
from vlmr1.settings import load_params

LONGEST = 120  # letters of a run's name
DONE = Path("work/retrained.json")  # in the clone: {digest of all inputs and of what was asked of them: the branch}


def may_mend(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether a failed step is tried again: only where a store or a network failed."""
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, checkout.CommandFailedForNow | judging.AskingFailedForNow) or transient(fault)


step: Any = partial(
    task,
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(DELAY),
    retry_condition_fn=may_mend,
)


def run_name() -> str:
    """What started it, and what is laid over the params: `retrain-manual smoke grpo.seed=2`."""
    given = flow_run.parameters
    recipe = [Path(given["recipe"]).stem] if given.get("recipe") else []
    words = scrubbed(" ".join([f"retrain-{given.get('name', 'manual')}", *recipe, *(given.get("sets") or [])]))
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


@flow(name="retrain", flow_run_name=run_name)
def retrain(
    recipe: str | None = None,
    sets: list[str] | None = None,
    name: str = "manual",
    revision: str | None = None,
    force: bool = False,
    promote: bool = True,
    parallel: int = 2,
) -> State[Any]:
    """Retrain on the newest data, and promote what passes the gate.

    `recipe` and KEY=VALUE `sets` are laid over params.yaml; `name` begins the branch's name; `revision` is the commit
    (the project's present one); `force` runs where nothing has changed; `promote` false only says what the gate finds;
    at most `parallel` stages run side by side.
    """
    said = get_run_logger().info
    with failure_shown(), checkout.copy_of(Path.cwd(), revision, said) as commit:
        changed = checkout.lay_over(Path.cwd().parent, recipe, sets or [])
        said(f"params: {'; '.join(changed) or 'as committed'}")
        store = load_params().publish.store
        checkout.share_store(Path.cwd().parent, store)
        fetch()
        inputs = inputs_digest()
        done = json.loads(DONE.read_text(encoding="utf-8")) if DONE.is_file() else {}
        if (branch := done.get(asked(inputs, promote, standing()))) is not None and not force:
            return ended("Nothing to do", f"the same data, code, parameters and promoted version gave {branch}")
        pipeline(parallel=parallel)
        title = None
        while title is None:  # again where somebody else moved the label meanwhile
            found = gate(force, return_state=True)
            verdict = found.result(raise_on_failure=found.name != judging.REFUSED)
            branch = save(f"{name}-{commit[:7]}-{inputs[:8]}", verdict)
            push()
            title = conclude(store, verdict, branch, promote)
        write_json(DONE, {**done, asked(inputs, promote, standing()): branch})
        return ended(title, f"{verdict.release}, {branch}: {verdict.says}")


def asked(inputs: str, promote: bool, incumbent: str | None) -> str:
    """A digest of the inputs and of what is asked of their outcome: the gate, the wish, and what must be beaten."""
    return digest_of([inputs, load_params().gate.model_dump(), promote, incumbent])


def ended(title: str, says: str) -> State[Any]:
    """The state that a run ends in, and the same on its page."""
    show_text("outcome", f"## {title}\n\n{says}\n", f"How it ended: {title.lower()}")
    return state_of(title, says)


def state_of(title: str, says: str, data: Any = None) -> State[Any]:
    """A state with a name; that of a refusal is grey."""
    kind = StateType.CANCELLED if title == judging.REFUSED else StateType.COMPLETED
    return State(type=kind, name=title, message=says, data=data)


@step(name="new data", task_run_name="new data")
def fetch() -> list[str]:
    """Bring the data up to date; the imports that changed."""
    lines: list[str] = []
    changed = checkout.pull_data(lines.append)
    show_text("data", "## Data\n\n" + "".join(f"- {line}\n" for line in lines), "What data there was, and what is new")
    for line in lines:
        get_run_logger().info(line)
    return changed


@step(name="promoted", task_run_name="promoted")
def standing() -> str | None:
    """The version that is promoted now."""
    params = load_params()
    return registry.promoted(open_store(params.publish.store), params.publish.name, params.gate.label)


@step(name="gate", task_run_name="gate")
def gate(force: bool) -> State[judging.Verdict]:
    """Compare the candidate with the promoted version on the same items. A state with the outcome's name."""
    verdict = judging.judge(force)
    judging.show(verdict)
    get_run_logger().info(f"gate: {verdict.outcome}: {verdict.says}")
    return state_of(verdict.outcome, verdict.says, verdict)


@step(name="experiment", task_run_name="experiment")
def save(experiment: str, verdict: judging.Verdict) -> str:
    """The run as an experiment, and the experiment as a branch of the project; the branch."""
    branch = f"{'refused' if verdict.outcome == judging.REFUSED else 'retrain'}/{experiment}"
    commit = checkout.save_branch(experiment, branch, f"{verdict.release}: {verdict.outcome}\n\n{verdict.says}")
    text = f"## {branch}\n\n```\ngit diff HEAD..{branch} -- params.yaml\ndvc metrics diff HEAD {branch}\n```\n"
    show_text("experiment", text, f"{branch} is {commit[:12]}; the working branch is as it was")
    return branch


@step(name="push", task_run_name="push")
def push() -> None:
    """What the run made, to DVC's remote."""
    checkout.push_data(get_run_logger().info)


@step(name="release", task_run_name="release")
def conclude(store_url: str, verdict: judging.Verdict, branch: str, promote: bool) -> str | None:
    """Promote the candidate, or note why not; how it went, in a word or two.

    None where the label stands for another version than the one that the candidate was compared with.
    """
    store, label = open_store(store_url), load_params().gate.label
    title, reason = verdict.outcome, f"{branch}: {verdict.says}"
    if verdict.outcome == judging.REFUSED:
        if not any((one.event, one.version) == ("refused", verdict.version) for one in read_log(store, verdict.name)):
            candidate_refused(verdict.release, verdict.says)  # before it is noted: rather told twice than never
        registry.refuse(store, verdict.name, verdict.version, reason)
    elif verdict.outcome == judging.PASSED and promote:
        try:
            registry.promote(store, verdict.name, verdict.version, label, reason, expected=verdict.incumbent)
        except registry.LabelMoved as error:
            get_run_logger().info(f"{error}; the candidate is judged again")
            return None
        title = f"Promoted to {label}"
    show_release(store_url, verdict.name, verdict.version, title.lower())
    with unfailing("what interrupted publications left was not cleaned away"):
        for version, files in clean(store, verdict.name).items():
            get_run_logger().info(f"{verdict.name}/{version}: {len(files)} files of an interrupted publication removed")
    return title


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="laid over params.yaml, e.g. recipes/smoke.yaml")
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="after the recipe")
    parser.add_argument("--name", default="manual", help="what the branch's name begins with")
    parser.add_argument("--revision", help="a commit, branch or tag of the project (default: its present commit)")
    parser.add_argument("--force", action="store_true", help="also where nothing has changed")
    parser.add_argument("--no-promotion", action="store_true", help="say what the gate finds, and leave it at that")
    parser.add_argument("--parallel", type=int, default=2, help="stages at once")
    chosen = parser.parse_args()
    try:
        checkout.check(Path.cwd(), chosen.revision, chosen.recipe, chosen.set_param)  # before a server starts
        state = retrain(
            chosen.recipe,
            chosen.set_param,
            chosen.name,
            chosen.revision,
            chosen.force,
            not chosen.no_promotion,
            chosen.parallel,
            return_state=True,
        )
    except (RuntimeError, ValueError) as error:
        sys.exit(f"retrain: {error}")
    print(f"retrain: {state.name}: {state.message}")
    if not state.is_completed() and state.name != judging.REFUSED:
        sys.exit(1)


if __name__ == "__main__":
    main()
