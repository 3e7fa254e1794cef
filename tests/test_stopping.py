"""How the command ends where it is stopped, or where trying again may help: a line, and an exit code that says so."""

import pytest

from vlmr1.cli import main
from vlmr1.errors import TransientError

TRAIN = ["train", "grpo", "--model", "m", "--data", "d", "--images", "i", "--output", "o"]
EVALUATE = ["evaluate", "m", "--data", "d", "--images", "i", "--output", "o"]
BENCH = ["bench-serve", "--url", "http://localhost:1/v1"]


@pytest.mark.parametrize(
    ("words", "where", "error", "code", "said"),
    [
        (TRAIN, "vlmr1.train.defaults", KeyboardInterrupt, 130, "vlmr1 train: stopped; the same command goes on"),
        (EVALUATE, "vlmr1.train.lists", KeyboardInterrupt, 130, "vlmr1 evaluate: stopped; the same command goes on"),
        (BENCH, "vlmr1.serving.client.listing", KeyboardInterrupt, 130, "vlmr1 bench-serve: stopped"),
        (TRAIN, "vlmr1.train.defaults", TransientError("no server"), 75, "vlmr1 train: no server"),
    ],
)
def test_a_command_that_is_stopped_or_may_be_tried_again_says_so(monkeypatch, capsys, words, where, error, code, said):
    def fails(*_):
        raise error

    monkeypatch.setattr(where, fails)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code and capsys.readouterr().err == f"{said}\n"
