"""A look, every so many steps, at training samples kept out of training; training stops when they get no better.

The samples are the last of a seeded shuffle, the same on every process and after a kill. They are asked greedily.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from vlmr1.files import whole_folder
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.launch import is_first
from vlmr1.settings import Holdout
from vlmr1.watching import label, logged_rows

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer

KEY = "holdout/judged"


class HoldoutLooks(TrainerCallback):
    """Asks the held-out samples, notes what came out, and keeps the best policy where `patience` is given."""

    def __init__(self, trainer: GrpoTrainer, settings: Holdout) -> None:
        self.trainer, self.settings = trainer, settings
        self.best = trainer.work / "best"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that had stopped, and was killed before it left its policy, has no more to train."""
        if self.settings.patience is not None:
            control.should_training_stop = _standing(_looks(state))[1] >= self.settings.patience

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.settings.every and state.global_step != state.max_steps:
            return
        judged, reward = self.look()
        self.trainer.note(**{KEY: judged, "holdout/reward": reward})
        if self.settings.patience is None:
            return
        since, looks = _standing([*_looks(state), (state.global_step, judged)])
        if not looks:
            self._keep()
        elif looks >= self.settings.patience:
            control.should_training_stop = True
            if is_first():
                print(
                    f"{label(self.trainer.work)}: stopped at step {state.global_step}: {looks} looks at the held-out"
                    f" samples without a better one than at step {since}, whose policy is kept",
                    flush=True,
                )

    def look(self) -> tuple[float, float]:
        """Mean of the judged metric and of the reward over the held-out samples, which all processes share."""
        trainer = self.trainer
        mine = trainer.order.kept_out[trainer.args.process_index :: trainer.args.world_size]
        batch = max(1, trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps)
        sampling = Sampling(0.0, trainer.grpo.max_completion_length)
        judged = reward = 0.0
        trainer.policy.called = trainer.bare
        with trainer.whole_weights(), trainer.accelerator.autocast(), torch.no_grad():
            for start in range(0, len(mine), batch):  # not equally often on every process
                chosen = mine[start : start + batch]
                prompts = [trainer.encode(index) for index in chosen]
                groups = sample_completions(trainer.policy, prompts, 1, sampling, chosen)
                texts = [trainer.family.decode(completion) for (completion,) in groups]
                samples = [trainer.prompts.sample(index) for index in chosen]
                trainer.scorer.foresee(zip(texts, samples, strict=True))
                for index, prompt, (completion,) in zip(chosen, prompts, groups, strict=True):
                    one = trainer.judge(index, prompt, completion)
                    judged, reward = judged + one.metric, reward + one.total
        count, judged, reward = trainer.over_processes(len(mine), judged, reward)
        return judged / count, reward / count

    def _keep(self) -> None:
        """Write the present policy as the best so far."""
        if not is_first():
            self.trainer.write_policy(self.best)  # takes part in gathering sharded weights
            return
        with whole_folder(self.best) as folder:
            self.trainer.write_policy(folder)

    def restore(self, folder: Any) -> bool:
        """Copy the best policy into `folder`, if one is kept; whether it was."""
        if self.settings.patience is None or not self.best.is_dir():
            return False
        if is_first():
            shutil.copytree(self.best, folder, dirs_exist_ok=True)
        return True


def _looks(state: Any) -> list[tuple[int, float]]:
    """Steps and figures of the logged looks."""
    return [(int(row["step"]), row[KEY]) for row in logged_rows(state) if KEY in row]


def _standing(looks: list[tuple[int, float]]) -> tuple[int, int]:
    """The step of the best look, the first of equals, and how many came after it."""
    best = max(range(len(looks)), key=lambda i: looks[i][1], default=-1)
    return (looks[best][0], len(looks) - 1 - best) if looks else (0, 0)
