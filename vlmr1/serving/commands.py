"""The command lines that serve a checkpoint: vLLM, vLLM on Ascend NPUs (vllm-ascend), xLLM.

vLLM runs in an environment of its own, named by its interpreter; the other two in containers, whose lines these are. A
checkpoint is served by its folder's name, and where the server takes several names also as NAME@DIGEST of its weights,
by which `evaluate` tells that it is still the same. A checkpoint's own defaults of sampling are switched off: what is
not asked for does not happen.
Left out on purpose: building environments and pulling images; the engine's other flags are handed on.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlmr1.files import digest_of_weights
from vlmr1.serving.checks import RANKS, check, rank_of, read
from vlmr1.serving.client import DIGITS
from vlmr1.serving.client import KEY as SECRET

PYTHON = "VLMR1_VLLM_PYTHON"
ENGINES = ("vllm", "vllm-ascend", "xllm")
ASCEND_IMAGE = "quay.io/ascend/vllm-ascend:v0.10.0rc1"  # the one VLM-R1's own figures were taken with
TOWER_BASE = 10_000.0  # of the rotary positions in Qwen2.5-VL's tower, as published
KEY = "VLLM_API_KEY"  # by which vLLM is told the key it asks for: not by its command line, which others see
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NOWHERE = "nowhere.invalid"  # the only host that pictures are fetched from: they come in the request
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
ROLLOUTS = {  # by way: what opens the routes by which weights are brought
    "adapter": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
    "checkpoint": {"VLLM_SERVER_DEV_MODE": "1"},
    "nccl": {"VLLM_SERVER_DEV_MODE": "1"},
}
NPU_DEVICES = ("davinci_manager", "devmm_svm", "hisi_hdc")
NPU_FILES = (
    "/usr/local/dcmi",
    "/usr/local/bin/npu-smi",
    "/usr/local/Ascend/driver/lib64",
    "/usr/local/Ascend/driver/version.info",
    "/etc/ascend_install.info",
)


@dataclass(frozen=True)
class Serving:
    """What is served, by which engine, where."""

    checkpoint: Path
    engine: str = "vllm"
    name: str = ""  # as which it is served; the folder's name where empty
    adapters: tuple[tuple[str, Path], ...] = ()  # (name, folder)
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str | None = None  # None: the engine's own choice, as of the next two
    max_length: int | None = None  # tokens of prompt and completion
    pictures: int | None = None  # most of a request
    python: str | None = None  # the interpreter of vLLM's environment
    image: str | None = None  # the container's
    npus: tuple[int, ...] | None = None  # of a container
    more: tuple[str, ...] = ()  # flags handed on
    rollouts: str | None = None  # how GRPO brings it weights (`grpo.rollout.weights`), where it samples for it
    rank: int | None = None  # of the adapter that GRPO trains

    @property
    def served(self) -> str:
        return self.name or self.checkpoint.resolve().name

    @property
    def contained(self) -> bool:
        """Whether it runs in a container."""
        return self.engine == "xllm" or (self.engine == "vllm-ascend" and self.python is None)

    @cached_property
    def digest(self) -> str:
        """Of the checkpoint's weights, read once however often it is asked for: they are many gigabytes."""
        return digest_of_weights(self.checkpoint)


def command(serving: Serving) -> list[str]:
    """The command's words. Raises ValueError for what is not there, does not fit, or the engine does not do."""
    check(serving)
    if serving.contained:
        return _container(serving)
    return [interpreter(serving.python), *_vllm(serving, str(serving.checkpoint.resolve()), _places(serving))]


def interpreter(given: str | None) -> str:
    """The interpreter of vLLM's environment: the one given, or the environment's. Raises ValueError for none."""
    python = given or os.environ.get(PYTHON, "")
    if not python:
        raise ValueError(f"no environment with vLLM is named; give --python, or set {PYTHON} to its interpreter")
    if not Path(python).is_file():
        raise ValueError(f"--python {python}: no such interpreter; name the one of vLLM's environment")
    return python


def environment(serving: Serving) -> dict[str, str]:
    """What the command needs of the environment besides what is there."""
    return {} if serving.contained else QUIET | ROLLOUTS.get(serving.rollouts or "", {})


def line(serving: Serving) -> str:
    """The command with its environment, as a shell takes it; a key stands there by the name of what holds it."""
    words = [f"{key}={shlex.quote(value)}" for key, value in environment(serving).items()]
    words += [f'{KEY}="${SECRET}"'] if os.environ.get(SECRET) else []
    return " ".join([*words, shlex.join(command(serving))])


def container(serving: Serving) -> str | None:
    """The name of its container, None where it runs in none."""
    return f"vlmr1-{serving.served}-{serving.port}" if serving.contained else None


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def remarks(serving: Serving) -> list[str]:
    """What people should know before it starts: who may reach it, and what the engine reads otherwise than training."""
    return [*_reach(serving), *_tower(serving)]


