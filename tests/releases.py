"""Shared by the tests of releases: a checkpoint's folder, what is said of it, and publishing it."""

from vlmr1.release.publish import publish
from vlmr1.release.store import open_store

SOME = "0123456789abcdef" * 2  # a version
SCORE = {
    "task": "rec",
    "judged": "acc_0.5",
    "acc_0.5": 0.5,
    "acc_0.5_low": 0.4,
    "acc_0.5_high": 0.6,
    "mean_iou": 0.5,
    "parse_failure_rate": 0.0,
    "n": 100,
}
ABOUT = {
    "kind": "model",
    "base": {"kind": "built", "model": None, "revision": None, "sha256": "0" * 64},
    "data": {"data/converted/train/train.jsonl": "1" * 64},
    "params": {"a": 1},
    "rewards": {"accuracy": 1.0, "format": 0.5},
    "accuracy": ["iou"],
    "scores": {"in": SCORE},
}
WHERE = {
    "commit": "c" * 40,
    "dirty": False,
    "changed": [],
    "dvc_lock": {},
    "packages": {"torch": "2.13.0"},
    "parent": None,
    "hardware": {"system": "Linux", "processors": 2, "memory_gb": 8.0, "python": "3.11.2", "training": None},
}


def other(**params):
    """The same of a run with other parameters."""
    return ABOUT | {"params": params}


def make_checkpoint(folder, size=25_600):
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(i * 7 % 251 for i in range(1024)) * (size // 1024))
    (folder / "sub/config.json").write_text("{}")
    (folder / "empty.txt").touch()
    return folder


def release(url, checkpoint, about=ABOUT, where=WHERE, name="toy", **pictures):
    return publish(open_store(url), name, checkpoint, about, where, lambda v: f"{name}@{v}", pictures)
