"""No secret of a URL is repeated: not by a message about a pair of `sets`, a failed command or a stage."""

import logging
import sys

import pytest

from flows import running
from flows.checkout import CommandFailed, CommandFailedForNow, call
from flows.showing import failure_shown
from tests.conftest import default_params
from vlmr1.recipes import apply
from vlmr1.scrubbed import scrubbed

SECRET = [
    "http://user:planted-pass@127.0.0.1:9/list",
    "https://us%40er:planted/planted@host/x",
    "s3://host/list?X-Amz-Signature=planted&token=planted",
    "https://host/x;see=it?sig=planted#there",
]


@pytest.mark.parametrize("url", SECRET)
def test_a_url_keeps_its_place_and_loses_what_is_for_its_server_alone(url):
    said = scrubbed(f"dvc failed: '{url}', (b) http://host/a?b")
    assert "planted" not in said and "***" in said and "host/" in said.replace("127.0.0.1:9", "host")
    assert said.endswith("', (b) http://host/a?b")


def test_what_holds_no_secret_is_as_it_was():
    for text in ("s3://bucket/prefix, asked by t@localhost", "data/x?y=1", "http://127.0.0.1:4200/runs", "a@b://"):
        assert scrubbed(text) == text


@pytest.mark.parametrize("url", SECRET)
def test_a_command_a_stage_and_a_pair_that_fail_do_not_repeat_it(url, tmp_path, monkeypatch, caplog):
    program = [sys.executable, "-c", f"import sys; sys.exit({url!r})"]
    with pytest.raises(CommandFailed) as failed:
        call(*program)
    logger = logging.getLogger("scrubbed")
    monkeypatch.setattr(running, "get_run_logger", lambda: logger)
    with caplog.at_level(logging.INFO, "scrubbed"):
        said, code = running.run_logged(program)
    assert code == 1 and said
    params = tmp_path / "params.yaml"
    params.write_text(default_params())
    texts = [str(failed.value), *said, caplog.text]
    for bad in (
        f"data.root={url}",
        f"data.rot={url}",
        f"grpo.steps={url}",
        f"grpo.steps=[{url}",
        f"data.root={url} {{",
        url,
    ):
        with pytest.raises(ValueError) as refused:
            apply(None, [bad], params)
        texts.append(str(refused.value))
    assert not [text for text in texts if "planted" in text]


def test_the_state_of_a_run_does_not_repeat_it(monkeypatch):
    shown = []
    monkeypatch.setattr("flows.showing.show_text", lambda key, text, description: shown.append(text))
    with pytest.raises(RuntimeError) as ended, failure_shown():
        raise KeyError(SECRET[0])
    assert "planted" not in str(ended.value) + shown[0] and ended.value.__cause__ is None
    with pytest.raises(KeyError, match="plain"), failure_shown():
        raise KeyError("plain")


@pytest.mark.parametrize(
    "words, for_now",
    [
        ("ERROR: Could not connect to http://127.0.0.1:9", True),
        ("ClientError: An error occurred (InternalError) when calling GetObject", True),
        ("503 Service Unavailable", True),
        ("An error occurred (500) when calling HeadObject", True),
        ("[Errno 113] No route to host", True),
        ("Temporary failure in name resolution", True),
        ("missing: md5 4503b5a03a0a503c", False),
        ("503 files are missing", False),
        ("Access Denied", False),
    ],
)
def test_what_may_mend_itself_is_known_by_words_and_not_by_the_digits_of_a_hash(tmp_path, monkeypatch, words, for_now):
    dvc = tmp_path / "dvc"
    dvc.write_text(f"#!/bin/sh\necho '{words}'; exit 1\n")
    dvc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(CommandFailed) as failed:
        call("dvc", "pull")
    assert isinstance(failed.value, CommandFailedForNow) == for_now
