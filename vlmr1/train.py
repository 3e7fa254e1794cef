"""Training without the pipeline: `vlmr1 train grpo`, over JSONL lists and folders of pictures, from any checkpoint.

The lists are this project's or the original project's training JSONL. Settings start from `train.yaml` beside this
file. What comes out is OUT/policy (a checkpoint), OUT/logs and OUT/metrics.json; while it runs, OUT/work holds what a
repeated command goes on from.
Left out on purpose: validation of pictures and boxes, which the pipeline's first stage does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlmr1.files import inside
from vlmr1.pictures import open_picture
from vlmr1.sample import PLACE, Sample, Source, from_json, numbered_jsonl, untagged
from vlmr1.settings import ELSEWHERE, Training, explain, read_value, read_yaml
from vlmr1.tasks import TASKS

DEFAULTS = Path(__file__).with_name("train.yaml")


def defaults(sets: Sequence[str] = ()) -> Training:
    """The settings of train.yaml with KEY=VALUE pairs laid over; a key without a block is one of grpo's.

    Raises ValueError with a line for each fault, naming the key and the mend.
    """
    values = read_yaml(DEFAULTS)
    over = values.pop("over_vllm")
    given = lay_over(values, sets, "grpo")
    rollout = values["grpo"]["rollout"]
    if isinstance(rollout, dict) and rollout.get("engine") == "vllm":
        values["grpo"]["rollout"] = over | ({"path": None} if rollout.get("weights") == "nccl" else {}) | rollout
    if "grpo.save_steps" not in given and isinstance(values["grpo"].get("steps"), int):
        values["grpo"]["save_steps"] = max(1, min(values["grpo"]["save_steps"], values["grpo"]["steps"]))
    try:
        return Training.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(explain(Path("-S"), fault) for fault in error.errors())) from None


def lay_over(values: dict[str, Any], sets: Sequence[str], home: str) -> set[str]:
    """Lay KEY=VALUE pairs over blocks of settings; a key without a block is one of the block `home`.

    Returns the keys with their blocks. Raises ValueError naming the pair and the mend.
    """
    given = set()
    for pair in sets:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"-S {pair}: write KEY=VALUE, e.g. seed=7")
        parts = key.split(".") if key.split(".")[0] in values else [home, *key.split(".")]
        block: Any = values
        for part in parts[:-1]:
            if block.get(part) is None:
                block[part] = {}
            block = block[part]
            if not isinstance(block, dict):
                raise ValueError(f"-S {pair}: {part} is no block of keys here; give it whole, e.g. {part}={{…}}")
        block[parts[-1]] = read_value(pair, text)
        given.add(".".join(parts))
    return given


def load_jsonl(path: Path, images: Path, reward: str | None = None, task: str | None = None) -> Source:
    """A training list. `reward` is the accuracy reward of rows that name none; `task` of rows that name none, if not
    given the task that the row's reward belongs to (`task_of`), or rec where it has none either.

    Raises ValueError naming file, line and the mend for a row without a question or an answer, with an unknown task,
    or with a picture that leaves its folder or does not open.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such list")
    if not images.is_dir():
        raise ValueError(f"{images}: no such picture folder")
    samples = [_sample(path, number, row, images, reward, task) for number, row in numbered_jsonl(path)]
    if not samples:
        raise ValueError(f"{path}: no rows in it")
    return Source(path.stem, "train", images, tuple(samples))


def _sample(path: Path, number: int, row: dict[str, Any], images: Path, reward: str | None, task: str | None) -> Sample:
    where = f"{path}:{number}"
    turns = row.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(t, dict) and "value" in t for t in turns):
        raise ValueError(f"{where}: conversations: a question and its answer are needed, each {{from, value}}")
    said = turns[1]["value"]
    if said is None or (isinstance(said, str) and not untagged(said).strip()):
        raise ValueError(f"{where}: conversations[1].value: the answer is empty; give it or remove the row")
    solution = turns[1]["value"]
    names = row.get("image") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: image: a file's name or a list of names is wanted; mend or remove the row")
    for name in names:
        try:
            inside(images, name)
        except ValueError as error:
            raise ValueError(f"{where}: image {error}; mend or remove the row") from error
    question = turns[0]["value"]
    if not isinstance(question, str) or not question.replace(PLACE, "").strip():
        raise ValueError(f"{where}: conversations[0].value: the question is empty; give it or remove the row")
    if question.count(PLACE) not in (0, len(names)):
        raise ValueError(f"{where}: {question.count(PLACE)} places {PLACE} for {len(names)} pictures; mend either")
    sizes = row.get("size") or [_size(where, images, name) for name in names]
    if not _are_sizes(sizes, len(names)):
        raise ValueError(f"{where}: size: [[width, height]] of each picture is wanted; mend it, or leave it out")
    if not all(row.get(key) is None or isinstance(row[key], str) for key in ("task", "accu_reward_method")):
        raise ValueError(f"{where}: task, accu_reward_method: words are wanted; mend or remove them")
    truth = untagged(solution) if isinstance(solution, str) else json.dumps(solution)
    whole = {
        "id": row.get("id", number - 1),
        "image": names,
        "conversations": [turns[0], {"value": truth}],
        "task": row.get("task") or task,
        "source": path.stem,
        "split": row.get("split", "train"),
        "accu_reward_method": row.get("accu_reward_method") or reward,
        "size": sizes,
    }
    if whole["task"] is None:
        whole["task"] = task_of(whole["accu_reward_method"])
    if whole["task"] not in TASKS:
        raise ValueError(f"{where}: task: {whole['task']!r} is not known; one of {', '.join(TASKS)}")
    known = TASKS[whole["task"]].METHODS
    if whole["accu_reward_method"] is None:
        whole["accu_reward_method"] = known[0]
    if whole["accu_reward_method"] not in known:
        raise ValueError(
            f"{where}: accu_reward_method: {whole['accu_reward_method']!r} is not known for task {whole['task']}; one"
            f" of {', '.join(known)} (or --reward-method, for rows that name none)"
        )
    return from_json(whole)


