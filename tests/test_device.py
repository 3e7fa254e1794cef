"""The one decision of where models run: its table, its refusals, what it tells torch, and a simulated NPU.

Of accelerators only the finding is simulated; nothing here runs on one.
"""

import ast
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from tests.conftest import COMPUTE, ROOT, environment
from vlmr1.device import NO_BFLOAT16, Found, decide
from vlmr1.launch import start_processes
from vlmr1.settings import DeepSpeed, Launch

A100 = Found("cuda", 8, "NVIDIA A100-SXM4-80GB", flash=True, quantizes=True)
V100 = Found("cuda", 1, "Tesla V100-SXM2-16GB", bfloat16=False)
ASCEND = Found("npu", 8, "Ascend910B3", flash=True, quantizes=False)
DUO = Found("npu", 2, "Ascend310P3", bfloat16=False, flash=True)
APPLE = Found("mps", 1, "an Apple GPU")
NONE = Found()
SHARDED = DeepSpeed(stage=2, offload="none")
EIGHT = Launch(nnodes=1, nproc_per_node=8, rendezvous=None)


def compute(**what):
    return COMPUTE.model_copy(update={"dtype": "auto", **what})


@pytest.mark.parametrize(
    ("found", "what", "expected"),
    [
        (NONE, {}, ("cpu", "gloo", "float32", "sdpa")),
        (NONE, {"dtype": "bfloat16"}, ("cpu", "gloo", "bfloat16", "sdpa")),
        (A100, {}, ("cuda", "nccl", "bfloat16", "sdpa")),
        (A100, {"attention": "flash_attention_2"}, ("cuda", "nccl", "bfloat16", "flash_attention_2")),
        (A100, {"dtype": "float32"}, ("cuda", "nccl", "float32", "sdpa")),
        (A100, {"device": "cpu"}, ("cpu", "gloo", "float32", "sdpa")),
        (A100, {"quantize": "4bit"}, ("cuda", "nccl", "bfloat16", "sdpa")),
        (V100, {}, ("cuda", "nccl", "float16", "sdpa")),
        (V100, {"device": "cpu", "dtype": "bfloat16"}, ("cpu", "gloo", "bfloat16", "sdpa")),
        (ASCEND, {"device": "npu"}, ("npu", "hccl", "bfloat16", "sdpa")),
        (ASCEND, {"attention": "flash_attention_2"}, ("npu", "hccl", "bfloat16", "flash_attention_2")),
        (ASCEND, {"deepspeed": SHARDED, "launch": EIGHT}, ("npu", "hccl", "bfloat16", "sdpa")),
        (DUO, {}, ("npu", "hccl", "float16", "sdpa")),
        (APPLE, {}, ("mps", "gloo", "float32", "sdpa")),
        (APPLE, {"device": "cpu"}, ("cpu", "gloo", "float32", "sdpa")),
    ],
)
def test_what_is_decided(found, what, expected):
    device = decide(compute(**what), found)
    assert (device.kind, device.backend, device.dtype, device.attention) == expected
    assert device.why == (f"compute.device is {what['device']}" if "device" in what else found.name or device.why)


@pytest.mark.parametrize(
    ("found", "what", "said"),
    [
        (NONE, {"device": "cuda"}, r"compute\.device: cuda is wanted and torch finds no accelerator here"),
        (A100, {"device": "npu"}, r"compute\.device: npu is wanted and torch finds only cuda here"),
        (V100, {"dtype": "bfloat16"}, r"compute\.dtype: Tesla V100.* has no bfloat16; set it to float16"),
        (DUO, {"dtype": "bfloat16"}, r"compute\.dtype: Ascend310P3 has no bfloat16; set it to float16"),
        (NONE, {"dtype": "float16"}, r"compute\.dtype: float16 is not for cpu"),
        (APPLE, {"dtype": "float16"}, r"compute\.dtype: float16 is not for mps"),
        (DUO, {"deepspeed": SHARDED, "launch": EIGHT}, r"float16 needs the trainer's own loss scaling"),
        (APPLE, {"launch": EIGHT}, r"compute\.launch: there is one mps device"),
        (NONE, {"attention": "flash_attention_2"}, r"compute\.attention: .*this is cpu with float32; set it to sdpa"),
        (V100, {"attention": "flash_attention_2"}, r"compute\.attention: .*the flash-attn package"),
        (A100, {"attention": "flash_attention_2", "dtype": "float32"}, r"needs a half dtype"),
        (NONE, {"quantize": "4bit"}, r"compute\.quantize: 4bit needs bitsandbytes, which is not installed"),
        (ASCEND, {"quantize": "8bit"}, r"compute\.quantize: this bitsandbytes does not know npu devices"),
    ],
)
def test_what_cannot_work_is_refused(found, what, said):
    with pytest.raises(ValueError, match=said):
        decide(compute(**what), found)


