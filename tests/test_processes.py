"""One result, however many processes make it, however they share the weights, and however often they are killed.

Two processes share a step's prompts by DDP, or by DeepSpeed with optimizer, gradients and weights sharded. What they
log, sample and learn is held to one process with the same step; what the engine's sharing of prompts gives, to each
completion as a sequence of its own; what is left after a kill, to a run that was let alone.
"""

import json
import random
import shutil
import time
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.conftest import free_port
from tests.processes import (
    LORA,
    PAIR,
    Killed,
    Started,
    apart,
    blind_for,
    bytes_of,
    command,
    do,
    gradients_of,
    job,
    largest,
    lay_out,
    lives,
    rollouts_of,
    rows_of,
    under_torchrun,
    wait_for_rows,
    weights_of,
    zero,
)
from vlmr1 import training
from vlmr1.cli import main
from vlmr1.families.random import write_random

pytestmark = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="held to the byte on CPUs alone; hide the others, CUDA_VISIBLE_DEVICES="
)

LOGGED = 1e-6  # of a logged figure: absolute below 1, relative above; of the gradients' norm ten times as much
GRADIENT = 1e-5  # of a parameter's gradient: relative L2
UPDATED = 5e-5  # the same after an update: Adam divides gradients of nearly nothing, rounding and all, by their size
WEIGHTS = 1e-5  # of a trained parameter: relative L2

LONGER = ("steps=8", "save_steps=3")  # checkpoints between two steps on one set of rollouts, and after both
FROZEN = {"tower": "trained.freeze_vision=true", "projector": "trained.freeze_projector=true"}
WAYS = {
    "all": (),
    "checkpointing": ("compute.activation_checkpointing=true",),
    "lora": (LORA,),
    "tower frozen": (FROZEN["tower"],),
    "vision frozen": tuple(FROZEN.values()),
}
STEP = ("steps=2", "save_steps=2", "max_grad_norm=1e9")  # gradients as they are, unclipped
SHARDINGS = {"ddp": (), "zero2": (zero(2),), "zero3": (zero(3),)}

# Runs that differ in what falls to which process.
RUNS = {
    "plain": (),
    "accumulated": ("compute.prompts_per_device=1",),
    "blind": ("steps=5", "save_steps=5", "num_iterations=1", "epsilon=null", "beta=0.0", "weight_decay=0.1"),
    "idle": ("rewards={format: 1.0}", "beta=0.0", "loss_type=dapo"),  # groups of equal rewards, left out
    "cut": ("max_completion_length=18", "mask_truncated_completions=true"),  # completions cut short, left out
    "all cut": ("max_completion_length=2", "mask_truncated_completions=true"),
    "stopped": ("steps=8", "save_steps=1", "holdout={items: 5, every: 1, patience: 2}"),
}
# Sets of four prompts, two for each process: (p)ictured ones and ones of (t)ext alone.
BLIND = "pptt" "tttt" "ttpp" "pttp" "tptt"  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def place(trained, folder):
    base, source = trained
    return lay_out(base, source.images, source.samples, folder / "pictures.jsonl")


@pytest.fixture(scope="module")
def mixed(trained, folder):
    """Where the prompts of the first steps read as BLIND says."""
    base, source = trained
    return lay_out(base, source.images, source.samples, folder / "mixed.jsonl", blind_for(BLIND, len(source.samples)))


@pytest.fixture(scope="module")
def one(place, folder):
    """A run by the command line in one process."""
    main(command(place, folder / "one", *LONGER))
    return folder / "one"


@pytest.fixture(scope="module")
def two(place, folder):
    """The same in two processes, and what it said."""
    said = Started(command(place, folder / "two", *LONGER, PAIR), folder / "two.said").finish()
    return folder / "two", said


def gradient_jobs(place, mixed, *sets):
    jobs = [job(f"{name}, mixed", mixed, *STEP, *way, *sets, gradients=True) for name, way in WAYS.items()]
    return [job("all, pictured", place, *STEP, *sets, gradients=True), *jobs]


