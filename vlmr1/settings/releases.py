"""How releases, their versions and labels are named: said once, for params, the store, the command and the tags."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

NAME = r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?"  # of a folder, of a key in a bucket, of a tag
VERSION = r"[0-9a-f]{32}"  # 128 bits: nobody can make two contents of one version
LABEL = r"[a-z](?:[a-z0-9_-]*[a-z0-9])?"  # e.g. prod
_MEANT = re.compile(rf"latest|v[0-9]+|{VERSION}")  # what NAME@… means by itself


def check_label(label: str) -> str:
    """The label. Raises ValueError for one that is none, or that could be taken for a version."""
    if re.fullmatch(LABEL, label) is None:
        raise ValueError(f"label {label!r}: small letters, digits, hyphens and underscores, a letter first, e.g. prod")
    if _MEANT.fullmatch(label):
        raise ValueError(f"label {label!r}: could be taken for a version, as in NAME@{label}; take another word")
    return label


Label = Annotated[str, AfterValidator(check_label)]
ReleaseName = Annotated[str, Field(pattern=f"^{NAME}$", max_length=100)]
Version = Annotated[str, Field(pattern=f"^{VERSION}$")]
