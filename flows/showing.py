"""The forms in which the UI shows things: keys, pictures, tables and text, each an artifact of the present run."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from vlmr1.scrubbed import scrubbed


def key_of(*parts: str) -> str:
    """Artifact keys are lower-case words joined by dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


@contextmanager
def unfailing(what: str) -> Iterator[None]:
    """Around what a run can do without, such as its page: where it fails, the log says what, and the run goes on."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning(f"{what}: {scrubbed(str(error)) or type(error).__name__}")


def show_text(key: str, text: str, description: str) -> None:
    with unfailing(f"the page lacks {key}"):
        create_markdown_artifact(text, key=key, description=description)


def show_table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    with unfailing(f"the page lacks {key}"):
        create_table_artifact(list(rows), key=key, description=description)


def show_picture(key: str, path: Path, description: str, below: str = "") -> None:
    # As Markdown: an image artifact would print the whole data URL below the picture.
    show_text(key, f"![{description}]({data_url(path)})\n{below}", description)


@contextmanager
def failure_shown() -> Iterator[None]:
    """Around a flow's body: what stops it is shown on its page in its own words, and goes on its way.

    Where those words hold what a URL says to a server alone, it goes on without that.
    """
    try:
        yield
    except Exception as error:  # not the call to stop, which needs no explaining
        words = str(error) or type(error).__name__
        said = scrubbed(words)
        text = f"## What stopped the run\n\n{html.escape(said, quote=False)}\n"
        show_text("failure", text, "What stopped the run")
        if said != words:
            raise RuntimeError(f"{type(error).__name__}: {said}") from None
        raise


def data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
