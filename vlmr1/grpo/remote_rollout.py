"""Rollouts over vLLM's servers: completions, token ids and the log-probs they were sampled with.

Each process asks for its own share of a set, from all servers, a request a prompt with a seed of its own. A server
that dies leaves its requests to the others; where none is left, training waits for one to come back
(`grpo.rollout.patience`) and brings it the present weights first. Every answer's weights are checked, and its prompt,
token for token.

With `overlap` the next set is asked while this one is trained on, so that its weights are one set old. What was
answered ahead is kept in each checkpoint, so that a resumed run trains on the same. So a checkpoint waits for all of
the next set, as the set itself would; but after SIGTERM there is no time, and the rest is asked by the weights of then.
No checkpoint and no end of a training waits for servers that are gone, and what they left is asked again.

Left out on purpose: the looks at held-out samples, which stay in process.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from vlmr1.as_trained import check_prompt, neutral, question, seed_of
from vlmr1.errors import TransientError
from vlmr1.families.base import Prompt
from vlmr1.files import write_json
from vlmr1.grpo.weights_out import EVERY, weights_out
from vlmr1.prompts import Items, opened
from vlmr1.serving.client import Completion, Refused, Reply, Request, chat
from vlmr1.serving.vllm import SOON
from vlmr1.settings import OverVllm

if TYPE_CHECKING:
    from vlmr1.grpo.trainer import GrpoTrainer

NEVER, ROUNDED = -1_000.0, 1e-5  # nats between which a sampled token's log-prob lies; vLLM's -9999 is none
FRUITLESS = 3  # rounds of questions without an answer that can be used, though servers are there
LOG = logging.getLogger(__name__)
Batches = Sequence[Mapping[str, Items]]


@dataclass(frozen=True)
class Group:
    """One prompt's completions."""

    tokens: list[list[int]]
    logps: list[list[float]]  # as the server sampled them
    number: int  # of the weights that did


