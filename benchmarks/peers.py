"""The systems that the GRPO benchmark compares, each run in a process of its own: ours, the naive loop, TRL.

    python -m benchmarks.peers SYSTEM FOLDER CASE    started by benchmarks.grpo_step, not by hand

`ours` and `naive` are one loop: the first shares prompts and pictures, in the second each completion is a sequence of
its own. `ours-trainer` is the whole GrpoTrainer in its own training loop, pictures read from files, texts decoded,
rewards asked, figures and rollouts written; it is only watched. `trl` is the released GRPOTrainer in its own training
loop; it is only watched. `trl-compact` switches on for the CPU what it does on a GPU, scoring completions' positions
alone. `trl-default` leaves gradient checkpointing on, as TRL does unless told otherwise. Two lines are for processors
whose matrix products `vlmr1.products` speeds up, so that products are equal: `ours-mkl` does without them, `trl-onednn`
is TRL with them.
Left out on purpose: vLLM, which needs a GPU.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from benchmarks.workload import Case, Meter, question
from vlmr1 import products
from vlmr1.families import load_family
from vlmr1.families.base import Family
from vlmr1.grpo import attention
from vlmr1.grpo.logprobs import never_tensor
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling

STEPS = 10_000  # more than any comparison asks for
ON_DISK = 16  # steps' worth of pictures that our trainer goes round
LEARNING_RATE = 1e-6


def load(folder: Path, case: Case) -> tuple[Family, Any]:
    """Family and model, end tokens barred."""
    family = load_family(folder, case.max_pixels)
    family.never_sampled = [*family.never_sampled, *family.end_ids]
    return family, family.load_model(folder, getattr(torch, case.dtype)).to(case.device)


def run_own(meter: Meter, folder: Path, case: Case, shared: bool) -> None:
    """Our loop: read the prompts, sample, score by the reference, score by the policy, step."""
    attention.VARLEN = case.attention == "varlen"
    family, model = load(folder, case)
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    for one in (model, reference):
        prepare(one, family, shared)
    if case.freeze_vision:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not family.is_vision(name))
    if case.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    policy, frozen = (Policy(one, one, family, 1.0, shared, model.device) for one in (model, reference))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    sampling = Sampling(1.0, case.completion)
    asked = 0
    while meter.next():
        with meter.phase("processing"):
            questions = [question(case, asked + b) for b in range(case.prompts)]
            keys = [f"{asked + b}" for b in range(case.prompts)]
            prompts = [family.encode(text, [image], [key]) for (text, image), key in zip(questions, keys, strict=True)]
            asked += case.prompts
        meter.watch()
        features, prefix = None, None
        with meter.phase("read"):
            if case.freeze_vision and shared:
                with torch.no_grad():
                    seen = family.features(model, [p.pictures[0] for p in prompts])
                features = dict(zip(keys, seen, strict=True))
            if shared and not case.checkpointing:
                prefix = policy.read(prompts, features)
        with meter.phase("rollout"):
            completions = sample_completions(policy, prompts, case.group, sampling, keys, prefix, features)
        rewards = torch.rand(case.prompts, case.group, device=model.device)
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)  # (B, G)
        anchor = None
        if case.beta:
            with meter.phase("reference"), torch.no_grad():
                anchor = frozen.score(prompts, completions, features).logps  # (B, G, T)
        with meter.phase("policy"):
            if prefix is None:  # apart, or with checkpointing, which keeps no history of a reading
                scored = policy.score(prompts, completions, features)
            else:
                scored = policy.score_after(prefix, completions)
            losses = -advantages[..., None] * (scored.logps - scored.logps.detach()).exp()  # (B, G, T)
            if anchor is not None:
                gap = anchor - scored.logps
                losses = losses + case.beta * (gap.exp() - gap - 1)
            (((losses * scored.mask).sum(-1) / scored.mask.sum(-1)).mean()).backward()
        meter.seen()
        with meter.phase("optimizer"):
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        meter.facts = {"prompt": len(prompts[0].ids), "completion": [len(c) for g in completions for c in g]}


def random_reward(**_: Any) -> float:
    return float(torch.rand(()))


def run_trainer(meter: Meter, folder: Path, case: Case) -> None:
    """Our trainer on the same questions, watched from a callback and around its methods."""
    from transformers import TrainerCallback

    from vlmr1.grpo import trainer as module
    from vlmr1.sample import Sample, Source
    from vlmr1.tasks import rec
    from vlmr1.train import defaults

    rec.prompt = lambda sample: sample.problem  # without the task's instruction, as the others ask
    pictures = folder / "pictures"
    pictures.mkdir()
    samples = []
    for number in range(ON_DISK * case.prompts):
        text, image = question(case, number)
        image.save(pictures / f"{number}.png")
        samples.append(Sample(number, (f"{number}.png",), text, "[0,0,1,1]", "rec", "iou", "s", "train", (image.size,)))
    sets = {
        "steps": STEPS, "save_steps": STEPS, "prompts_per_step": case.prompts, "num_generations": case.group,
        "max_completion_length": case.completion, "beta": case.beta, "temperature": 1.0,
        "learning_rate": LEARNING_RATE, "rewards": "{benchmarks.peers:random_reward: 1.0}",
        "compute.dtype": case.dtype, "compute.activation_checkpointing": str(case.checkpointing).lower(),
        "compute.prompts_per_device": "null", "compute.workers": 0, "max_pixels": case.max_pixels,
        "trained.freeze_vision": str(case.freeze_vision).lower(),
        "trained.freeze_projector": str(case.freeze_vision).lower(),
    }  # fmt: skip
    (folder / "work").mkdir()
    source = Source("s", "train", pictures, tuple(samples))
    chosen = defaults([f"{key}={value}" for key, value in sets.items()])
    trainer = module.GrpoTrainer(folder, [source], chosen, folder / "work")
    trainer.family.never_sampled = [*trainer.family.never_sampled, *trainer.family.end_ids]
    for policy in filter(None, (trainer.policy, trainer.reference and trainer.reference.policy)):
        policy.never = never_tensor(trainer.family.never_sampled, policy.device)

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = not meter.next()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            meter.phases["optimizer"] = meter.now() - meter.facts.pop("backward")
            made, prompt = trainer.rollouts[0].completions, trainer.rollouts[0].prompts[0]
            meter.facts |= {"prompt": len(prompt.ids), "completion": [len(c) for group in made for c in group]}
            control.should_training_stop = not meter.next()

    def stepped(*_: Any) -> None:
        meter.seen()
        meter.facts["backward"] = meter.now()

    trainer.add_callback(Watch())
    _watch(meter, trainer.prompts, "encode", "processing")
    _watch(meter, trainer.policy, "read", "read", before=meter.watch)
    _watch(meter, module, "sample_completions", "rollout")
    if trainer.reference is not None:
        _watch(meter, trainer.reference, "score", "reference")
    _watch(meter, trainer, "compute_loss", "policy")
    _watch(meter, trainer.accelerator, "backward", "policy", after=stepped)
    trainer.train()


def run_trl(meter: Meter, folder: Path, case: Case, kind: str) -> None:
    """TRL's trainer on the same questions, watched from its hooks, its callbacks and around its public methods."""
    import trl.trainer.utils
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    if kind == "trl-compact":
        trl.trainer.utils._use_triton = lambda device: True
    family = load_family(folder, case.max_pixels)

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        return torch.rand(len(completions)).tolist()

    def rows(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        # Pictures as they are, not as files to be decoded at every look.
        drawn = [question(case, n) for n in batch["number"]]
        return {"prompt": [[{"role": "user", "content": text}] for text, _ in drawn], "image": [i for _, i in drawn]}

    settings = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=case.device == "cpu", bf16=False, report_to="none",
        logging_strategy="no", save_strategy="no", disable_tqdm=True, shuffle_dataset=False, max_steps=STEPS,
        per_device_train_batch_size=case.prompts * case.group, gradient_accumulation_steps=1,
        num_generations=case.group, max_completion_length=case.completion, beta=case.beta, loss_type="grpo",
        learning_rate=LEARNING_RATE, max_grad_norm=1.0, temperature=1.0,
        gradient_checkpointing=kind == "trl-default" or case.checkpointing,
        generation_kwargs={"suppress_tokens": [*family.never_sampled, *family.end_ids]},
        model_init_kwargs={"dtype": case.dtype, "attn_implementation": "sdpa"},
    )  # fmt: skip

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = not meter.next()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            meter.phases["optimizer"] = meter.now() - meter.facts.pop("backward")
            control.should_training_stop = not meter.next()

    dataset = Dataset.from_dict({"number": list(range(STEPS * case.prompts))}).with_transform(rows)
    trainer = GRPOTrainer(
        model=str(folder), reward_funcs=reward, args=settings, train_dataset=dataset,
        processing_class=_processor(meter, family), callbacks=[Watch()],
    )  # fmt: skip
    if kind == "trl-onednn":
        for model in filter(None, (trainer.model, trainer.ref_model)):
            products.speed_up(model)
    if case.freeze_vision:
        for name, parameter in trainer.model.named_parameters():
            parameter.requires_grad_(not family.is_vision(name))

    def generated(made: torch.Tensor, kwargs: dict[str, Any]) -> None:
        prompt = kwargs["input_ids"].shape[1]
        meter.facts = {"prompt": prompt, "completion": [made.shape[1] - prompt] * len(made)}

    def stepped(*_: Any) -> None:
        meter.seen()
        meter.facts["backward"] = meter.now()

    _watch(meter, trainer.model, "generate", "rollout", after=generated)
    if trainer.ref_model is not None:
        _watch(meter, trainer.ref_model, "forward", "reference")
    _watch(meter, trainer, "compute_loss", "policy", before=meter.watch)
    _watch(meter, trainer.accelerator, "backward", "policy", after=stepped)
    trainer.train()


