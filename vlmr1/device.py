"""Where models run: one function decides device, back end, dtype and attention, and the run says what it decided.

`decide` is pure: what params want and what the machine has go in, a `Device` or a sentence comes out. `look` asks the
machine, `settle` joins the two. No other file of the package names a maker's namespace (a test holds that); torch's
own device-neutral functions do the rest.
Left out on purpose: devices that torch knows and nobody asked for (xpu, tpu), and several kinds in one run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Any, Literal

from vlmr1.launch import is_first

if TYPE_CHECKING:
    import torch

    from vlmr1.settings import Compute

Kind = Literal["cuda", "npu", "mps", "cpu"]
BACKENDS: dict[str, str] = {"cuda": "nccl", "npu": "hccl", "mps": "gloo", "cpu": "gloo"}  # processes meet by
HALVES = ("bfloat16", "float16")
NO_BFLOAT16 = ("Ascend310", "Ascend910A", "Ascend910P")  # beginnings of NPUs' names: 310P is the 300I Duo's
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"  # torch's own switch: whether importing it imports every maker's extension


@dataclass(frozen=True)
class Found:
    """What the machine has, as plain facts."""

    kind: Kind = "cpu"
    count: int = 0  # accelerators
    name: str = ""
    bfloat16: bool = True
    flash: bool = False  # whether transformers' flash attention can run there
    quantizes: bool | None = None  # whether bitsandbytes works there; None where it is not installed


@dataclass(frozen=True)
class Device:
    """What was decided, and why."""

    kind: Kind
    backend: str  # of torch.distributed
    dtype: str  # of the arithmetic
    attention: str  # of vision towers and of models that cannot share their prompts
    why: str

    @property
    def torch_dtype(self) -> Any:
        import torch

        return getattr(torch, self.dtype)

    @property
    def place(self) -> torch.device:
        """This process's own device."""
        import torch

        if self.kind in ("cpu", "mps"):
            return torch.device(self.kind)
        return torch.device(self.kind, int(os.environ.get("LOCAL_RANK", "0")))

    def __str__(self) -> str:
        return f"{self.kind}, {self.dtype}, {self.attention} attention, {self.backend} between processes ({self.why})"


def decide(compute: Compute, found: Found) -> Device:
    """The device of a run. Raises ValueError, naming key and mend, for what the machine cannot do."""
    wanted = compute.device
    if wanted not in ("auto", "cpu", found.kind):
        has = f"only {found.kind}" if found.count else "no accelerator"
        raise ValueError(f"compute.device: {wanted} is wanted and torch finds {has} here; set it to auto")
    kind: Kind = found.kind if wanted == "auto" else wanted
    why = f"compute.device is {wanted}" if wanted != "auto" else found.name or "no accelerator found"
    dtype: str = compute.dtype
    if dtype == "auto":
        half = "bfloat16" if found.bfloat16 else "float16"
        dtype = half if kind in ("cuda", "npu") else "float32"
    if dtype == "bfloat16" and kind == found.kind and not found.bfloat16:
        raise ValueError(f"compute.dtype: {found.name} has no bfloat16; set it to float16 or auto")
    if dtype == "float16" and kind not in ("cuda", "npu"):
        raise ValueError(f"compute.dtype: float16 is not for {kind}; set it to auto, float32 or bfloat16")
    if dtype == "float16" and compute.deepspeed is not None:
        raise ValueError("compute.dtype: float16 needs the trainer's own loss scaling; set compute.deepspeed to null")
    if compute.attention != "sdpa" and (dtype not in HALVES or not found.flash or kind != found.kind):
        raise ValueError(
            f"compute.attention: {compute.attention} needs a half dtype and, on a GPU, the flash-attn package or, on an"
            f" NPU, torch_npu's own; this is {kind} with {dtype}; set it to sdpa"
        )
    if kind == "mps" and compute.processes > 1:
        raise ValueError("compute.launch: there is one mps device to a machine; set it to null")
    if compute.quantize is not None:
        _check_quantize(compute.quantize, kind, found)
    return Device(kind, BACKENDS[kind], dtype, compute.attention, why)


