"""Rollouts over a server in several processes, however the weights are shared: each asks for its share, one brings."""

from dataclasses import replace

import pytest

from tests.little_vllm import LittleVllm
from tests.processes import LORA, PAIR, Started, command, lay_out, rows_of
from tests.test_processes import SHARDINGS, assert_equal_runs
from vlmr1.cli import main
from vlmr1.sample import Source

WAYS = {"checkpoint": (), "adapter": (LORA,)}


def rollout(server, way, path):
    said = f"engine: vllm, servers: [{server.url}], model: base, weights: {way}, path: {path}, max_staleness: 1"
    return f"rollout={{{said}, correction: {{level: token, cap: 2.0}}, overlap: true, timeout: 60.0, patience: 20.0}}"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_processes_do_what_one_does(trained, tmp_path, way, sharding):
    base, source = trained
    samples = [replace(one, problem=f"{one.problem} {i}") for i, one in enumerate(source.samples)]
    place = lay_out(base, source.images, samples, tmp_path / "list.jsonl")
    with LittleVllm(base, Source("s", "train", source.images, tuple(samples))) as server:
        sets = (rollout(server, way, tmp_path / "brought"), *WAYS[way])
        main(command(place, tmp_path / "one", *sets))
        alone = list(server.by)
        Started(command(place, tmp_path / "two", *sets, PAIR, *SHARDINGS[sharding]), tmp_path / "said").finish()
        together = server.by[len(alone) :]
    assert_equal_runs(tmp_path / "two", tmp_path / "one")
    assert len(together) == len(alone) and len({by for by, _ in together}) == len({by for by, _ in alone})
    assert [(row["staleness"], row["stale_refused"]) for row in rows_of(tmp_path / "two")] == 2 * [(0, 0)] + 2 * [
        (1, 0)
    ]
    assert list((tmp_path / "brought").iterdir()) == []