def _reach(serving: Serving) -> list[str]:
    if serving.host in LOOPBACK:
        return []
    if serving.rollouts is not None:
        return [
            f"whoever reaches {bracketed(serving.host)}:{serving.port} can change this server's weights: the routes of"
            " --rollouts ask for no key; bind it to a network that is yours alone"
        ]
    if serving.engine == "xllm" or not os.environ.get(SECRET):
        how = "it asks for no key" if serving.engine == "xllm" else "VLMR1_SERVER_KEY sets a key"
        return [f"whoever reaches {bracketed(serving.host)}:{serving.port} can ask this server; {how}"]
    return []


def _tower(serving: Serving) -> list[str]:
    config = read(serving.checkpoint / "config.json")
    base = config.get("vision_config", {}).get("rope_parameters", {}).get("rope_theta", TOWER_BASE)
    if serving.engine == "xllm" or config.get("model_type") != "qwen2_5_vl" or base == TOWER_BASE:
        return []
    return [
        f"vLLM reads the positions of this tower at base {TOWER_BASE:g}, and the checkpoint has {base:g}: some"
        " answers will differ from training's; evaluate it in-process (engine: in-process), or train from a base at"
        f" {TOWER_BASE:g}"
    ]


def _vllm(serving: Serving, checkpoint: str, adapters: Mapping[str, str]) -> list[str]:
    """vLLM's module and flags; paths as the process sees them."""
    name = serving.served
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint]
    words += ["--served-model-name", name, f"{name}@{serving.digest[:DIGITS]}"]
    words += ["--host", "0.0.0.0" if serving.contained else serving.host, "--port", str(serving.port)]
    words += ["--generation-config", "vllm"]
    if serving.engine == "vllm":  # the Ascend image's vLLM is older than this flag
        words += ["--allowed-media-domains", NOWHERE]
    if serving.dtype is not None:
        words += ["--dtype", serving.dtype]
    if serving.max_length is not None:
        words += ["--max-model-len", str(serving.max_length)]
    if serving.pictures is not None:
        words += ["--limit-mm-per-prompt", json.dumps({"image": serving.pictures, "video": 0})]
    if serving.npus is not None and len(serving.npus) > 1:
        words += ["--tensor-parallel-size", str(len(serving.npus))]
    ranks = [rank_of(adapter) for _, adapter in serving.adapters] + ([] if serving.rank is None else [serving.rank])
    if ranks:
        words += ["--enable-lora", "--max-lora-rank", str(next(rank for rank in RANKS if rank >= max(ranks)))]
    if serving.rollouts is not None:
        words += ["--logprobs-mode", "processed_logprobs", "--enable-prefix-caching"]
    if serving.rollouts == "nccl":
        words += ["--weight-transfer-config", json.dumps({"backend": "nccl"})]
    if serving.adapters:
        words += ["--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    return [*words, *serving.more]


def _container(serving: Serving) -> list[str]:
    """A container with the checkpoint, the adapters and the NPUs, removed when it ends."""
    npus = serving.npus or (0,)
    words = ["docker", "run", "--rm", "--init", "--name", str(container(serving)), "--env", KEY]  # its value is ours
    host = "127.0.0.1" if serving.host == "localhost" else serving.host  # docker takes no names
    words += ["--publish", f"{bracketed(host)}:{serving.port}:{serving.port}", "--shm-size", "4g"]
    for device in [*(f"davinci{number}" for number in npus), *NPU_DEVICES]:
        words += ["--device", f"/dev/{device}"]
    for path in NPU_FILES:
        words += ["--volume", f"{path}:{path}:ro"]
    inside = f"/checkpoints/{serving.served}"
    words += ["--volume", f"{serving.checkpoint.resolve()}:{inside}:ro"]
    for name, folder in serving.adapters:
        words += ["--volume", f"{folder.resolve()}:/adapters/{name}:ro"]
    for key, value in QUIET.items():
        words += ["--env", f"{key}={value}"]
    if serving.engine == "vllm-ascend":
        adapters = {name: f"/adapters/{name}" for name, _ in serving.adapters}
        return [*words, serving.image or ASCEND_IMAGE, "python3", *_vllm(serving, inside, adapters)]
    words += [str(serving.image), "xllm", "--model", inside, "--model_id", serving.served, "--backend=vlm"]
    words += [f"--devices={','.join(f'npu:{number}' for number in npus)}", "--host", "0.0.0.0"]
    return [*words, "--port", str(serving.port), "--communication_backend=hccl", *serving.more]


def _places(serving: Serving) -> dict[str, str]:
    return {name: str(folder.resolve()) for name, folder in serving.adapters}
