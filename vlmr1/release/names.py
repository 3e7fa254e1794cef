"""Names of files that come from a manifest which anybody may have written: which of them are safe on any computer.

Refused, rather than mended: what could leave the folder, hide in it, run by itself, or be one file here and another
there. Windows and macOS have the narrowest rules, and they hold everywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

MOST_FILES = 10_000
_DEPTH, _LENGTH, _PART = 16, 1024, 200  # folders deep, characters, bytes of one part
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)
_STARTED = {"desktop.ini", "autorun.inf", "thumbs.db"}  # read by a system as soon as a folder is looked at
_RUN = {".bat", ".cmd", ".com", ".dll", ".dylib", ".exe", ".hta", ".jar", ".js", ".lnk", ".msi", ".ps1", ".py", ".pyc"}
_RUN |= {".pyd", ".pyw", ".reg", ".scr", ".sh", ".so", ".url", ".vbs", ".wsf"}
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5"}


def check_names(names: Iterable[str], reserved: str) -> None:
    """Raises ValueError, naming it, for a name that a release must not have. `reserved` is the manifest's own."""
    files: set[str] = set()
    folders: dict[str, str] = {}
    for name in names:
        fault = _fault(name)
        if fault:
            raise ValueError(f"file name {name[:80]!r} would leave the folder or not be the same everywhere: {fault}")
        path = PurePosixPath(name)
        if path.suffix.lower() in _PICKLED:
            raise ValueError(f"file {name!r} is of a kind that may hold pickled code; releases hold safetensors")
        if path.suffix.lower() in _RUN or path.name.casefold() in _STARTED:
            raise ValueError(f"file {name!r} is of a kind that runs by itself; releases hold no programs")
        folded = name.casefold()
        if folded in files or folded == reserved:
            raise ValueError(f"file name {name!r}: two file names differ only by case, or it is the manifest's own")
        files.add(folded)
        for parent in map(str, path.parents[:-1]):
            if folders.setdefault(parent.casefold(), parent) != parent:
                raise ValueError(f"file name {name!r}: two folder names differ only by case")
    both = files & folders.keys()
    if both:
        raise ValueError(f"{min(both)!r} would be a file and a folder")


def _fault(name: str) -> str | None:
    """What is wrong with a name by itself."""
    parts = name.split("/")
    if len(name) > _LENGTH or len(parts) > _DEPTH:
        return "too long, or too deep"
    if any(unicodedata.category(character)[0] == "C" for character in name) or set(name) & set('\\:<>"|?*'):
        return "a character that no file name needs"
    if unicodedata.normalize("NFC", name) != name:
        return "its letters are composed in another way than usual"
    for part in parts:
        if not part or part.startswith(".") or part.endswith((".", " ")):
            return "a part that is empty, hidden, or ends in a dot or a space"
        if len(part.encode()) > _PART:
            return "a part is too long"
        if re.search(r"~[0-9]", part):
            return "a short name on Windows"
        if _DEVICES.fullmatch(part.partition(".")[0].rstrip()):
            return "a device on Windows"
    return None