def _are_sizes(value: Any, count: int) -> bool:
    """Whether it is [[width, height]] of so many pictures."""
    if not isinstance(value, list) or len(value) != count:
        return False
    pairs = all(isinstance(size, list) and len(size) == 2 for size in value)
    return pairs and all(type(side) is int and side > 0 for size in value for side in size)


def task_of(reward: str | None) -> str:
    """The task whose default accuracy reward it is, else the first that knows it; rec for none or an unknown one."""
    first = next((name for name, task in TASKS.items() if task.METHODS[0] == reward), None)
    return first or next((name for name, task in TASKS.items() if reward in task.METHODS), "rec")


def _size(where: str, images: Path, name: Any) -> list[int]:
    """(width, height) from the picture's head."""
    try:
        with open_picture(inside(images, str(name))) as picture:
            return list(picture.size)
    except ValueError as error:
        raise ValueError(f"{where}: image {name}: {error}; mend the path or remove the row") from error


def lists(data: str, images: str, methods: str | None) -> list[tuple[Path, Path, str | None]]:
    """The colon-separated lists of the command line, side by side."""
    paths, folders = data.split(":"), images.split(":")
    rewards: list[str | None] = [*methods.split(":")] if methods else [None] * len(paths)
    if not len(paths) == len(folders) == len(rewards):
        raise ValueError(
            f"--data, --images, --reward-method: {len(paths)}, {len(folders)} and {len(rewards)} entries; give as many"
            " of each, joined by colons"
        )
    return [(Path(p), Path(f), r) for p, f, r in zip(paths, folders, rewards, strict=True)]


def train_grpo(model: Path, sources: Sequence[Source], chosen: Training, output: Path) -> Path:
    """Train, from the checkpoint folder `model`; returns the folder of the trained policy.

    Raises ValueError where `output` holds another run's policy, or for settings and rows that cannot work.
    """
    from vlmr1.families import load_family
    from vlmr1.grpo.limits import check_length
    from vlmr1.grpo.scoring import Scorer
    from vlmr1.grpo.summary import summarise
    from vlmr1.grpo.trainer import GrpoTrainer
    from vlmr1.training import save_training
    from vlmr1.work import fingerprint_of, open_work, pictures_of, told

    unfinished = (output / "work/fingerprint.json").is_file() and not (output / "metrics.json").exists()
    if (output / "policy").exists() and not unfinished:  # a run killed as it left its results leaves them once more
        raise ValueError(f"{output}/policy: there already; name another --output, or remove it")
    Scorer(chosen.grpo.rewards, [sample for source in sources for sample in source.samples])  # refuses in a moment
    for source in sources:
        for sample in source.samples:
            if missing := [path for path in source.pictures(sample) if not path.is_file()]:
                said = f"{source.name} id {sample.id}: picture {missing[0]} is not there"
                raise ValueError(f"{said}; mend the row or --images")

    def about() -> dict[str, Any]:
        listed = [[repr(sample) for sample in source.samples] for source in sources]
        data = {"rows": listed, "pictures": pictures_of(sources)}
        of = chosen.model_dump(mode="json", exclude=ELSEWHERE) | {
            "compute": told(chosen.compute),
            "base": fingerprint_of(model),
        }
        return of | {"data": data}

    check_length(load_family(model, chosen.max_pixels), sources, chosen.grpo.max_completion_length)
    trainer = GrpoTrainer(model, sources, chosen, open_work(output / "work", about, refuse=True))
    rows = trainer.run()
    save_training(trainer, rows, summarise(trainer, rows), output / "policy", output / "logs", output / "metrics.json")
    return output / "policy"
