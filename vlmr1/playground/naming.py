"""What a word of the command line names: a checkpoint folder, a release, or the address of a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vlmr1.playground.asking import Asked, Local, Served
from vlmr1.release.landed import landed
from vlmr1.release.store import Store

ADDRESS = ("http://", "https://")


def open_models(
    words: Sequence[str], like: Path | None, store: Callable[[], Store], said: Callable[[str], None]
) -> list[Asked]:
    """The models that the words name, loaded. Raises ValueError or ConnectionError naming the word and the mend."""
    if like is not None and not any(word.startswith(ADDRESS) for word in words):
        raise ValueError("--like: is for the address of a server, and none is given; leave it out")
    found: list[Asked] = []
    for word in words:
        if word.startswith(ADDRESS):
            said(f"asking {word} for its models …")
            found += _served(word, like)
        elif Path(word).is_dir():
            said(f"loading {word} …")
            found.append(Local(str(Path(word).resolve()), Path(word)))
        elif "@" in word or "#" in word:
            name, folder = landed(word, store(), said)
            said(f"loading {name} …")
            found.append(Local(name, folder))
        else:
            raise ValueError(f"{word}: no such folder; give a checkpoint folder, NAME@VERSION or http://HOST:PORT/v1")
    return found


def _served(url: str, like: Path | None) -> list[Asked]:
    """Every model that a server says it serves, but for second names: `vlmr1 serve` has each as NAME@DIGEST too."""
    from vlmr1.families import load_family
    from vlmr1.serving.client import models_of, server_at

    family = None if like is None else load_family(like, None)
    models = models_of(server_at(url, ""))
    if not models:
        raise ConnectionError(f"{url} serves no model; start it with one")
    first = [model for model in models if "@" not in model or model.partition("@")[0] not in models]
    return [Served(server_at(url, model), family) for model in first]