def run_jobs(place, mixed, *sets):
    return [job(name, mixed if name == "blind" else place, *run, *sets) for name, run in RUNS.items()]


@pytest.fixture(scope="module")
def naive(place, mixed, folder):
    """Gradients in one process, each completion a sequence of its own."""
    do(gradient_jobs(place, mixed, "share_prefix=false"), folder / "naive")
    return folder / "naive"


@pytest.fixture(scope="module")
def alone(place, mixed, folder):
    """The runs in one process."""
    do(run_jobs(place, mixed), folder / "alone")
    return folder / "alone"


@pytest.fixture(scope="module")
def pair(request, place, mixed, folder):
    """Gradients and runs of two processes, that share the weights as the parameter says."""
    sharding = SHARDINGS[request.param]
    jobs = [*gradient_jobs(place, mixed, *sharding), *run_jobs(place, mixed, *sharding)]
    under_torchrun(jobs, folder / request.param)
    return folder / request.param


def assert_equal_runs(ours, theirs):
    """Two runs' figures, rollouts and weights."""
    figures = apart(rows_of(ours), rows_of(theirs))
    figures["grad_norm"] /= 10  # DeepSpeed takes it apart in another order
    assert max(figures.values()) < LOGGED, figures
    assert rollouts_of(ours) == rollouts_of(theirs)
    assert largest(weights_of(ours), weights_of(theirs))[0] < WEIGHTS


def assert_equal_gradients(ours, theirs, name):
    compared = list(zip(gradients_of(ours, name), gradients_of(theirs, name), strict=True))
    assert len(compared) == 2
    for (shared, apart_), bound in zip(compared, (GRADIENT, UPDATED), strict=True):
        assert largest(shared, apart_)[0] < bound, largest(shared, apart_)
    assert all(g.norm() > 0 for g in compared[1][1].values())  # the second step's: a LoRA's B begins as 0


# The command line.


def test_two_processes_do_what_one_does(one, two):
    output, said = two
    assert_equal_runs(output, one)
    assert len(rows_of(output)) == 8 and rows_of(output)[-1]["kl"] > 0
    lines = [line for line in said.splitlines() if line.strip()]
    assert sorted(set(lines)) == sorted(lines), "a message is said by more than one process"
    assert lines[-1].startswith(f"the policy is in {output}/policy; most memory ")
    assert not any("arning" in line for line in lines)
    assert not (output / "work").exists()


def test_accumulated_passes_do_what_one_pass_does(alone):
    assert_equal_runs(alone / "accumulated", alone / "plain")


# Gradients and runs of two processes.

EVERY_SHARDING = pytest.mark.parametrize(
    "pair", ["ddp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zero2", "zero3"))], indirect=True
)


@EVERY_SHARDING
@pytest.mark.parametrize("name", ["all, pictured", *(f"{name}, mixed" for name in WAYS)])
def test_gradients_of_every_parameter(pair, naive, name):
    assert_equal_gradients(pair, naive, name)


@EVERY_SHARDING
@pytest.mark.parametrize("name", RUNS)
def test_runs_are_those_of_one_process(pair, alone, name):
    assert_equal_runs(pair / name, alone / name)


