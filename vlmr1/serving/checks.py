"""What cannot be served as it is asked for, said in a sentence before anything starts.

Left out on purpose: the engine's flags that are handed on, which it checks by itself.
"""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmr1.serving.commands import Serving

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as the largest of adapters
DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")  # that it takes
NAMED = re.compile(r"\w[\w.-]*")  # "@" parts a name from a digest, and the log is a file of this name


def check(serving: Serving) -> None:
    """Raises ValueError for what is not there, does not fit, or the engine does not do."""
    folder = serving.checkpoint
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; give a checkpoint's, or a release as NAME@VERSION (`vlmr1 releases` lists"
            " them, `vlmr1 pull` lands one in a folder)"
        )
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder}: no checkpoint folder with config.json and weights in safetensors")
    _numbers_and_words(serving)
    _engine(serving)
    if serving.rollouts == "adapter" and serving.rank is None:
        raise ValueError("--rank: is missing; --rollouts adapter needs trained.lora.r of the training, e.g. --rank 64")
    if serving.rollouts != "adapter" and serving.rank is not None:
        raise ValueError(f"--rank {serving.rank}: belongs to --rollouts adapter; leave it out")
    if serving.rank is not None and not 0 < serving.rank <= RANKS[-1]:
        raise ValueError(f"--rank {serving.rank}: vLLM takes 1 to {RANKS[-1]}")
    names = [serving.served, *(name for name, _ in serving.adapters)]
    if len(set(names)) < len(names):
        raise ValueError(f"--adapter: {', '.join(names)} would not all have names of their own; name each otherwise")
    for name, adapter in serving.adapters:
        rank_of(adapter)
        card = adapter / "base.json"
        if card.is_file() and read(card)["sha256"] != serving.digest:
            raise ValueError(f"--adapter {name}={adapter}: trained on other weights than those in {folder}")


def _numbers_and_words(serving: Serving) -> None:
    if not 1 <= serving.port <= 65_535:
        raise ValueError(f"--port {serving.port}: ports are 1 to 65535")
    for flag, number in (("--max-length", serving.max_length), ("--pictures", serving.pictures)):
        if number is not None and number < 1:
            raise ValueError(f"{flag} {number}: is to be at least 1; leave it out for the engine's own")
    if serving.dtype not in (None, *DTYPES):
        raise ValueError(f"--dtype {serving.dtype}: vLLM knows {', '.join(DTYPES)}")
    for flag, name in (("--name", serving.served), *(("--adapter", name) for name, _ in serving.adapters)):
        if not NAMED.fullmatch(name):
            raise ValueError(f"{flag} {name}: give a name of letters, digits, '.', '_' and '-'")
    longest = positions(serving.checkpoint)
    if serving.max_length is not None and longest is not None and serving.max_length > longest:
        raise ValueError(
            f"--max-length {serving.max_length}: the model reads {longest} tokens at most (max_position_embeddings in"
            f" {serving.checkpoint / 'config.json'}); give no more, or leave it out"
        )


def positions(checkpoint: Path) -> int | None:
    """Tokens that a model reads at most, by its config; None where that does not say, or stretches them (YaRN)."""
    config = read(checkpoint / "config.json")
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return None if "factor" in rope else text.get("max_position_embeddings")


def _engine(serving: Serving) -> None:
    if serving.engine == "vllm" and serving.image is not None:
        raise ValueError("--image: engine vllm runs in an environment; give --python")
    if serving.npus is not None and not serving.contained:
        raise ValueError("--npus: for containers alone; choose devices by the environment, e.g. CUDA_VISIBLE_DEVICES")
    if serving.image is not None and serving.python is not None:
        raise ValueError("--image, --python: one or the other")
    if serving.rollouts is not None and serving.contained:
        raise ValueError("--rollouts: a container does not see where the weights are left; give --python")
    if serving.contained and serving.host != "localhost" and not _is_address(serving.host):
        raise ValueError(f"--host {serving.host}: docker publishes at an address; give e.g. 127.0.0.1 or 0.0.0.0")
    if serving.engine == "xllm":
        odd = {"--adapter": serving.adapters, "--dtype": serving.dtype, "--max-length": serving.max_length}
        odd |= {"--pictures": serving.pictures, "--python": serving.python}
        if given := [flag for flag, value in odd.items() if value]:
            raise ValueError(f"{given[0]}: not with engine xllm" + "; vlmr1 merge" * (given[0] == "--adapter"))
        if serving.image is None:
            raise ValueError("--image: engine xllm needs a tag of quay.io/jd_xllm/xllm-ai that fits your devices")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def rank_of(adapter: Path) -> int:
    """An adapter's rank. Raises ValueError where the folder holds none that vLLM can take."""
    config = adapter / "adapter_config.json"
    if not config.is_file():
        raise ValueError(f"--adapter {adapter}: no adapter_config.json; a folder as training leaves it is needed")
    rank = int(read(config)["r"])
    if rank > RANKS[-1]:
        raise ValueError(f"--adapter {adapter}: rank {rank}, and vLLM takes {RANKS[-1]} at most; vlmr1 merge it")
    return rank


def read(path: Path) -> Any:
    """A JSON file's content. Raises ValueError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error
