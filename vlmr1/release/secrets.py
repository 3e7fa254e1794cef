"""No secret leaves with a release: its texts are searched for this computer's own, and for the shapes of usual ones.

Those texts are the manifest, the card, and the reasons that its log keeps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_NAMED = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE", re.IGNORECASE)
_SHAPES = {
    "a URL with a user or a password in it": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s\"'@]+@", re.IGNORECASE),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of the hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_SHORTEST = 8  # characters; shorter values of the environment are words that any text has


def refuse_secrets(text: str, what: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ValueError where a text that is to be published holds a secret; the sentence names its kind alone."""
    for name, value in environment.items():
        if _NAMED.search(name) and len(value) >= _SHORTEST and value in text:
            raise ValueError(f"{what} would hold the value of {name}; take it out")
    for kind, shape in _SHAPES.items():
        if shape.search(text):
            raise ValueError(f"{what} would hold {kind}; take it out")
