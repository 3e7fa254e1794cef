"""What the tasks share: the rewards of shape, which every task has, and those of answers in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from vlmr1.answers import Answer
from vlmr1.answers.choices import choices_of, read_choice
from vlmr1.answers.numbers import read_number
from vlmr1.answers.words import read_yes_no
from vlmr1.rewards import Reward, judge, shape, text
from vlmr1.sample import Sample

THINK = "Think first, between <think> and </think>, then give the final answer between <answer> and </answer>."
SHAPE = ("format", "length", "repetition")
IN_WORDS = ("default", "math", "numeric", "mcq", "yes_no", "all_match", "llm", "default_lenient")


def truth_in_words(sample: Sample) -> str:
    """The solution as it stands. Raises ValueError for one that is empty, or that the row's reward cannot read."""
    true = sample.solution.strip()
    readers: dict[str, Callable[[], object]] = {
        "mcq": lambda: read_choice(true, choices_of(sample.problem))[0],
        "yes_no": lambda: read_yes_no(true)[0],
        "numeric": lambda: read_number(true)[0],
    }
    if not true:
        raise ValueError(f"{sample.source} id {sample.id}: the solution is empty; give the true answer")
    if sample.reward in readers and readers[sample.reward]() is None:
        raise ValueError(
            f"{sample.source} id {sample.id}: solution {true[:80]!r} is nothing that reward {sample.reward} can compare"
            " an answer with; mend it, or ask for another reward"
        )
    return true


def reward_in_words(method: str, said: Answer, sample: Sample) -> Reward:
    """The accuracy reward `method`, one of IN_WORDS, of an answer in words."""
    true = sample.solution.strip()
    match method:
        case "llm":
            return judge.llm(said, true, sample.problem)
        case "mcq":
            return text.mcq(said, true, choices_of(sample.problem))
        case "default":
            return text.default(said, true, choices_of(sample.problem))
        case "default_lenient":
            return text.default_lenient(said, true, choices_of(sample.problem))
        case "yes_no":
            return text.yes_no(said, true)
        case "numeric":
            return text.numeric(said, true)
        case "math":
            return text.math(said, true)
    return text.all_match(said, true)


def rewards(
    said: Answer,
    sample: Sample,
    names: Iterable[str],
    methods: tuple[str, ...],
    accuracy: Callable[[str], Reward],
    formed: Callable[[Answer], Reward] = shape.format_reward,
) -> dict[str, Reward]:
    """The named rewards of one answer. `accuracy` gives an accuracy reward by its name among `methods`.

    Raises ValueError for a row that asks for a method its task has not, and for a name that is no reward.
    """
    if sample.reward not in methods:
        raise ValueError(
            f"{sample.source} id {sample.id}: task {sample.task} knows no accu_reward_method {sample.reward!r}; one of"
            f" {', '.join(methods)}"
        )
    found: dict[str, Reward] = {}

    def method(name: str) -> Reward:
        if name not in found:
            found[name] = accuracy(name)
        return found[name]

    given: Mapping[str, Callable[[], Reward]] = {
        "accuracy": lambda: method(sample.reward),
        "format": lambda: formed(said),
        "length": lambda: shape.length_reward(said, method(sample.reward).value),
        "repetition": lambda: shape.repetition_reward(said),
    }
    return {name: given[name]() if name in given else _known(name, methods, method) for name in names}


def _known(name: str, methods: tuple[str, ...], method: Callable[[str], Reward]) -> Reward:
    if name not in methods:
        raise ValueError(f"{name!r} is no reward of this task; it has accuracy, {', '.join((*SHAPE, *methods))}")
    return method(name)