def _check_quantize(bits: str, kind: Kind, found: Found) -> None:
    if found.quantizes is None:
        raise ValueError(
            f"compute.quantize: {bits} needs bitsandbytes, which is not installed: pip install -e '.[quant]', or null"
        )
    if not found.quantizes and kind != "cpu":
        raise ValueError(f"compute.quantize: this bitsandbytes does not know {kind} devices; set it to null")


@cache
def look() -> Found:
    """The machine's facts. Raises ValueError for a torch_npu that is installed and does not load."""
    load_npu()
    import torch

    kind, module = _accelerator()
    if module is None:
        return Found(quantizes=_quantizes(kind))
    if kind == "mps":
        return Found(kind, 1, "an Apple GPU", quantizes=_quantizes(kind))
    name = str(module.get_device_name(0))
    if kind == "npu":
        whole = not name.startswith(NO_BFLOAT16)
        return Found(kind, module.device_count(), name, whole, True, _quantizes(kind))
    whole = torch.cuda.is_bf16_supported(including_emulation=False)
    return Found(kind, module.device_count(), name, whole, util.find_spec("flash_attn") is not None, _quantizes(kind))


def _accelerator() -> tuple[Kind, Any]:
    """The kind of accelerator, an NPU before any other as in accelerate, and its module in torch; None for the CPU."""
    import torch

    npu = getattr(torch, "npu", None)
    if npu is not None and npu.is_available():
        return "npu", npu
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type not in ("cuda", "mps"):
        return "cpu", None
    return ("cuda", torch.cuda) if found.type == "cuda" else ("mps", torch.mps)


def _quantizes(kind: Kind) -> bool | None:
    if util.find_spec("bitsandbytes") is None:
        return None
    import bitsandbytes

    return kind in bitsandbytes.supported_torch_devices


def load_npu() -> None:
    """Load the NPU's extension where it is installed, before anything else imports torch. Raises ValueError.

    torch would load it along with itself, fail there and leave nothing usable; transformers fails as soon as the
    package is merely there. So no run can go on beside a broken one, be it on the CPU.
    """
    if util.find_spec("torch_npu") is None:
        return
    before = os.environ.get(AUTOLOAD)
    os.environ[AUTOLOAD] = "0"
    try:
        import torch  # noqa: F401
        import torch_npu  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"torch_npu is installed and does not load ({said[0]}); run `source set_env.sh` of Ascend's CANN first, or"
            " `pip uninstall torch-npu` on a machine without an NPU"
        ) from error
    finally:
        if before is None:
            del os.environ[AUTOLOAD]
        else:
            os.environ[AUTOLOAD] = before


@cache
def settle(compute: Compute) -> Device:
    """Decide, make torch and DeepSpeed follow, and say it: one line a process group and a setting."""
    device = decide(compute, look())
    import torch

    os.environ["DS_ACCELERATOR"] = device.kind  # else DeepSpeed guesses
    if device.kind == "cpu":
        torch.set_num_threads(1)  # faster beside other work
    elif device.kind != "mps":
        torch.accelerator.set_device_index(device.place)
    if is_first():
        print(f"device: {device}", flush=True)
    return device


def packs_sequences(kind: str) -> bool:
    """Whether torch has a kernel there for attention over sequences of any lengths, without padding."""
    return kind == "cuda"


def accelerator_name() -> str | None:
    """What the accelerator is called; None without one, or where it has no name."""
    kind, module = _accelerator()
    return str(module.get_device_name()) if kind in ("cuda", "npu") else None


def peak_bytes() -> int | None:
    """The most memory that this process has held on its accelerator; None without one, or where nobody counts."""
    kind, module = _accelerator()
    return module.max_memory_allocated() if kind in ("cuda", "npu") else None
