"""Releases in words: a line in a list, all about one, and what differs between two."""

from __future__ import annotations

from typing import Any

from vlmr1.measures import TITLES
from vlmr1.release.log import Entry
from vlmr1.release.registry import Release, Unreadable
from vlmr1.release.showing import clean_text


def plain(release: Release | Unreadable) -> dict[str, Any]:
    """A release as plain data for programs, its files and params left to its manifest."""
    if isinstance(release, Unreadable):
        return {"name": release.name, "version": release.version, "number": release.number, "unreadable": release.why}
    return {
        "name": release.name,
        "version": release.version,
        "number": release.number,
        "labels": release.labels,
        "refused": release.refused,
        "scores": {source: _score(f) for source, f in release.manifest["about"]["scores"].items()},
        "log": [note.model_dump() for note in release.notes],
    }


def line(release: Release | Unreadable) -> str:
    """A release in a line: number, version, labels, size, commit, its first score, and why it was refused."""
    if isinstance(release, Unreadable):
        return clean_text(f"{release.name}@v{release.number}  {release.version}  unreadable: {release.why}")
    where, about = release.manifest["where"], release.manifest["about"]
    size = sum(facts["size"] for facts in release.manifest["files"].values())
    commit = (where["commit"] or "no commit")[:9] + ("+" if where["dirty"] else "")
    labels = " ".join(f"#{label}" for label in release.labels)
    scores = [f"{source} {_words(f)}" for source, f in list(about["scores"].items())[:1]]
    published = release.notes[0].at[:16].replace("T", " ")
    cells = [f"{release.name}@v{release.number}", release.version, published, f"{size / 1e6:,.1f} MB", commit, labels]
    refused = [] if release.refused is None else [f"REFUSED: {release.refused}"]
    return clean_text("  ".join(cell for cell in [*cells, *scores, *refused] if cell))


def told(release: Release) -> list[str]:
    """All that people ask about a release."""
    about, where = release.manifest["about"], release.manifest["where"]
    base = about["base"]
    hardware = where["hardware"]
    lines = [
        line(release),
        f"kind      {about['kind']}",
        f"base      {base['kind']}" + (f" {base['model']} at {base['revision']}" if base["model"] else ""),
        f"commit    {where['commit']}" + (f", changed: {', '.join(where['changed'])}" if where["dirty"] else ""),
        f"parent    {where['parent'] or 'none'}",
        f"rewards   {', '.join(f'{name} x {weight:g}' for name, weight in about['rewards'].items())}",
        f"accuracy  {', '.join(about['accuracy'])}",
        f"hardware  {', '.join(f'{key} {value}' for key, value in hardware.items() if not isinstance(value, dict))}",
        f"packages  {', '.join(f'{name} {version}' for name, version in where['packages'].items())}",
        *(f"score     {source}: {_words(f)}" for source, f in about["scores"].items()),
        *(
            f"file      {name}  {facts['size']:,} bytes  {facts['sha256']}"
            for name, facts in release.manifest["files"].items()
        ),
        *(f"log       {_event(note)}" for note in release.notes),
    ]
    return [clean_text(one) for one in lines]


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What differs between two manifests: `params`, `data`, `scores`, `code` and `files`, each {name: [one, other]}.

    A score's change is called clear only where the two 95 % intervals stand apart; None stands for what is absent.
    """
    ours, theirs = one["about"], other["about"]
    scores = {
        source: {"was": _score(ours["scores"].get(source)), "is": _score(theirs["scores"].get(source))}
        for source in dict.fromkeys([*ours["scores"], *theirs["scores"]])
    }
    for pair in scores.values():
        was, now = pair["was"], pair["is"]
        if was and now and was["measure"] == now["measure"]:
            pair["change"] = now["value"] - was["value"]
            pair["clear"] = now["low"] > was["high"] or now["high"] < was["low"]
    return {
        "params": _changed(ours["params"], theirs["params"]),
        "data": _changed(ours["data"], theirs["data"]),
        "base": _changed(ours["base"], theirs["base"]),
        "rewards": _changed(ours["rewards"], theirs["rewards"]),
        "scores": {source: pair for source, pair in scores.items() if pair["was"] != pair["is"]},
        "code": _changed(_code(one), _code(other)),
        "files": _changed(_hashes(one), _hashes(other)),
    }


def said(found: dict[str, Any]) -> list[str]:
    """`differences` in lines."""
    lines = []
    for part, changed in found.items():
        for name, pair in changed.items():
            if part == "scores":
                was, now = (_interval(pair[key]) for key in ("was", "is"))
                verdict = "" if "clear" not in pair else ", clear" if pair["clear"] else ", within the intervals"
                change = f" ({pair['change']:+.3f}{verdict})" if "change" in pair else ""
                lines.append(f"score   {name}: {was} -> {now}{change}")
            elif part == "files":
                verb = "added" if pair[0] is None else "gone" if pair[1] is None else "differs"
                lines.append(f"file    {name} {verb}")
            else:
                was, now = (str(value)[:60] for value in pair)
                lines.append(f"{part:7} {name}: {was} -> {now}")
    return [clean_text(one) for one in lines] or ["no difference"]


def _event(note: Entry) -> str:
    said = f"{note.at[:19]} {note.event}" + (f" #{note.label}" if note.label else "")
    return f"{said}: {note.reason}" if note.reason else said


def _changed(one: Any, other: Any, key: str = "") -> dict[str, list[Any]]:
    """{dotted key: [one, other]} of what differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: dict[str, list[Any]] = {}
        for name in dict.fromkeys([*one, *other]):
            found |= _changed(one.get(name), other.get(name), f"{key}.{name}".strip("."))
        return found
    return {} if one == other else {key: [one, other]}


def _code(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"commit": manifest["where"]["commit"], **manifest["where"]["packages"]}


def _hashes(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}


def _score(f: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a source is judged by, with its 95 % interval."""
    if f is None:
        return None
    key = f["judged"]
    return {"measure": key, "value": f[key], "low": f[f"{key}_low"], "high": f[f"{key}_high"], "n": f["n"]}


def _interval(score: dict[str, Any] | None) -> str:
    if score is None:
        return "none"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}] n {score['n']}"


def _words(f: dict[str, Any]) -> str:
    return f"{TITLES.get(f['judged'], f['judged'])} {_interval(_score(f))}"
