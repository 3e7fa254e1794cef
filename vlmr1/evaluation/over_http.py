"""Answers from OpenAI-compatible servers that serve the checkpoint: same prompts, same scorer, same rows as in-process.

Each server is asked by the checkpoint's folder name, as `vlmr1 serve` names it, or by `evaluate.served_as`, as a hosted
endpoint has its own. Several share the questions, all of one program: who gives token ids decides how prompts are
compared and answers decoded. A server whose prompt is not, token for token, the one of training is refused, for its
figures would be another experiment's.
Greedy answers equal those in-process as far as the server's arithmetic does; sampled ones have the server's own draws,
the same whenever the same server is asked the same, as far as it honours seeds.
Left out on purpose: loading weights; only tokenizer and image processor are read here.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlmr1.as_trained import check_prompt, neutral, question, seed_of
from vlmr1.errors import TransientError
from vlmr1.evaluation.asking import Chunk, Keep
from vlmr1.evaluation.engines import rows_of
from vlmr1.families import load_family
from vlmr1.families.base import Prompt
from vlmr1.files import digest_of_weights
from vlmr1.prompts import encode, opened
from vlmr1.serving.client import DIGITS, Completion, Refused, Reply, Request, Server, chat, listing, server_at
from vlmr1.serving.vllm import is_paused, serve_line, was_told_others
from vlmr1.settings import Evaluate

LOG = logging.getLogger(__name__)
GIVES_IDS = ("vllm",)  # who, by /v1/models, gives token ids when asked
JUDGED_AT_ONCE = 16
KNOWS_MORE = ("vllm", "sglang", "xllm")  # and who knows more fields than OpenAI's own


class OverHttp:
    """A checkpoint that servers serve, asked for all chunks side by side."""

    def __init__(self, checkpoint: Path, settings: Evaluate, max_pixels: int) -> None:
        """Find out who serves the checkpoint. Raises TransientError where nobody does, ValueError for another one."""
        asking = settings.asking
        self.family, self.seed, self.length = load_family(checkpoint, max_pixels), asking.seed, asking.max_new_tokens
        self.max_pixels = max_pixels
        self.servers, self.kind = _serving(checkpoint, settings)
        self.compared = {"token for token": 0, "by number": 0, "unchecked": 0}  # prompts asked by this process

    def about(self) -> dict[str, Any]:
        """What shapes answers besides the settings; the servers' precision and kernels are theirs to know."""
        template = self.family.tokenizer.chat_template
        how = [way for way, count in self.compared.items() if count]
        of = {"engine": "http", "server": self.kind, "chat_template": template, "end_ids": self.family.end_ids}
        return of | {"prompts_compared": how}

    def ask(self, chunks: Sequence[Chunk], keep: Keep) -> None:
        """Have chunks of one item each answered, each kept as soon as its answer comes."""
        prompts: dict[int, Prompt] = {}  # of those under way
        scored: deque[Future[None]] = deque()
        alone = threading.Lock()

        def requests() -> Iterator[Request]:
            for place, chunk in enumerate(chunks):
                (sample,) = chunk.samples
                pictures = opened(chunk.source, sample)
                prompts[place] = encode(self.family, chunk.source, sample, pictures)
                yield question(
                    self.family,
                    sample,
                    pictures,
                    max_tokens=self.length,
                    temperature=chunk.temperature,
                    seed=seed_of((self.seed, chunk.source.name, sample.id)) if chunk.temperature else None,
                    n=chunk.completions,
                    token_ids=self.kind in GIVES_IDS,
                    **(neutral(self.family) if self.kind in KNOWS_MORE else {}),
                )

        def told(place: int, reply: Reply) -> None:
            chunk, prompt = chunks[place], prompts.pop(place)
            self._check(chunk, prompt, reply)
            scored.append(scoring.submit(score, chunk, prompt, reply))
            while scored and scored[0].done():
                scored.popleft().result()  # what it raised ends the asking

        def score(chunk: Chunk, prompt: Prompt, reply: Reply) -> None:
            said = [self._text(one) for one in reply.completions]
            lengths = [self._length(one) for one in reply.completions]
            rows = rows_of(chunk.samples, [prompt.size], [said], [lengths])
            with alone:
                keep(chunk, rows)

        # Many at once, for a row may wait for the language model that judges it; left only when all are kept.
        with ThreadPoolExecutor(JUDGED_AT_ONCE) as scoring:
            try:
                chat(self.servers, requests(), told)
                for one in scored:
                    one.result()
            except Refused as error:
                if not error.lasting:
                    raise TransientError(f"{error}; mend or start it again, and the same command goes on") from error
                of = "" if error.place is None else f"{_row(chunks[error.place])}: "
                raise ValueError(f"{of}{error}; mend that, and the same command goes on") from error
            except ConnectionError as error:
                raise TransientError(f"{error}; mend or start it again, and the same command goes on") from error

    def _check(self, chunk: Chunk, prompt: Prompt, reply: Reply) -> None:
        """Raises ValueError where the server read another prompt than training, or gave other than all completions."""
        row = _row(chunk)
        check_prompt(row, prompt, reply, self.max_pixels)
        by_number = "unchecked" if reply.prompt_tokens is None else "by number"
        self.compared[by_number if reply.prompt_token_ids is None else "token for token"] += 1
        if len(reply.completions) != chunk.completions:
            raise ValueError(f"{row}: {len(reply.completions)} completions came for {chunk.completions} asked for")

    def _text(self, said: Completion) -> str:
        """A completion's text, decoded as in-process where its tokens are known."""
        return self.family.opened + said.text if said.token_ids is None else self.family.decode(said.token_ids)

    def _length(self, said: Completion) -> int:
        """Tokens with the end token; the tokenizer's own count of the text where the server gives none."""
        if said.token_ids is not None:
            return len(said.token_ids)
        return len(self.family.encode_completion(said.text)) - (said.finish_reason == "length")


