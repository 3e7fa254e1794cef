"""Lint and format, as `make lint` has them; types are checked there too."""

import subprocess

import pytest

from tests.conftest import BIN, ROOT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(command):
    done = subprocess.run([BIN / "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
