"""warmup: the base model, in models/base. Run: `python -m vlmr1.stages.warmup`.

Without `warmup.pretrained` a tiny model of the real class is built and supervised on the warm-up sources until it
localises coarsely. With it, a published checkpoint is fetched at a pinned revision, or a local one copied; either
way models/base/origin.json says where the weights come from.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from vlmr1.errors import TransientError
from vlmr1.families import load_family
from vlmr1.families.tiny import build_image_processor, build_model, build_tokenizer
from vlmr1.files import whole_folder, write_json
from vlmr1.launch import first_alone, is_first
from vlmr1.provenance import folder_digest
from vlmr1.sample import PLACE, Source, load_sources
from vlmr1.settings import Params, Pretrained, Trained
from vlmr1.sft import SftTrainer
from vlmr1.stages import BASE, CONVERTED, places, run_stage
from vlmr1.tasks import TASKS, rec
from vlmr1.training import save_training
from vlmr1.work import fingerprint_of, inputs_of, open_work, told

WORK = Path("work/warmup")
ALL = Trained(freeze_vision=False, freeze_projector=False, lora=None)  # a model from nothing is trained whole
WEIGHTS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")  # what is fetched: no pickles


def main(params: Params) -> None:
    if params.warmup.pretrained is not None:
        _resolve(params.warmup.pretrained, params.convert.max_pixels)
    else:
        _build_and_train(params)


def _build_and_train(params: Params) -> None:
    settings = params.warmup
    assert settings.tiny is not None and settings.training is not None  # settings.Warmup holds this
    sources = load_sources(CONVERTED, "warmup")

    def about() -> dict[str, Any]:
        of = {"warmup": settings.model_dump(mode="json"), "compute": told(params.compute)}
        return of | {"max_pixels": params.convert.max_pixels, "data": inputs_of(CONVERTED / "warmup", sources)}

    work = open_work(WORK, about)
    start = work / "start"
    with first_alone():
        if not start.is_dir():
            _build(params, sources, start)
    trainer = SftTrainer(
        start,
        sources,
        settings.training,
        ALL,
        params.compute,
        work,
        max_pixels=params.convert.max_pixels,
        seed=settings.training.seed,
        batch=settings.training.batch,
        steps=settings.training.steps,
    )
    parameters = trainer.num_parameters()
    if is_first():
        print(f"warmup: {parameters:,} parameters, {len(trainer.family.tokenizer)} tokens", flush=True)
    rows = trainer.run()
    origin = {"built": "tiny", "parameters": parameters}
    figures = {"parameters": origin["parameters"]}
    save_training(trainer, rows, figures, BASE, *places("warmup")[1:], extra={"origin.json": origin})


def _build(params: Params, sources: list[Source], folder: Path) -> None:
    """An untrained checkpoint: tokenizer from the corpus, random weights from the seed."""
    tiny, training = params.warmup.tiny, params.warmup.training
    assert tiny is not None and training is not None
    corpus: list[str] = []
    prompts: dict[str, list[str]] = {}
    for source in sources:
        for sample in source.samples:
            task = TASKS[sample.task]
            size = sample.sizes[0] if sample.sizes else (0, 0)
            prompts.setdefault(sample.task, []).append(task.prompt(sample).replace(PLACE, ""))
            corpus += [prompts[sample.task][-1], task.target(sample, size)]
    phrases = dict.fromkeys(phrase for name, texts in prompts.items() for phrase in _phrases(name, texts))
    tokenizer = build_tokenizer(corpus, phrases, tiny.vocabulary)
    with whole_folder(folder) as unfinished:
        build_model(tokenizer, tiny, training.seed).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        build_image_processor(params.convert.max_pixels).save_pretrained(unfinished)


def _phrases(task: str, prompts: list[str]) -> tuple[str, ...]:
    """What stands in every prompt or answer of a task and says nothing about the picture: a token each."""
    if task == "rec":
        return rec.QUESTION, f" {rec.INSTRUCTION}"
    start = re.sub(r"\w+$", "", _beginning(prompts))  # whole words only
    end = re.sub(r"^\w+", "", _beginning([prompt[len(start) :][::-1] for prompt in prompts])[::-1])
    brackets = ("```json\n[", '],"label":"', '"}', "]\n```") if task == "ovd" else ()
    return (*(phrase for phrase in (start, end) if len(phrase) > 1), *brackets)


def _beginning(texts: list[str]) -> str:
    """What all texts begin with."""
    least, most = min(texts), max(texts)
    return least[: next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))]


def _resolve(pretrained: Pretrained, max_pixels: int) -> None:
    """Fetch or copy a checkpoint whole, and pin it by revision and hashes."""
    local = Path(pretrained.model)
    with whole_folder(BASE) as folder:
        if local.is_dir():
            digest = folder_digest(local)
            if pretrained.revision != digest:
                raise ValueError(f"warmup.pretrained.revision: {local} is pinned by its content, which now is {digest}")
            shutil.copytree(local, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", "*.pt", "*.pth"))
        else:
            if pretrained.revision is None or not re.fullmatch(r"[0-9a-f]{40}", pretrained.revision):
                raise ValueError(
                    f"warmup.pretrained.revision: the full 40-digit commit of {pretrained.model} is needed, so that the"
                    " base is the same next week"
                )
            _fetch(pretrained, folder)
        hashes = fingerprint_of(folder)
        if not any(name.endswith(".safetensors") for name in hashes):
            raise ValueError(
                f"warmup.pretrained.model: {pretrained.model} has no .safetensors weights, the only kind read"
            )
        load_family(folder, max_pixels)  # refuse an unsupported family now, not after the first training minute
        origin = {
            "kind": "folder" if local.is_dir() else "hub",
            "model": local.name if local.is_dir() else pretrained.model,
            "revision": pretrained.revision,
        }
        write_json(folder / "origin.json", {**origin, "sha256": hashes})
    logs = Path("logs/warmup")
    with whole_folder(logs) as folder:
        write_json(folder / "origin.json", {**origin, "sha256": hashes})
    write_json(Path("metrics/warmup.json"), {"files": len(hashes)})


def _fetch(pretrained: Pretrained, folder: Path) -> None:
    """Download from the hub. Raises ValueError where it lacks the revision, TransientError where it is not reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(
            pretrained.model, revision=pretrained.revision, local_dir=folder, allow_patterns=list(WEIGHTS)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        answer = getattr(error, "response", None)  # none where nobody answered
        refused = answer is not None and answer.status_code < 500
        raise (ValueError if refused else TransientError)(
            f"warmup.pretrained: {pretrained.model} at {pretrained.revision} could not be fetched"
            f" ({type(error).__name__}); check the name, the revision and the network, or give a local folder"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's bookkeeping


if __name__ == "__main__":
    run_stage("warmup", main, trains=lambda params: params.warmup.pretrained is None)
