"""`vlmr1 evaluate`: a checkpoint of one's own on lists of one's own, without the pipeline."""

import json

import pytest

from vlmr1.cli import main
from vlmr1.evaluation.alone import defaults, load
from vlmr1.sample import read_jsonl, to_json, write_jsonl
from vlmr1.settings.results import PROTOCOLS

SETS = [word for pair in ("compute.dtype=float32", "max_pixels=12544", "max_new_tokens=24") for word in ("-S", pair)]


@pytest.fixture
def lists(tmp_path, trained):
    """Twelve expressions and, beside them, three questions in the original project's form, which names no sizes."""
    _, source = trained
    write_jsonl(tmp_path / "rec.jsonl", [to_json(one) | {"id": 500 + one.id} for one in source.samples[:12]])
    turns = [{"from": "human", "value": "<image>How many?"}, {"from": "gpt", "value": "<answer> 7 </answer>"}]
    row = {"image": source.samples[0].images[0], "conversations": turns, "accu_reward_method": "default"}
    write_jsonl(tmp_path / "math.jsonl", [row] * 3)
    return f"{tmp_path}/rec.jsonl:{tmp_path}/math.jsonl", f"{source.images}:{source.images}"


def evaluate(trained, lists, output, *more):
    data, images = lists
    where = ["--data", data, "--images", images, "--output", str(output)]
    main(["evaluate", str(trained[0]), *where, *SETS, *more])


def test_a_checkpoint_is_asked_and_judged_without_the_pipeline(trained, lists, tmp_path, capsys):
    out = tmp_path / "out"
    evaluate(trained, lists, out, "-S", "temperature=1.0", "-S", "samples=2")
    names = {"rec-greedy.jsonl", "rec-sampled.jsonl", "math-greedy.jsonl", "math-sampled.jsonl"}
    assert {path.name for path in out.iterdir()} == {*names, "figures.json", "settings.json"}
    figures = json.loads((out / "figures.json").read_text())
    rows = read_jsonl(out / "rec-greedy.jsonl")
    assert [row["index"] for row in rows] == list(range(12))  # their places, whatever ids the list gives
    assert figures["rec"]["greedy"]["acc_0.5"] == pytest.approx(sum(row["hit"] for row in rows) / 12, abs=1e-6)
    assert (figures["math"]["sampled"]["n"], figures["math"]["sampled"]["samples"]) == (3, 2)
    assert read_jsonl(out / "math-greedy.jsonl")[0]["truth"] == "7"
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["dtype"], settings["checkpoint"], settings["seed"]) == ("float32", str(trained[0]), 42)
    said = capsys.readouterr().out
    assert f"rec greedy    Acc@0.5 {figures['rec']['greedy']['acc_0.5']:.3f} [" in said and ", n 12" in said
    main(["reward", "iou", "--input", str(out / "rec-greedy.jsonl"), "--output", str(tmp_path / "scored.jsonl")])
    assert [row["value"] for row in read_jsonl(tmp_path / "scored.jsonl")] == pytest.approx(
        [row["iou"] for row in rows]
    )
    with pytest.raises(SystemExit, match=r"--output .*out: holds a finished evaluation, figures\.json; name another"):
        evaluate(trained, lists, out)


def test_settings_are_laid_over_and_a_protocol_says_its_keys():
    assert defaults().evaluate.asking.limit is None and defaults(["limit=9"]).evaluate.limit == 9
    assert defaults(["protocol=paper"]).evaluate.asking == PROTOCOLS["paper"]
    assert defaults(["compute.dtype=float32"]).compute.dtype == "float32"
    for sets, said in (
        (["protocol=paper", "limit=9"], "limit: protocol paper says these"),
        (["limt=9"], r"evaluate\.limt: unknown key; did you mean limit\?"),
        (["temperature=1.0"], "temperature, samples: the sampled column needs both"),
        (["max_pixels=null"], "max_pixels: is needed where no conversion says it"),
        (["limit"], "write KEY=VALUE"),
    ):
        with pytest.raises(ValueError, match=said):
            defaults(sets)


def test_mistakes_are_answered_before_a_model_is_loaded(trained, lists, tmp_path):
    data, images = lists
    rec = data.split(":")[0]
    for arguments, said in (
        ((f"{rec}:{rec}", images), "two lists are named rec; rename one"),
        ((f"{tmp_path}/no.jsonl", str(tmp_path)), r"no\.jsonl: no such list"),
        ((data, str(tmp_path)), "2, 1 and 2 entries; give as many of each"),
    ):
        with pytest.raises(SystemExit, match=said):
            evaluate(trained, arguments, tmp_path / "out")
    with pytest.raises(SystemExit, match=r"no checkpoint folder, for it has no config\.json"):
        evaluate((tmp_path, None), lists, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [one.name for one in load([(tmp_path / "rec.jsonl", trained[1].images, None)])] == ["rec"]