def test_the_trainer_is_told_what_was_decided(tmp_path):
    """The arguments of a run on this machine; of the others, the sentence where transformers would take another."""
    from tests.test_training import GRPO
    from vlmr1.arguments import deepspeed_config, training_arguments

    chosen = compute(dtype="bfloat16")
    arguments = training_arguments(GRPO, chosen, decide(chosen, NONE), tmp_path, seed=1, batch=8, steps=2)
    assert arguments.bf16 and not arguments.fp16 and arguments.device.type == "cpu"
    with pytest.raises(ValueError, match=r"compute\.device: mps is wanted, and the trainer takes cpu"):
        training_arguments(GRPO, compute(), decide(compute(), APPLE), tmp_path, seed=1, batch=8, steps=2)
    offload = DeepSpeed(stage=3, offload="all")
    for found, pinned in ((NONE, False), (ASCEND, True), (A100, True)):
        zero = deepspeed_config(offload, decide(compute(), found))["zero_optimization"]
        assert zero["offload_optimizer"] == zero["offload_param"] == {"device": "cpu", "pin_memory": pinned}


@pytest.mark.parametrize(
    ("launch", "where"),
    [
        (EIGHT, ["--standalone"]),
        (
            Launch(nnodes=2, nproc_per_node=8, rendezvous="node-0:29500"),
            [
                *("--rdzv-backend", "c10d", "--rdzv-endpoint", "node-0:29500", "--rdzv-id", "vlmr1-grpo"),
                *("--rdzv-conf", "join_timeout=86400"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("found", [A100, ASCEND], ids=lambda found: found.kind)
def test_the_launch_line_is_the_same_on_every_accelerator(monkeypatch, found, launch, where):
    lines = []
    monkeypatch.setattr("vlmr1.device.look", lambda: found)
    monkeypatch.setattr("os.execv", lambda path, words: lines.append(words))
    chosen = compute(launch=launch, deepspeed=SHARDED)
    start_processes(chosen, "grpo", "vlmr1.stages.grpo", ["--some", "words"])
    ((python, *words),) = lines
    assert python == sys.executable
    assert words == [
        *("-m", "torch.distributed.run", "--nnodes", str(launch.nnodes), *where, "--nproc-per-node", "8"),
        *("-m", "vlmr1.stages.grpo", "--some", "words"),
    ]
    with pytest.raises(ValueError, match=r"nproc_per_node: 8 processes on a machine of 2 devices; lower it"):
        monkeypatch.setattr("vlmr1.device.look", lambda: replace(found, count=2))
        start_processes(chosen, "grpo", "vlmr1.stages.grpo", [])


@pytest.mark.parametrize(
    ("name", "without"),
    [
        *[("Ascend910", True), ("Ascend910A", True), ("Ascend910ProA", True), ("Ascend310P3", True)],
        *[("Ascend910B3", False), ("Ascend910B4-1", False), ("Ascend910_9382", False)],
    ],
)
def test_npus_without_bfloat16_are_known_by_name(name, without):
    assert bool(NO_BFLOAT16.match(name)) == without


NAMES = re.compile(r"\b(cuda|npu|mps|nccl|hccl|torch_npu)\b")


def named(tree):
    """Every name, attribute, import and plain string in code that says a maker's namespace; docstrings may."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        said = {
            ast.Attribute: lambda n: n.attr,
            ast.Name: lambda n: n.id,
            ast.alias: lambda n: n.name,
            ast.Constant: lambda n: n.value if isinstance(n.value, str) and id(n) not in documents else "",
        }.get(type(node))
        if said and NAMES.search(said(node)):
            yield said(node)


@pytest.mark.parametrize("folder", ["vlmr1", "flows", "benchmarks"])
def test_no_other_file_names_a_makers_namespace(folder):
    excused = {  # the choices of compute.device, and words of another program's command line
        "vlmr1/settings/training.py": ["cuda", "npu", "mps"],
        "vlmr1/serving/commands.py": ["/usr/local/bin/npu-smi", "--communication_backend=hccl", "npu:"],
    }
    # "nccl" is one of vLLM's names for how weights go over, and nccl_out speaks to that library itself.
    of_rollouts = [
        "grpo/weights_out.py",
        "grpo/folder_out.py",
        "settings/rollout.py",
        "serving/commands.py",
        "serve.py",
        "train.py",
    ]
    for path in sorted((ROOT / folder).rglob("*.py")):
        found = list(named(ast.parse(path.read_text())))
        if path == ROOT / "vlmr1/grpo/nccl_out.py":
            continue
        if path in [ROOT / "vlmr1" / name for name in of_rollouts]:
            found = [one for one in found if NAMES.findall(one) != ["nccl"]]
        if path == ROOT / "vlmr1/device.py":
            assert found
        else:
            name = path.relative_to(ROOT).as_posix()
            assert found == excused.get(name, []), name


ENTRY = {"METADATA": "Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.13.0\n"}
ENTRY["entry_points.txt"] = "[torch.backends]\ntorch_npu = torch_npu:_autoload\n"
BROKEN = "raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')\n"
WHOLE = """
import types
import torch
torch.utils.rename_privateuse1_backend("npu")
torch.npu = types.ModuleType("torch.npu")
torch.npu.is_available = lambda: True
torch.npu.device_count = lambda: 4
torch.npu.get_device_name = lambda index: "Ascend910B3"
torch.npu.max_memory_allocated = lambda: 5 * 2**20
def _autoload():
    pass
"""


def simulated(folder, text):
    """A folder for PYTHONPATH with a package torch_npu, which torch loads along with itself as it does the real one."""
    (folder / "torch_npu").mkdir()
    (folder / "torch_npu/__init__.py").write_text(text)
    for name, content in ENTRY.items():
        path = folder / "torch_npu-2.13.0.dist-info" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return environment(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")


def python(code, env, *arguments):
    command = [sys.executable, *(arguments or ("-c", textwrap.dedent(code)))]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_a_broken_torch_npu_is_said_in_a_sentence(tmp_path):
    env = simulated(tmp_path, BROKEN)
    bare = python("import torch", env)
    assert bare.returncode and "Failed to load the backend extension" in bare.stderr  # what people meet otherwise
    for module in ("vlmr1.stages.grpo", "vlmr1.cli", "benchmarks.grpo_step", "benchmarks.memory"):
        words = ["-m", module, *(["ask", "nowhere", "nothing.png", "it"] if module == "vlmr1.cli" else [])]
        done = python("", env, *words)
        assert done.returncode == 1
        assert done.stderr.strip() == (
            f"{module.partition('.')[0]}: torch_npu is installed and does not load (libhccl.so: cannot open shared"
            " object file: No such file or directory); run `source set_env.sh` of Ascend's CANN first, or"
            " `pip uninstall torch-npu` on a machine without an NPU"
        )


def test_a_simulated_npu_is_found(tmp_path):
    code = """
        import os
        from vlmr1.device import AUTOLOAD, load_npu, look, peak_bytes, settle
        from tests.conftest import COMPUTE
        load_npu()
        assert AUTOLOAD not in os.environ
        os.environ["LOCAL_RANK"] = "3"
        import torch
        chosen = []
        torch.accelerator.set_device_index = chosen.append  # there is none to be chosen
        device = settle(COMPUTE.model_copy(update={"dtype": "auto"}))
        assert settle(COMPUTE.model_copy(update={"dtype": "auto"})) is device  # said once
        assert chosen == [device.place] and os.environ["DS_ACCELERATOR"] == "npu"
        print(look().count, device.place, peak_bytes())
    """
    done = python(code, simulated(tmp_path, WHOLE))
    assert done.returncode == 0, done.stderr
    said = "device: npu, bfloat16, sdpa attention, hccl between processes (Ascend910B3)"
    assert done.stdout.splitlines() == [said, f"4 npu:3 {5 * 2**20}"]
