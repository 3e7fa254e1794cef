"""`vlmr1 join`: what it follows, and two local nodes under DVC."""

import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from tests.conftest import ROOT, environment, free_port, make_project, run
from tests.processes import apart, largest
from vlmr1 import joining
from vlmr1.cli import main
from vlmr1.sample import read_jsonl


def test_a_stage_is_joined_once_and_only_while_it_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"no params\.yaml here; run from the project's folder"):
        main(["join"])
    (tmp_path / "params.yaml").touch()
    there, ran, looks = iter([False, True, True, True]), [], iter(range(5))
    monkeypatch.setattr(joining, "_answers", lambda rendezvous: rendezvous == "node-0:29500" and next(there))
    monkeypatch.setattr(joining, "_run", lambda words: ran.append(words) or 1)

    def pause(seconds):
        if next(looks) == 3:
            joining.announce("grpo", ["-m", "more"], "node-0:29500")
        elif len(ran) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    joining.announce("sft-samples", ["-m", "some", "words"], "node-0:29500")
    main(["join"])
    assert [words[1:] for words in ran] == [["-m", "some", "words"], ["-m", "more"]]
    said = capsys.readouterr().out
    assert "sft-samples: waiting at node-0:29500 for the other nodes; run `vlmr1 join` on each" in said
    assert "sft-samples: ended with 1" in said and said.endswith("left\n")


def test_nobody_answers_at_a_free_port():
    assert not joining._answers(f"127.0.0.1:{free_port()}")


TURNS = """
import os, time
from vlmr1.launch import first_alone
for turn in range(3):
    with first_alone():
        time.sleep(0.5 * (os.environ["RANK"] == "0"))
        os.write(1, f"turn {turn} {os.environ['RANK']}\\n".encode())  # whole, beside the others'
"""


@pytest.mark.slow
def test_the_first_process_goes_alone(tmp_path):
    (tmp_path / "turns.py").write_text(TURNS)
    torchrun = ["python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "turns.py"]
    lines = run(torchrun, tmp_path, PYTHONPATH=str(ROOT)).splitlines()
    said = [line.split()[1:] for line in lines if line.startswith("turn ")]
    assert len(said) == 9
    for turn in "012":
        assert next(rank for when, rank in said if when == turn) == "0"


STAGES = ("sft@samples", "evaluate@grpo")  # and what they need
JOINED = ("warmup", "sft-samples", "grpo", "evaluate-grpo")
SHORT = ("grpo.steps=4", "grpo.save_steps=2", "sft.save_steps=2")


def left(project):
    """Rows and weights of the trainings, and what the trained policy answered."""
    rows = [read_jsonl(project / f"logs/{name}/metrics.jsonl") for name in ("warmup", "sft-samples", "grpo")]
    weights = [load_file(project / f"models/{name}/model.safetensors") for name in ("base", "sft-samples", "grpo")]
    answers = {path.name: read_jsonl(path) for path in (project / "predictions/grpo").glob("*.jsonl")}
    return rows, weights, answers


def without_key_biases(weights):
    """In the tower they hardly move a softmax: their gradients are nearly rounding, which Adam divides by its size."""
    kept = {name: one for name, one in weights.items() if not name.endswith("attn.qkv.bias")}
    return kept | {n: one.view(3, -1)[[0, 2]] for n, one in weights.items() if n.endswith("attn.qkv.bias")}


@pytest.mark.slow
def test_stages_of_two_nodes_leave_what_one_process_leaves(tmp_path):
    """`dvc repro` on one, `vlmr1 join` on the other; here both are this machine."""
    project = make_project(tmp_path / "project")
    sets = [word for pair in SHORT for word in ("-S", pair)]
    run(["vlmr1", "apply", "recipes/smoke.yaml", *sets], project)
    run(["dvc", "repro", *STAGES], project)
    rows, weights, answers = left(project)
    launch = f"compute.launch={{nnodes: 2, nproc_per_node: 1, rendezvous: '127.0.0.1:{free_port()}'}}"
    run(["vlmr1", "apply", "recipes/smoke.yaml", *sets, "-S", launch], project)
    with (tmp_path / "said").open("w") as file:
        words = [sys.executable, "-m", "vlmr1.cli", "join"]
        node = subprocess.Popen(words, cwd=project, env=environment(), stdout=file, stderr=subprocess.STDOUT)
    try:
        run(["dvc", "repro", *STAGES], project)
        time.sleep(5)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(30)
    said = (tmp_path / "said").read_text().splitlines()
    for name in JOINED:
        assert said.index(f"{name}: joined") < said.index(f"{name}: done")
    assert [line for line in said if line.endswith(": joined")] == [f"{name}: joined" for name in JOINED]
    together = left(project)
    for ours, theirs in zip(together[0], rows, strict=True):
        assert max(apart(ours, theirs).values()) < 1e-5
    for ours, theirs in zip(together[1], weights, strict=True):
        assert largest(without_key_biases(ours), without_key_biases(theirs))[0] < 1e-5
        assert largest(ours, theirs)[0] < 1e-3
    assert together[2] == answers and answers