def _watch(
    meter: Meter,
    owner: Any,
    name: str,
    phase: str,
    before: Callable[[], None] | None = None,
    after: Callable[[Any, dict[str, Any]], None] | None = None,
) -> None:
    """Let a method's time be part of a phase; `after` sees its result and keywords."""
    method = getattr(owner, name)

    @wraps(method)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        with meter.phase(phase):
            result = method(*args, **kwargs)
        if after is not None:
            after(result, kwargs)
        return result

    setattr(owner, name, watched)


def _processor(meter: Meter, family: Any) -> Any:
    """The family's processor without its video part, which needs torchvision; its time is a phase."""
    from transformers import ProcessorMixin, Qwen2_5_VLProcessor

    class Pictures(Qwen2_5_VLProcessor):
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            ids = tokenizer.convert_tokens_to_ids
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id, self.video_token_id = ids(self.image_token), ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with meter.phase("processing"):
                return super().__call__(*args, **kwargs)

    return Pictures(family.images, family.tokenizer, chat_template=family.tokenizer.chat_template)


def main() -> None:
    system, folder, case = sys.argv[1], Path(sys.argv[2]), Case(**json.loads(sys.argv[3]))
    torch.set_num_threads(1)
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no report
    meter = Meter(case.device, sys.stdin, reports)
    if system == "ours-mkl":
        products.slow_mkl = lambda: False  # type: ignore[assignment]
    if system.startswith("trl"):
        run_trl(meter, folder, case, system)
    elif system == "ours-trainer":
        run_trainer(meter, folder, case)
    else:
        run_own(meter, folder, case, shared=system != "naive")


if __name__ == "__main__":
    main()
