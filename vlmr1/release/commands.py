"""The release verbs of the `vlmr1` command: releases, pull, promote, register, reproduce."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmr1.release.store import Store  # imports happen inside the verbs: the command starts at once


STORE = "folder, file:///… or s3://bucket/prefix (default: params.yaml's publish.store)"
WANTED = "NAME@VERSION, NAME@v3, NAME@latest or NAME#prod"
FORMS = {"list": "[NAME]", "show": "RELEASE", "diff": "RELEASE RELEASE", "clean": "NAME"}


def add_verbs(verbs: Any) -> None:
    """Hang the verbs on the command's parser."""
    pull = verbs.add_parser("pull", help="land a published checkpoint, every byte verified")
    pull.add_argument("release", help=WANTED)
    pull.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    pull.add_argument("--store", help=STORE)
    pull.set_defaults(run=_pull)

    releases = verbs.add_parser("releases", help="what is published: list, show, diff, clean")
    releases.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="nothing or `list`, NAME or `list NAME`, `show RELEASE`, `diff RELEASE RELEASE`, or `clean NAME`, which"
        " removes what interrupted publications left",
    )
    releases.add_argument("--store", help=STORE)
    releases.add_argument("--json", action="store_true", help="as JSON, for programs")
    releases.set_defaults(run=_releases)

    promote = verbs.add_parser("promote", help="let a label stand for a release, for the one before, or for none")
    promote.add_argument("release", help=f"{WANTED}; with --back or --remove the NAME alone")
    promote.add_argument("label", help="e.g. prod")
    away = promote.add_mutually_exclusive_group()
    away.add_argument("--back", action="store_true", help="roll back to what the label stood for before")
    away.add_argument("--remove", action="store_true", help="let the label stand for nothing any more")
    promote.add_argument("--reason", help="kept in the log; needed for what was refused")
    promote.add_argument("--store", help=STORE)
    promote.set_defaults(run=_promote)

    register = verbs.add_parser("register", help="tag the commit of a release, so that DVC and GTO find it")
    register.add_argument("release", help=WANTED)
    register.add_argument("--store", help=STORE)
    register.set_defaults(run=_register)

    reproduce = verbs.add_parser("reproduce", help="run a release again from its commit, and compare stage by stage")
    reproduce.add_argument("release", help=WANTED)
    reproduce.add_argument("--keep", type=Path, metavar="DIR", help="leave the run there (default: removed)")
    reproduce.add_argument("--store", help=STORE)
    reproduce.set_defaults(run=_reproduce)


def store_of(chosen: argparse.Namespace) -> Store:
    """The store that is named, or the one of params.yaml here."""
    from vlmr1.release.store import open_store

    if chosen.store is not None:
        return open_store(chosen.store)
    from vlmr1.settings import PARAMS, read_yaml

    if not PARAMS.is_file():
        raise ValueError("no params.yaml here to name the store; give --store")
    try:
        return open_store(read_yaml(PARAMS)["publish"]["store"])  # whatever the rest of it says by now
    except (KeyError, TypeError):
        raise ValueError("params.yaml: publish.store is missing; give it, or --store") from None


def _pull(chosen: argparse.Namespace) -> None:
    from vlmr1.release.pull import pull

    manifest = pull(store_of(chosen), chosen.release, chosen.to, lambda line: print(line, flush=True))
    print(f"{manifest['name']}@{manifest['version']} is in {chosen.to}")


def _releases(chosen: argparse.Namespace) -> None:
    from vlmr1.release import compare
    from vlmr1.release.publish import clean
    from vlmr1.release.registry import known, names, releases, resolve, survey
    from vlmr1.release.showing import clean_text
    from vlmr1.settings.releases import NAME

    store = store_of(chosen)
    match chosen.words:
        case [] | ["list"]:
            shown = {name: survey(store, name) for name in names(store)}
            found: Any = {name: [compare.plain(release) for release in of] for name, of in shown.items()}
            lines = [compare.line(release) for of in shown.values() for release in of]
        case ["show", wanted]:
            found = known(store, *resolve(store, wanted))
            lines = compare.told(next(r for r in releases(store, found["name"]) if r.version == found["version"]))
        case ["diff", one, other]:
            found = compare.differences(*(known(store, *resolve(store, wanted)) for wanted in (one, other)))
            lines = compare.said(found)
        case ["clean", name]:
            found = clean(store, name)
            lines = [clean_text(f"{name}/{version}: {len(files)} files removed") for version, files in found.items()]
            lines = lines or ["nothing to remove"]
        case [verb, *more] if verb in FORMS and (verb, len(more)) != ("list", 1):
            raise ValueError(f"{verb}: write `vlmr1 releases {verb} {FORMS[verb]}`; a RELEASE is {WANTED}")
        case ["list", name] | [name]:
            of = survey(store, name) if re.fullmatch(NAME, name) else []
            if not of:
                raise ValueError(_nothing(store, name, names(store)))
            found, lines = [compare.plain(release) for release in of], [compare.line(release) for release in of]
        case _:
            raise ValueError("give nothing, NAME, " + ", ".join(f"`{verb} {words}`" for verb, words in FORMS.items()))
    print(json.dumps(found, indent=2, ensure_ascii=False) if chosen.json else "\n".join(lines or ["nothing yet"]))


def _promote(chosen: argparse.Namespace) -> None:
    from vlmr1.release.register import assign, unassign
    from vlmr1.release.registry import promote, remove_label, resolve, roll_back
    from vlmr1.settings.releases import NAME

    store, label = store_of(chosen), chosen.label
    if chosen.back or chosen.remove:
        if re.fullmatch(NAME, chosen.release) is None:
            raise ValueError(f"{chosen.release!r}: with --{'back' if chosen.back else 'remove'} give the NAME alone")
        name, act = chosen.release, roll_back if chosen.back else remove_label
        version = act(store, name, label, chosen.reason)
    else:
        name, version = resolve(store, chosen.release)
        promote(store, name, version, label, chosen.reason)
    print(f"{name}#{label} {'no longer stands for' if chosen.remove else 'is'} {name}@{version}")
    tags = unassign(name, label) if chosen.remove else assign(store, name, version, label)
    if tags:
        print(f"tagged {' '.join(tags)}; `git push origin {' '.join(tags)}` shares it")


def _nothing(store: Store, name: str, known: list[str]) -> str:
    """What to say where nothing is published under a name."""
    import difflib

    if "@" in name or "#" in name:
        return f"{name!r}: is a release; `vlmr1 releases show {name}` tells of it, a NAME alone lists its versions"
    near = difflib.get_close_matches(name, known, n=1)
    mend = f"did you mean {near[0]}?" if near else f"there is: {', '.join(known[:20]) or 'nothing yet'}"
    return f"nothing is published as {name!r} in {store.url}; {mend}"


def _register(chosen: argparse.Namespace) -> None:
    from vlmr1.release.register import register
    from vlmr1.release.registry import resolve

    store = store_of(chosen)
    tag = register(store, *resolve(store, chosen.release))
    print(f"tagged {tag}; `git push origin {tag}` shares it")


def _reproduce(chosen: argparse.Namespace) -> None:
    from vlmr1.release.registry import known, resolve
    from vlmr1.release.reproduce import reproduce
    from vlmr1.release.showing import clean_text

    store = store_of(chosen)
    manifest = known(store, *resolve(store, chosen.release))
    same = reproduce(manifest, chosen.keep, lambda line: print(clean_text(line), flush=True))
    if not same:
        raise SystemExit(1)