def _row(chunk: Chunk) -> str:
    return f"{chunk.source.name} id {chunk.samples[0].id}"


def _serving(checkpoint: Path, settings: Evaluate) -> tuple[list[Server], str]:
    """The servers that have the checkpoint, and which program they run. Raises as `OverHttp`."""
    name, digest = settings.served_as or checkpoint.resolve().name, digest_of_weights(checkpoint)[:DIGITS]
    most = max(completions for _, _, completions in settings.asking.ways)
    urls = settings.servers or ()
    at_once = max(1, settings.batch // most // len(urls))
    more = {} if settings.timeout is None else {"timeout": settings.timeout}
    found, kinds, faults = [], [], []
    for url in urls:
        server = server_at(url, name, at_once=at_once, **more)
        try:
            served = listing(server)
        except ConnectionError as error:
            faults.append(str(error))
            continue
        again = f"stop it, and `{serve_line(checkpoint, url, name)}`"
        if other := [one for one in served if one.startswith(f"{name}@") and one != f"{name}@{digest}"]:
            raise ValueError(f"{url}: serves {other[0]}, and {checkpoint} is {name}@{digest} now; {again}")
        if served.get(name) == "vllm" and is_paused(server):
            raise ValueError(f"{url}: is paused, as by a trainer that was killed; resume it (POST /resume), or {again}")
        if served.get(name) == "vllm" and was_told_others(server):
            raise ValueError(f"{url}: was brought other weights by GRPO than {name}'s; {again}")
        if name in served:
            found.append(server)
            kinds.append(served[name])
        else:
            faults.append(f"{url} serves {', '.join(served) or 'nothing'}")
    if not found:
        raise TransientError(f"{name} is served nowhere: {'; '.join(faults)} (`vlmr1 serve {checkpoint}` starts one)")
    if len(set(kinds)) > 1:
        programs = ", ".join(f"{server.url} is {kind or 'unnamed'}" for server, kind in zip(found, kinds, strict=True))
        raise ValueError(f"evaluate.servers: {programs}; one evaluation asks one program, so leave the others out")
    for fault in faults:
        LOG.warning("left out: %s", fault)
    return found, kinds[0]
