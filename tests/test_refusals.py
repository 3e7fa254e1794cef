# ruff: noqa: F811
"""What several processes cannot do is refused in a sentence before anything is loaded; what is taken."""

import time
from dataclasses import replace

import pytest

from tests.processes import PAIR, command, zero
from tests.test_processes import folder, mixed, place  # noqa: F401  (fixtures)
from vlmr1.cli import main
from vlmr1.device import Found
from vlmr1.sample import read_jsonl, write_jsonl
from vlmr1.tasks import rec
from vlmr1.train import load_jsonl

REFUSED = {
    "too many processes": (
        ("compute.launch={nnodes: 1, nproc_per_node: 999, rendezvous: null}", "prompts_per_step=999"),
        "compute.launch.nproc_per_node: 999 processes on a machine of .*; lower it",
    ),
    "a step that does not divide": (
        (PAIR, "prompts_per_step=5"),
        "grpo.prompts_per_step: 5 prompts do not divide over 2 processes .* make it a multiple of 2",
    ),
    "passes that do not divide": (
        (PAIR, "compute.prompts_per_device=3"),
        "grpo.prompts_per_step: 4 prompts do not divide over 2 processes of 3 .* make it a multiple of 6",
    ),
    "shards in one process": (
        (zero(2),),
        "compute.deepspeed: shards over processes, and there is one; give compute.launch, or null",
    ),
    "no compiler": (
        (PAIR, zero(3)),
        r"compute.deepspeed: .* finds no g\+\+; install a C\+\+ compiler, or set it to null",
    ),
    "weights on the host, unsharded": (
        (PAIR, zero(2, "all")),
        "compute.deepspeed: offload: all keeps weights on the host, which needs stage 3",
    ),
    "nodes that cannot meet": (
        ("compute.launch={nnodes: 2, nproc_per_node: 1, rendezvous: null}",),
        "compute.launch: rendezvous: several nodes meet at one of them; give its HOST:PORT",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence_before_anything_is_loaded(place, folder, monkeypatch, name):
    sets, sentence = REFUSED[name]
    monkeypatch.setattr("shutil.which", lambda *_: None)
    monkeypatch.setattr("vlmr1.device.look", Found)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("processes are started"))
    nowhere = replace(place, base=folder / "nowhere")
    started = time.monotonic()
    with pytest.raises(SystemExit, match=sentence):
        main(command(nowhere, folder / "refused", *sets))
    assert time.monotonic() - started < 5
    assert not (folder / "refused").exists()


def test_rows_without_a_picture(mixed, tmp_path):
    blind = [sample for sample in load_jsonl(mixed.data, mixed.images).samples if not sample.images]
    assert len(blind) == 13 and all(sample.sizes == () for sample in blind)
    said = rec.answer("<think>.</think><answer>[1, 2, 30, 40]</answer>", blind[0], (0, 0))
    assert said.boxes == ((1, 2, 30, 40),)  # there is no frame to carry it from
    assert rec.rewards(said, blind[0], ["iou"])["iou"].value > 0
    rows = [row | {"image": None} for row in read_jsonl(mixed.data) if "image" not in row]
    write_jsonl(tmp_path / "null.jsonl", rows)
    assert all(sample.images == () for sample in load_jsonl(tmp_path / "null.jsonl", mixed.images).samples)