def test_the_runs_are_what_they_are_called(alone):
    """Else the comparisons above would show less than they say."""
    idle, cut, all_cut, stopped = (rows_of(alone / name) for name in ("idle", "cut", "all cut", "stopped"))
    assert any(row["zero_variance_share"] > 0 for row in idle)
    assert any(0 < row["truncated_share"] < 1 for row in cut)
    assert all(row["truncated_share"] == 1 and row["loss"] == 0 for row in all_cut)
    assert len(stopped) < 8 and "holdout/judged" in stopped[0]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_gradients_of_another_family(trained, mixed, folder, sharding):
    """InternVL, whose pictures are cut into tiles, and whose prompt without a picture has another shape."""
    base = folder / "internvl"
    if not base.exists():
        write_random("internvl", base)
    there, sets = replace(mixed, base=base), (*STEP, "rewards={'tests.processes:last_letters': 1.0}", "max_pixels=3136")
    jobs = [job(name, there, *sets, *WAYS[name], gradients=True) for name in ("all", "vision frozen")]
    do([one | {"sets": [*one["sets"], "share_prefix=false"]} for one in jobs], folder / "internvl-naive")
    sharded = [one | {"sets": [*one["sets"], *SHARDINGS[sharding]]} for one in jobs]
    under_torchrun(sharded, folder / f"internvl-{sharding}")
    for one in jobs:
        assert_equal_gradients(folder / f"internvl-{sharding}", folder / "internvl-naive", one["name"])


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_gradients_of_the_naive_way(place, mixed, folder, naive, sharding):
    jobs = gradient_jobs(place, mixed, "share_prefix=false", *SHARDINGS[sharding])
    under_torchrun(jobs, folder / f"naive-{sharding}")
    for one in jobs:
        assert_equal_gradients(folder / f"naive-{sharding}", naive, one["name"])


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "offload"), [(2, "optimizer"), (3, "optimizer"), (3, "all")])
def test_weights_and_optimizer_on_the_host(place, folder, alone, stage, offload):
    out = folder / f"{stage}-{offload}"
    under_torchrun([job("plain", place, zero(stage, offload))], out)
    assert_equal_runs(out / "plain", alone / "plain")
    assert "cpu_adam" not in (out / "said").read_text()  # torch's AdamW serves: nothing but collectives is compiled


@pytest.mark.slow
def test_one_process_may_shard(place, folder, alone):
    """With nobody to share with, for what is kept on the host."""
    out, names = folder / "lonely", ("idle", "cut")
    under_torchrun([job(name, place, *RUNS[name], zero(3, "all")) for name in names], out, 1)
    for name in names:
        assert_equal_runs(out / name, alone / name)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_sharded_by_the_command_line(place, folder, one, stage):
    output = folder / f"cli-{stage}"
    Started(command(place, output, *LONGER, PAIR, zero(stage)), folder / f"cli-{stage}.said").finish()
    assert_equal_runs(output, one)
    ours, theirs = (AutoModelForImageTextToText.from_pretrained(p / "policy").state_dict() for p in (output, one))
    assert largest(ours, theirs)[0] < WEIGHTS


@pytest.mark.slow
def test_two_nodes(place, folder, one):
    """The same command on each node; here both are this machine."""
    nodes = f"compute.launch={{nnodes: 2, nproc_per_node: 1, rendezvous: '127.0.0.1:{free_port()}'}}"
    words = command(place, folder / "nodes", *LONGER, nodes)
    started = [Started(words, folder / f"node-{i}.said") for i in range(2)]
    said = [node.finish() for node in started]
    assert_equal_runs(folder / "nodes", one)
    assert sum("the policy is in" in text for text in said) == 1


# Kills.


def killed(place, folder, name, seed, *sets, alone=False):
    """Where a run left its results that was killed at a random moment, and taken up by the same command."""
    rng, output, said = random.Random(seed), folder / name, folder / f"{name}.said"
    words = command(place, output, *LONGER, *sets)
    started = Started(words, said)
    wait_for_rows(output / "work", rng.randrange(9), started)
    time.sleep(rng.uniform(0, 0.3))
    if alone:
        below = started.below()
        started.process.kill()
        started.process.wait()
        until = time.monotonic() + 30  # on a busy machine
        while any(map(lives, below)) and time.monotonic() < until:
            time.sleep(0.1)
        assert below and not any(map(lives, below))
    else:
        started.kill()
    if not (output / "metrics.json").exists():  # else it was just done
        Started(words, said).finish()
    return output


