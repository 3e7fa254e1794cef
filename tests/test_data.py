"""Conversion: what of refused rows, pictures and boxes, in the pipeline and by itself; the JSONL; paths from data."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import default_params
from vlmr1.files import inside, sha256
from vlmr1.sample import from_json, load_sources, read_jsonl, to_json, write_jsonl
from vlmr1.settings import load_params
from vlmr1.stages import convert, validate
from vlmr1.tasks import rec

SPEC = {"format": "rec_json", "images": "images", "frame": "pixels"}


def row(image, text="a cat", solution=(10, 20, 60, 70), size=(100, 80)):
    return {"image": image, "width": size[0], "height": size[1], "normal_caption": text, "solution": solution}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params over three lists of real form; returns a function that runs validate and convert."""
    from vlmr1.recipes import apply

    (tmp_path / "params.yaml").write_text(default_params())
    pictures = tmp_path / "raw/images"
    pictures.mkdir(parents=True)
    for i, name in enumerate(("t0", "t1", "e0", "w0")):
        Image.new("RGB", (100, 80), (40 * i, 100, 200)).save(pictures / f"{name}.png")
    (pictures / "broken.png").write_bytes((pictures / "t0.png").read_bytes()[:60])
    (pictures / "copy.png").write_bytes((pictures / "e0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    overlay = {
        "world": None,
        "validate": {"workers": 1},
        "data": {
            "root": "raw",
            "sources": {
                "w": {**SPEC, "role": "warmup", "annotations": "w.json"},
                "t": {**SPEC, "role": "train", "annotations": "t.json"},
                "e": {**SPEC, "role": "evaluate", "annotations": "e.json"},
            },
        },
        "gate": {"improve": ["e"], "keep": {}},
    }
    (tmp_path / "over.yaml").write_text(json.dumps(overlay))
    apply(tmp_path / "over.yaml", [])

    def write(train, evaluate=None):
        for name, rows in (("w", [row("w0.png")]), ("t", train), ("e", evaluate or [row("e0.png")])):
            (tmp_path / f"raw/{name}.json").write_text(json.dumps(rows))
        return load_params()

    return write


BROKEN = row("t0.png", solution=[-9, 0, 50, 50])


def test_with_skip_refused_rows_stay_out_and_are_counted(project):
    params = project([row("t1.png"), BROKEN, BROKEN, row("t0.png", text="a dog")])
    params = params.model_copy(update={"validate_": params.validate_.model_copy(update={"on_failure": "skip"})})
    validate.main(params)
    convert.main(params)
    (train,) = load_sources(convert.CONVERTED, "train")
    assert [s.id for s in train.samples] == [0, 3]
    index = json.loads((convert.CONVERTED / "train/sources.json").read_text())["t"]
    assert (index["refused"], index["samples"]) == (2, 2)


def test_a_source_of_which_nothing_is_left_is_an_error(project):
    params = project([BROKEN])
    params = params.model_copy(update={"validate_": params.validate_.model_copy(update={"on_failure": "skip"})})
    validate.main(params)
    with pytest.raises(ValueError, match=r"data\.sources\.t: every row was refused"):
        convert.main(params)
    assert not convert.CONVERTED.exists()


def test_large_pictures_are_shrunk_with_their_boxes(project):
    params = project([row("t0.png"), row("t1.png")])
    stored = {"max_pixels": 4000, "store_pictures": True}
    params = params.model_copy(update={"convert": params.convert.model_copy(update=stored)})
    validate.main(params)
    convert.main(params)
    (train,) = load_sources(convert.CONVERTED, "train")
    sample = train.samples[0]
    with Image.open(train.picture(sample)) as picture:
        assert picture.size == sample.sizes[0] and picture.width * picture.height <= 4000
    scale = sample.sizes[0][0] / 100
    assert rec.truth(sample) == pytest.approx([10 * scale, 20 * scale, 60 * scale, 70 * scale], abs=0.6)
    assert rec.score(rec.answer(rec.target(sample, sample.sizes[0]), sample, sample.sizes[0]), sample)["iou"] > 0.9


def test_small_pictures_are_referenced_where_they_are(project):
    params = project([row("t0.png")])
    validate.main(params)
    convert.main(params)
    (train,) = load_sources(convert.CONVERTED, "train")
    assert train.images.as_posix() == "raw/images" and not (convert.CONVERTED / "train/images").exists()
    hashes = json.loads((convert.CONVERTED / "train/pictures.json").read_text())
    assert hashes == {"t": {"t0.png": sha256(Path("raw/images/t0.png"))}}


def test_the_jsonl_is_the_original_projects_and_reads_back(project):
    params = project([row("t0.png", text=" the  CAT's “tail” ")])
    validate.main(params)
    convert.main(params)
    (line,) = read_jsonl(convert.CONVERTED / "train/t.jsonl")
    assert line["image"] == ["t0.png"] and isinstance(line["id"], int) and line["accu_reward_method"] == "iou"
    assert [turn["from"] for turn in line["conversations"]] == ["human", "gpt"]
    assert line["conversations"][0]["value"].startswith("<image>Please provide the bounding box")
    assert json.loads(line["conversations"][1]["value"]) == [10, 20, 60, 70]
    assert to_json(from_json(line)) == line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"t\.json:1: not JSON"),
        ("{}", "a list of rows"),
        ("[]", "no rows in it"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(project, text, said):
    params = project([row("t0.png")])
    Path("raw/t.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        validate.main(params)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".", "link/x"])
def test_paths_from_data_never_leave_their_folder(tmp_path, name):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leaves its folder"):
        inside(tmp_path / "root", name)


def test_a_malformed_row_is_refused_and_the_others_are_looked_at(project):
    params = project([{"image": "t0.png"}, row("t1.png"), row("t0.png", solution=[1, 2])])
    with pytest.raises(
        ValueError,
        match=r"2 rows refused; the first is t row 0: want: the row can be read; found: .*no normal_caption",
    ):
        validate.main(params)
    report = json.loads((convert.REFUSED.parent / "validation.json").read_text())
    (reads,) = (f for f in report["findings"] if f["rule"] == "reads")
    assert [one["row"] for one in reads["examples"]] == [0, 2] and report["rows"]["t"] == 3
    assert "t.json: row 0: no normal_caption; mend or remove" in reads["examples"][0]["value"]


def test_lines_are_json_lines_whatever_unicode_they_hold(tmp_path):
    rows = [{"text": "a\u2028b\u2029c\u0085d\x0be"}, {"text": "plain"}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert read_jsonl(tmp_path / "x.jsonl") == rows
