"""`vlmr1 join`: what it follows, and two local nodes under DVC."""

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, environment, free_port, run
from vlmr1 import joining
from vlmr1.cli import main

GRAPH = """
stages:
  one: {cmd: python -m tests.meeting one, outs: [{one-0: {cache: false}}, {one-1: {cache: false}}]}
  two: {cmd: python -m tests.meeting two, deps: [one-0], outs: [{two-0: {cache: false}}, {two-1: {cache: false}}]}
"""


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


@pytest.mark.slow
def test_two_nodes_go_through_the_stages_of_a_graph(tmp_path):
    """`dvc repro` on one, `vlmr1 join` on the other; here both are this machine."""
    (tmp_path / "params.yaml").touch()
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "work").mkdir()
    more = {"PYTHONPATH": str(ROOT), "MEETING_PORT": str(free_port())}
    run(["dvc", "init", "--no-scm", "-q"], tmp_path, **more)
    with (tmp_path / "said").open("w") as file:
        words = [sys.executable, "-m", "vlmr1.cli", "join"]
        node = subprocess.Popen(words, cwd=tmp_path, env=environment(**more), stdout=file, stderr=subprocess.STDOUT)
    try:
        run(["dvc", "repro"], tmp_path, **more)
        for name in ("one", "two"):
            assert {(tmp_path / f"{name}-{rank}").read_text() for rank in (0, 1)} == {f"vlmr1-{name}"}
        time.sleep(5)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(30)
    said = (tmp_path / "said").read_text()
    assert [line for line in said.splitlines() if line.endswith(": joined")] == ["one: joined", "two: joined"], said