class RemoteRollout(TrainerCallback):
    """Asks the servers for a step's groups, or for the next's."""

    def __init__(self, trainer: GrpoTrainer, settings: OverVllm) -> None:
        self.trainer, self.settings = trainer, settings
        self.weights = weights_out(trainer, settings)
        self.fetched: deque[Batches] = deque()  # of the coming steps, with overlap
        self.coming: _Coming | None = None
        self.ahead: dict[int, dict[int, Group]] = {}  # a set's number: what of it is answered already
        self.refused = 0  # answers since the set began: of weights too old, of another's, or changed meanwhile
        self.refused_of_set = 0
        self.unended: int | None = None  # a question whose answers end too early, of the present round

    def batches(self, fetch: Callable[[], Batches]) -> Batches:
        """The present step's batches; with overlap those of the next set are fetched with them."""
        self.fetched.append(fetch())
        while self.settings.overlap and len(self.fetched) <= self.trainer.grpo.num_iterations:
            self.fetched.append(fetch())  # empty at the end
        return self.fetched.popleft()

    def sample(self, prompts: Mapping[int, Prompt]) -> list[Group]:
        """The groups of these prompts, by their place in the data, with the present weights or with some not too old.

        Called on every process at the beginning of a set. Raises TransientError where servers stay away.
        """
        number = self.trainer.state.global_step // self.trainer.grpo.num_iterations
        self._finish()
        self.weights.bring(number)
        have = self.ahead.pop(number, {})
        groups = {index: have[index] for index in prompts if index in have and not self._too_old(have[index].number)}
        self.refused += sum(index in have for index in prompts) - len(groups)
        self._ask(number, prompts, groups)
        self.refused_of_set, self.refused = self.refused, 0
        if self.settings.overlap and (following := self._following()):
            self.coming = _Coming(self, number + 1, following)
        return [groups[index] for index in prompts]

    def figures(self, groups: Sequence[Group]) -> dict[str, float]:
        """How old the weights were, in sets of rollouts, and how many answers were refused for theirs."""
        lags = [float(self.weights.number - group.number) for group in groups]
        lag, count, refused = self.trainer.over_processes(sum(lags), len(lags), self.refused_of_set)
        return {"staleness": lag / count, "stale_refused": refused}

    def save(self, folder: Path) -> None:
        """Keep in a checkpoint the next set's answers, waiting for them; after SIGTERM for those under way alone."""
        self._finish(lambda: self.trainer.stops.asked or self.trainer.stops.stopping)
        plain = [
            {"set": number, "index": index} | asdict(group)
            for number, groups in self.ahead.items()
            for index, group in groups.items()
        ]
        if self.settings.overlap:
            write_json(folder / f"ahead-{self.trainer.args.process_index}.json", plain)

    def load(self, folder: Path) -> None:
        """The reverse, whoever of how many processes saved it."""
        for path in sorted(folder.glob("ahead-*.json")):
            for one in json.loads(path.read_text(encoding="utf-8")):
                group = Group(one["tokens"], one["logps"], one["number"])
                self.ahead.setdefault(one["set"], {})[one["index"]] = group

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask nothing more, once all processes are through."""
        if self.coming is not None:
            self.coming.drop()
        self.trainer.accelerator.wait_for_everyone()  # the others may still be asking

    def _following(self) -> dict[int, Prompt]:
        """The prompts of the next set, as far as this process has them."""
        steps = self.trainer.grpo.num_iterations
        batches = self.fetched[steps - 1] if len(self.fetched) >= steps else ()
        return {index: one for batch in batches for index, one in batch["items"] if isinstance(one, Prompt)}

    def _finish(self, pressed: Callable[[], bool] = lambda: False) -> None:
        """End the asking ahead when all is answered or lost, `pressed` what is under way; what came is kept."""
        coming, self.coming = self.coming, None
        if coming is not None:
            self.ahead[coming.number] = coming.result(pressed)

    def _too_old(self, number: int) -> bool:
        return self.weights.number - number > self.settings.max_staleness

    def _ask(
        self,
        number: int,
        prompts: Mapping[int, Prompt],
        found: dict[int, Group],
        coming: _Coming | None = None,
    ) -> None:
        """Put groups of a set's prompts, by weights that are not too old, into `found`; servers may go and come.

        Of what is `coming` nobody is waited for once it is hurried. Raises TransientError, and ValueError for what a
        person must mend.
        """
        fruitless = 0
        while left := [index for index in prompts if index not in found]:
            before, problem, self.unended = len(found), "its answers are of other weights, or broken off", None
            try:
                self._round(number, left, prompts, found, coming)
            except Refused as error:
                if error.place is not None:
                    raise ValueError(f"{self._row(left[error.place])}: {error}; mend or leave out that row") from error
                if error.lasting:
                    raise ValueError(str(error)) from error
                problem = str(error)  # of the server, which is looked at again
            except ConnectionError as error:  # all are down
                problem = str(error)
            fruitless = fruitless + 1 if len(found) == before else 0
            if fruitless == FRUITLESS and self.unended is not None:
                raise ValueError(
                    f"{self._row(self.unended)}: its completions end before grpo.max_completion_length, and without an"
                    " end token; serve with room for prompt and completion (vlmr1 serve --max-length)"
                )
            if coming is not None and coming.enough.is_set():
                return
            if all(index in found for index in prompts):
                return  # hurried or not
            if fruitless == FRUITLESS or (coming is not None and coming.hurried.is_set()):
                raise TransientError(f"{problem}; mend or start it again, and the same command goes on")

    def _round(
        self,
        number: int,
        left: Sequence[int],
        prompts: Mapping[int, Prompt],
        found: dict[int, Group],
        coming: _Coming | None,
    ) -> None:
        """Ask the servers that are ready; what can be used of their answers is put into `found`."""

        def asked() -> Iterator[int]:
            for index in left:
                if coming is not None and coming.enough.is_set():
                    return
                yield index

        def told(place: int, reply: Reply) -> None:
            group = self._read(left[place], prompts[left[place]], reply)
            if group is None:
                self.refused += 1
            elif not self._ended(group):
                self.unended = left[place]
            else:
                found[left[place]] = group

        servers = self.weights.ready(None if coming is None else coming.hurried)
        chat(servers, self._requests(number, asked()), told, lambda server, why: self.weights.fell(server))

    def _row(self, index: int) -> str:
        sample = self.trainer.prompts.sample(index)
        return f"{sample.source} id {sample.id}"

    def _requests(self, number: int, indices: Iterable[int]) -> Iterator[Request]:
        grpo, family = self.trainer.grpo, self.trainer.family
        filters = {name: getattr(grpo, name) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
        sampling = neutral(family) | {name: value for name, value in filters.items() if value is not None}
        for index in indices:
            source, sample = self.trainer.prompts.items[index]
            yield question(
                family,
                sample,
                opened(source, sample),
                max_tokens=grpo.max_completion_length,
                temperature=grpo.temperature,
                seed=seed_of((grpo.seed, number * grpo.num_iterations, index)),
                n=grpo.num_generations,
                logprobs=True,
                token_ids=True,
                **sampling,
            )

    def _read(self, index: int, prompt: Prompt, reply: Reply) -> Group | None:
        """An answer's group; None where its weights are too old, or it was broken off.

        Raises ValueError where the server reads another prompt than training, or does not say all that is asked.
        """
        grpo, row = self.trainer.grpo, self._row(index)
        number = self.weights.number_of(reply)
        if number is None or self._too_old(number):
            return None
        if any(one.finish_reason == "abort" or one.token_ids == () for one in reply.completions):
            return None
        check_prompt(row, prompt, reply, self.trainer.max_pixels, token_for_token=True)
        tokens = [list(one.token_ids or ()) for one in reply.completions]
        logps = [list(one.logprobs or ()) for one in reply.completions]
        if len(tokens) != grpo.num_generations or any(
            not ids or len(ids) != len(of) for ids, of in zip(tokens, logps, strict=True)
        ):
            raise ValueError(
                f"{row}: the server gives no token ids with log-probs of {grpo.num_generations} completions"
            )
        for one in reply.completions:
            self._check(row, one)
        return Group(tokens, logps, number)

    def _ended(self, group: Group) -> bool:
        """Whether every completion has an end token, or all the tokens that it may have."""
        ends, most = self.trainer.family.end_ids, self.trainer.grpo.max_completion_length
        return all(ids[-1] in ends or len(ids) == most for ids in group.tokens)

    def _check(self, row: str, said: Completion) -> None:
        """Raises ValueError for tokens that the policy has not, and log-probs that nothing sampled can have."""
        known = self.trainer.bare.get_input_embeddings().num_embeddings
        for token, logp in zip(said.token_ids or (), said.logprobs or (), strict=True):
            if not 0 <= token < known:
                raise ValueError(f"{row}: the server sampled token {token}, and the policy knows {known}")
            if not (math.isfinite(logp) and NEVER < logp <= ROUNDED):
                raise ValueError(
                    f"{row}: the server sampled token {token} with log-prob {logp}, which nothing sampled has; it is"
                    " broken, or gives other log-probs than those it samples by"
                )


class _Coming:
    """The next set, asked in a thread of its own."""

    def __init__(self, rollout: RemoteRollout, number: int, prompts: Mapping[int, Prompt]) -> None:
        self.number, self.hurried, self.enough = number, threading.Event(), threading.Event()
        self.found: dict[int, Group] = {}

        def ask() -> None:
            try:
                rollout._ask(number, prompts, self.found, self)
            except Exception as error:  # what lasts is met again, and raised, when the set's own turn comes
                LOG.warning("not all of the next set was answered ahead, the rest is asked again: %s", error)

        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()

    def result(self, pressed: Callable[[], bool]) -> dict[int, Group]:
        """What is answered when all is, `pressed` what is under way; servers that are gone are not waited for."""
        self.hurried.set()
        while self.thread.is_alive():
            if pressed():
                self.enough.set()
            self.thread.join(EVERY)
        return self.found

    def drop(self) -> None:
        """Nobody wants it any more: whatever is wrong with it, and however long the rest would take."""
        self.hurried.set()
        self.enough.set()
        self.thread.join(SOON)
