"""A server that answers as vLLM does, by this project's own engine: with the weights it was brought, and no others.

    with LittleVllm(checkpoint, source) as server: …  # server.url, server.told, server.requests

Left out on purpose: speed, and answering two questions at once.
"""

import threading
from pathlib import Path

import torch

from tests.fake_server import FakeVllm
from vlmr1.families import load_family
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.prompts import encode
from vlmr1.tasks import TASKS

MODEL = "base"


class LittleVllm(FakeVllm):
    """`prompts` are those it knows, by their text; `base` is the checkpoint it is started with."""

    def __init__(self, base, source, temperature=1.0, pixels=112 * 112, **more):
        super().__init__(self._sampled, [MODEL], **more)
        self.base, self.family, self.temperature = base, load_family(base, pixels), temperature
        self.policies, self.engine = {MODEL: self._load(base)}, threading.Lock()
        self.prompts = {TASKS[one.task].prompt(one): encode(self.family, source, one) for one in source.samples}
        self.by = []  # (version or adapter, prompt's text) of every answer

    def _load(self, folder, adapter=None):
        bare = self.family.load_model(folder, torch.float32).eval()
        if adapter is not None:
            from peft import PeftModel

            bare = PeftModel.from_pretrained(bare, adapter).merge_and_unload()
        prepare(bare, self.family, True)
        return Policy(bare, bare, self.family, self.temperature, True, torch.device("cpu"))

    def tell(self, path, body):
        if path == "/collective_rpc":
            self.policies[MODEL] = self._load(Path(body["kwargs"]["weights_path"]))
        if path == "/v1/load_lora_adapter":
            self.policies[body["lora_name"]] = self._load(self.base, body["lora_path"])
        return super().tell(path, body)

    def _sampled(self, body):
        text = body["messages"][0]["content"][-1]["text"]
        prompt, policy = self.prompts[text], self.policies[body["model"]]
        sampling = Sampling(body["temperature"], body["max_tokens"])
        with self.engine, torch.no_grad():
            (group,) = sample_completions(policy, [prompt], body["n"], sampling, [body["seed"]])
            logps = policy.score([prompt], [group]).logps[0].tolist()
            self.by.append((self.version if body["model"] == MODEL else body["model"], text))
        choices = [
            {
                "index": i,
                "message": {"content": self.family.decode(one)},
                "token_ids": one,
                "logprobs": {"content": [{"logprob": logp} for logp in logps[i][: len(one)]]},
                "finish_reason": "stop" if one[-1] in self.family.end_ids else "length",
            }
            for i, one in enumerate(group)
        ]
        return {"prompt_token_ids": prompt.ids, "usage": {"prompt_tokens": len(prompt.ids)}, "choices": choices}
