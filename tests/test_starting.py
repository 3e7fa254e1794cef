"""What people see while a server starts: at once what and where its log is, then a line now and then."""

from vlmr1.serving.starting import Starting


def test_a_log_gets_a_line_every_fifteen_seconds_with_the_servers_last(tmp_path, capsys):
    log = tmp_path / "log"
    starting = Starting("vllm with models/grpo", log)
    for seconds, line in (
        (0.0, ""),
        (7.0, "early\n"),
        (15.2, "loading\n\n"),
        (20.0, "later\n"),
        (30.4, "bad\x1b[2J\n"),
    ):
        with log.open("a") as file:
            file.write(line)
        starting.waited(seconds)
    starting.healthy()
    starting.stopping()
    first, *waits, last = capsys.readouterr().err.splitlines()
    assert first.startswith("starting vllm with models/grpo") and f"its log is {log}" in first
    assert waits == ["15 s: loading", "30 s: bad[2J"] and last == "stopping vllm with models/grpo …"


def test_a_terminal_has_one_line_that_moves(tmp_path, capsys, monkeypatch):
    log = tmp_path / "log"
    log.write_text("x" * 500)
    starting = Starting("vllm", log)
    starting.moves = True
    monkeypatch.setenv("COLUMNS", "40")
    for seconds in (0.0, 1.0, 2.0):
        starting.waited(seconds)
    starting.healthy()
    said = capsys.readouterr().err.split("\r\033[K")
    assert [len(one) for one in said[1:]] == [39, 39, 0] and said[1].startswith("1 s: xxx")