@pytest.mark.parametrize("seed", [5, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 6, 7, 9))])
def test_two_processes_killed_leave_the_same_bytes(place, folder, two, seed):
    assert bytes_of(killed(place, folder, f"killed-{seed}", seed, PAIR)) == bytes_of(two[0])


@pytest.mark.slow
def test_processes_end_with_torchrun(place, folder, two):
    """torchrun killed by itself takes them along: two runs would write to the same files."""
    assert bytes_of(killed(place, folder, "orphans", 5, PAIR, alone=True)) == bytes_of(two[0])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("seed", [5, 7])
def test_sharded_runs_killed_leave_the_same_bytes(place, folder, stage, seed):
    whole = folder / f"whole-{stage}"
    if not whole.exists():
        Started(command(place, whole, *LONGER, PAIR, zero(stage)), folder / f"whole-{stage}.said").finish()
    again = killed(place, folder, f"killed-{stage}-{seed}", seed, PAIR, zero(stage))
    assert bytes_of(again) == bytes_of(whole)


KILLED = {
    "saved every step": ("save_steps=1", "sync_ref_model={ref_model_mixup_alpha: 0.6, ref_model_sync_steps: 1}"),
    "saved every third step": ("save_steps=3",),
    "stopped": RUNS["stopped"],
    "lora": ("save_steps=1", LORA),
}


@pytest.mark.parametrize("name", [*list(KILLED)[:-1], pytest.param("lora", marks=pytest.mark.slow)])
def test_one_process_killed_in_every_step_leaves_the_same_bytes(place, folder, name):
    whole, cut = (job(f"{name}, {kind}", place, *KILLED[name]) for kind in ("whole", "cut"))
    do([whole], folder)
    for step in range(1, len(rows_of(folder / whole["name"])) + 1):
        with pytest.raises(Killed):
            do([cut | {"dies": step}], folder)
    do([cut], folder)
    assert bytes_of(folder / cut["name"]) == bytes_of(folder / whole["name"])


def test_a_set_of_rollouts_is_finished_by_as_many_processes(place, folder):
    cut = job("shared out", place)  # its checkpoint stands between the two steps on a set
    with pytest.raises(Killed):
        do([cut | {"dies": 3}], folder)
    for path in (folder / cut["name"] / "work/checkpoint-3").glob("rollouts-0.*"):
        shutil.copy(path, path.with_name(f"rollouts-1{path.suffix}"))
    with pytest.raises(ValueError, match=r"compute.launch: .* by 2 processes, and 1 run; go on with as many"):
        do([cut], folder)


@pytest.mark.slow
def test_a_run_may_go_on_in_another_number_of_processes(place, folder, alone):
    cut = job("fewer", place, "save_steps=2")
    with pytest.raises(AssertionError, match="Killed"):
        under_torchrun([cut | {"dies": 2}], folder)
    do([cut], folder)
    assert_equal_runs(folder / cut["name"], alone / "plain")


@pytest.mark.parametrize("moment", ["logs/metrics.jsonl", "metrics.json"])
def test_a_run_killed_as_it_leaves_its_results_leaves_them_again(place, folder, moment, monkeypatch):
    output = folder / f"leaving {moment.replace('/', ' ')}"

    def killing(path, *args):
        if path.name == output.joinpath(moment).name:
            raise Killed
        return write(path, *args)

    with monkeypatch.context() as patch:
        name = "write_json" if moment == "metrics.json" else "write_jsonl"
        write = getattr(training, name)
        patch.setattr(training, name, killing)
        with pytest.raises(Killed):
            main(command(place, output))
    assert (output / "policy").is_dir()
    main(command(place, output))
    assert json.loads((output / "metrics.json").read_text())["steps"] == 4 and len(rows_of(output)) == 4
    with pytest.raises(SystemExit, match="there already"):
        main(command(place, output))
