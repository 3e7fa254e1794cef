"""No secret leaves with a release: its texts are searched for this computer's own, and for the shapes of usual ones.

Those texts are the manifest, the card, the small texts among its files, and the reasons that its log keeps.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

_NAMED = re.compile(
    r"SECRET|TOKEN|PASS|CREDENTIAL|PRIVATE|AUTH(?!OR)|_KEY|KEY$|_PWD|WEBHOOK|NOTIFY_URL|DATABASE_URL|_DSN$",
    re.IGNORECASE,
)
_SHAPES = {
    "a URL with a user or a password in it": re.compile(
        r"\b[a-z][a-z0-9+.-]*://(?:[^/\s\"'@]+|[^/\s\"'@:]+:(?!\d+/)[^\s\"'@]+)@", re.IGNORECASE
    ),
    "a URL with a key in its query": re.compile(
        r"[?&](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|(?:access_|id_|auth_)?token|api_?key|key|sig|signature"
        r"|password|secret)=[^&\s\"']{6,}",
        re.IGNORECASE,
    ),
    "the address of a webhook": re.compile(r"\bhooks\.slack\.com/services/|\bdiscord(?:app)?\.com/api/webhooks/"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of the hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})\b"),
    "a token of GitLab": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "a token of Slack": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}\b|\bAIza[A-Za-z0-9_-]{35}"),
    "a signed token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{8,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_SMALL = 1 << 20  # bytes; larger ones are vocabularies
_SHORTEST = 8  # characters; shorter values of the environment are words that any text has


def refuse_secrets(text: str, what: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ValueError where a text that is to be published holds a secret; the sentence names its kind alone."""
    for name, value in environment.items():
        if not _NAMED.search(name) or len(value) < _SHORTEST:
            continue
        written = {value, *(json.dumps(value, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False))}  # as JSON has it
        if any(one in text for one in written):
            raise ValueError(f"{what} would hold the value of {name}; take it out")
    for kind, shape in _SHAPES.items():
        if shape.search(text):
            raise ValueError(f"{what} would hold {kind}; take it out")


def refuse_secrets_in(folder: Path) -> None:
    """The same of the small texts of a folder, whatever they are called. Raises ValueError naming the file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size <= _SMALL and b"\0" not in (data := path.read_bytes()):
            refuse_secrets(data.decode(errors="replace"), path.relative_to(folder).as_posix())
