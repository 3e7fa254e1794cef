"""Conversion by itself: `vlmr1 convert` over lists of a format, and the JSONL of every task, read back."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vlmr1.cli import main
from vlmr1.conversion import to_sample
from vlmr1.convert import formats, spec_of
from vlmr1.rows import Row
from vlmr1.sample import read_jsonl, to_json, write_jsonl
from vlmr1.sources import read_source

SIZE = (100, 80)
ROWS = [
    Row(0, ("a.png",), (SIZE,), "rec", "iou", "the left cup", ((1.0, 2.5, 30.0, 40.0),), kind="place"),
    Row(1, ("a.png",), (SIZE,), "rec", "iou", "the cup that is not there"),
    Row(2, ("a.png",), (SIZE,), "ovd", "od_ap", "", ((1.0, 2.0, 9.0, 9.0),) * 2, ("cat", "dog"), ("dog", "cat", "cow")),
    Row(3, ("a.png",), (SIZE,), "ovd", "od_ap", asked=("a cup, red", "a cup, blue")),
    Row(4, ("a.png",), (SIZE,), "ovd", "odLength", asked=("cow",)),
    Row(5, (), (), "math", "numeric", "2 + 2?", answer="4", group="sums"),
    Row(6, ("a.png", "b.png"), (SIZE, SIZE), "math", "mcq", "<image> or <image>?\n(A) 1\n(B) 2", answer="B"),
    Row(7, ("a.png", "b.png"), (SIZE, SIZE), "gui", "all_match", "what is wrong?", answer="No Defect"),
]


def test_every_tasks_rows_survive_the_jsonl(tmp_path):
    samples = [to_sample(row, tuple((s, s) for s in row.sizes), "s", "train") for row in ROWS]
    write_jsonl(tmp_path / "all.jsonl", map(to_json, samples))
    lines = read_jsonl(tmp_path / "all.jsonl")
    for key in lines[0]:
        assert len({type(line[key]) for line in lines}) == 1, key  # what a typed table would want
    assert [line["conversations"][0]["value"].count("<image>") for line in lines] == [1, 1, 1, 1, 1, 0, 2, 2]
    spec, root = spec_of("jsonl", tmp_path / "all.jsonl", tmp_path, [])
    assert list(read_source(spec, root)) == ROWS


def test_boxes_go_with_their_picture():
    row = replace(ROWS[0], boxes=((-0.4, 10.0, 50.0, 80.4),))
    assert json.loads(to_sample(row, ((SIZE, (50, 40)),), "s", "t").solution) == [0, 5, 25, 40]


@pytest.fixture
def lists(tmp_path):
    """Two lists in the evaluation form, over one picture."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "pictures/a.png")
    for name, count in (("one", 2), ("two", 1)):
        one = {"image": "a.png", "width": 100, "height": 80, "solution": [1, 2, 50, 60]}
        rows = [one | {"normal_caption": f"{name} {i}"} for i in range(count)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def convert(folder, *more, source="rec_json", annotations="one.json:two.json", images="pictures", output="out.jsonl"):
    names, folders = (":".join(str(folder / name) for name in given.split(":")) for given in (annotations, images))
    given = ["--source", source, "--annotations", names, "--images", folders, "--output", str(folder / output)]
    main(["convert", *given, *more])
    return read_jsonl(folder / output)


def refusal(*given, **more):
    """What `convert` says as it ends."""
    with pytest.raises(SystemExit) as error:
        convert(*given, **more)
    return str(error.value)


def write(folder, name, *rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def line(answer, question="q", image="a.png", **more):
    return {"image": image, "conversations": [{"value": question}, {"value": answer}], **more}


def test_lists_become_one_jsonl_with_ids_of_their_own(lists, capsys):
    lines = convert(lists)
    assert [line["id"] for line in lines] == [0, 1, 2] and [line["source"] for line in lines] == ["one", "one", "two"]
    assert lines[0]["image"] == ["a.png"] and lines[0]["size"] == [[100, 80]]
    assert "3 samples in" in capsys.readouterr().out
    again = (lists / "out.jsonl").read_bytes()
    convert(lists)
    assert (lists / "out.jsonl").read_bytes() == again


def test_pictures_are_stored_and_shrunk_when_asked(lists):
    lines = convert(lists, "--store-pictures", str(lists / "small"), "--max-pixels", "2000")
    assert lines[0]["size"] == [[50, 40]] and json.loads(lines[0]["conversations"][1]["value"]) == [0.5, 1, 25, 30]
    with Image.open(lists / "small/a.png") as picture:
        assert picture.size == (50, 40)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "coca"}, "--source coca: no such format; one of refcoco, rec_jsonl"),
        ({"source": "refcoco"}, "split: missing; give it, -S KEY=VALUE"),
        ({"annotations": "one.json:three.json"}, r"three\.json: not found"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_is_left(lists, given, said):
    (lists / "out.jsonl").write_text("before\n")
    assert re.search(said, refusal(lists, **given))
    assert (lists / "out.jsonl").read_text() == "before\n"


NEEDED = {
    "refcoco": ["split=val"],
    "table": ["task=math", "reward=numeric", "columns={text: q, answer: a}", "frame=null"],
}


@pytest.mark.parametrize("name", formats())
def test_every_format_has_a_block_that_needs_no_more_than_it_must(name, tmp_path):
    spec, root = spec_of(name, tmp_path / "list", tmp_path, NEEDED.get(name, []))
    assert spec.format == name and root / spec.annotations == tmp_path / "list"
    assert root / spec.images == tmp_path and not Path(spec.annotations).is_absolute()
    if hasattr(spec, "reward") and name not in ("table", "jsonl"):
        assert spec.reward == ("odLength" if hasattr(spec, "seed") else "default")


@pytest.fixture
def apart(lists):
    """Two lists whose pictures lie in folders of their own, under the same name."""
    for folder, size in (("one", SIZE), ("deep/two", SIZE)):
        (lists / folder).mkdir(parents=True)
        Image.new("RGB", size, "red" if folder == "one" else "blue").save(lists / folder / "a.png")
    return lists


def test_names_of_lists_with_folders_of_their_own_are_relative_to_a_common_one(apart, capsys):
    lines = convert(apart, images="one:deep/two")
    assert [line["image"] for line in lines] == [["one/a.png"], ["one/a.png"], ["deep/two/a.png"]]
    assert f"picture names are relative to {apart}\n" in capsys.readouterr().out


def test_copies_of_lists_with_folders_of_their_own_stay_apart(apart, capsys):
    store = apart / "store"
    lines = convert(apart, "--store-pictures", str(store), images="one:deep/two")
    assert [line["image"] for line in lines] == [["one/a.png"], ["one/a.png"], ["two/a.png"]]
    assert f"picture names are relative to {store}\n" in capsys.readouterr().out
    for name, folder in (("one", "one"), ("two", "deep/two")):
        assert (store / name / "a.png").read_bytes() == (apart / folder / "a.png").read_bytes()
    (apart / "more").mkdir()
    (apart / "more/one.json").write_text((apart / "two.json").read_text())
    said = refusal(apart, "--store-pictures", str(store), annotations="one.json:more/one.json", images="one:deep/two")
    assert "two lists are named one; convert them one at a time" in said


@pytest.mark.parametrize("store", ["pictures", "pictures/small", "", "pictures/../pictures"])
def test_copies_never_go_where_anything_is_read(lists, store):
    before = (lists / "pictures/a.png").read_bytes()
    said = refusal(lists, "--store-pictures", str(lists / store), "--max-pixels", "2000")
    assert "copies could replace what is read from" in said
    assert (lists / "pictures/a.png").read_bytes() == before


def test_a_list_is_never_replaced_by_what_is_made_of_it(lists):
    write(lists, "raw.jsonl", line("4"))
    before = (lists / "raw.jsonl").read_text()
    said = refusal(lists, "-S", "task=math", source="jsonl", annotations="raw.jsonl", output="raw.jsonl")
    assert "it would replace what is read" in said and (lists / "raw.jsonl").read_text() == before
    assert "end its name in .jsonl" in refusal(lists, output="one.json")


@pytest.mark.parametrize("name", ["../one.json", "/etc/hostname", "out.png", "round.png"])
def test_a_name_that_leaves_its_folder_is_refused_by_its_row(lists, name):
    (lists / "pictures/out.png").symlink_to("/etc/hostname")
    (lists / "pictures/round.png").symlink_to("round.png")
    one = json.loads((lists / "two.json").read_text())[0]
    (lists / "two.json").write_text(json.dumps([one, one | {"image": name}]))
    assert re.search("row 1: picture .*(leaves its folder|leads to no file)", refusal(lists, annotations="two.json"))


def test_a_picture_that_cannot_be_shrunk_is_named_and_nothing_is_left(lists):
    Image.effect_noise((400, 300), 90).save(lists / "whole.jpg")
    (lists / "pictures/cut.jpg").write_bytes((lists / "whole.jpg").read_bytes()[:4000])
    store = ("--store-pictures", str(lists / "small"), "--max-pixels", "2000", "-S", "task=math")
    write(lists, "cut.jsonl", line("4", image="a.png"), line("4", image="cut.jpg"))
    said = refusal(lists, *store, source="jsonl", annotations="cut.jsonl")
    assert re.search(r"row 1: picture cut\.jpg does not open \(.*truncated", said)
    assert not list(lists.glob(".*")) and not (lists / "out.jsonl").exists()
    (lists / "pictures/odd.xyz").write_bytes((lists / "pictures/a.png").read_bytes())
    write(lists, "odd.jsonl", line("4", image="odd.xyz"))
    assert convert(lists, *store, source="jsonl", annotations="odd.jsonl")[0]["size"] == [[50, 40]]
    with Image.open(lists / "small/odd.xyz") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--max-pixels", "2000"], "--max-pixels: only stored pictures are shrunk"),
        (["--store-pictures", "s", "--max-pixels", "-1"], "--max-pixels -1: at least 1"),
        (["-S", "role=evaluate"], "-S role=evaluate: roles belong to params.yaml"),
        (["-S", "images=x"], "-S images=x: give it as --images"),
        (["-S", "format=coco"], "-S format=coco: give it as --source"),
    ],
)
def test_what_would_be_ignored_is_refused(lists, given, said):
    assert said in refusal(lists, *given)


def test_negatives_of_d3_belong_to_training(tmp_path):
    with pytest.raises(ValueError, match="negatives: belongs to asked: train"):
        spec_of("d3", tmp_path / "d3", tmp_path, ["negatives=[1, 2]"])
    with pytest.raises(ValueError, match="negatives: missing; give it"):
        spec_of("d3", tmp_path / "d3", tmp_path, ["asked=train"])
    assert spec_of("d3", tmp_path / "d3", tmp_path, ["asked=train", "negatives=[1, 2]"])[0].negatives == (1, 2)


def test_a_reward_is_the_tasks_first_and_never_another_tasks(lists, tmp_path):
    columns = ["columns={image: i, text: q, box: b}", "task=rec"]
    assert spec_of("table", tmp_path / "t.csv", tmp_path, columns)[0].reward == "iou"
    assert spec_of("jsonl", tmp_path / "t.jsonl", tmp_path, [])[0].reward is None
    with pytest.raises(ValueError, match=r"reward: 'oDLength' is none of task ovd; did you mean odLength\?"):
        spec_of("coco", tmp_path / "t.json", tmp_path, ["reward=oDLength"])
    with pytest.raises(ValueError, match="reward: 'iou' is none of task math"):
        spec_of("mathvista", tmp_path / "t.json", tmp_path, ["reward=iou"])
    assert spec_of("mathvista", tmp_path / "t.json", tmp_path, ["reward=auto"])[0].reward == "auto"
    write(lists, "r.jsonl", line("4", task="math", accu_reward_method="nonsense"))
    assert "row 0: reward 'nonsense' is none of task math's" in refusal(lists, source="jsonl", annotations="r.jsonl")


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([float("nan"), 2, 50, 60], "row 1: a box of .* is not of finite numbers"),
        ([1, 2, float("inf"), 60], "row 1: a box of .* is not of finite numbers"),
        ([50, 2, 1, 60], "row 1: box 0, .* is empty or inverted"),
        ([200, 2, 300, 60], "row 1: box 0, .* is empty or inverted"),
    ],
)
def test_a_box_that_is_none_is_refused_by_its_row(lists, box, said):
    one = json.loads((lists / "two.json").read_text())[0]
    (lists / "two.json").write_text(json.dumps([one, one | {"solution": box}]))
    assert re.search(said, refusal(lists, annotations="two.json"))


def test_a_size_that_is_not_the_pictures_is_refused(lists):
    one = json.loads((lists / "two.json").read_text())[0]
    (lists / "two.json").write_text(json.dumps([one | {"width": 90}]))
    said = refusal(lists, "--store-pictures", str(lists / "small"), annotations="two.json")
    assert "row 0: picture a.png is said to be 90 x 80, it is 100 x 80" in said
    (lists / "two.json").write_text(json.dumps([one, one | {"width": 90}]))
    said = refusal(lists, annotations="two.json")
    assert "row 1: picture a.png is said to be 90 x 80, an earlier row says 100 x 80" in said


def test_pictures_that_are_not_there_are_counted(lists, capsys):
    one = json.loads((lists / "two.json").read_text())[0]
    (lists / "two.json").write_text(json.dumps([one, one | {"image": "b.png"}, one | {"image": "c" * 300}]))
    assert len(convert(lists, annotations="two.json")) == 3
    assert "2 of the 3 pictures of two are not in" in capsys.readouterr().out
    assert "nowhere: no such folder" in refusal(lists, images="nowhere")


def test_a_size_that_no_box_needs_is_empty_where_the_picture_is_not_there(lists):
    given = {"source": "jsonl", "annotations": "m.jsonl"}
    write(lists, "m.jsonl", line("4", image="none.png"), line("4"), line("4", image=["a.png", "none.png"]))
    assert [row["size"] for row in convert(lists, "-S", "task=math", **given)] == [[], [[100, 80]], []]
    write(lists, "m.jsonl", line("[1, 2, 3, 4]", image="none.png"))
    assert "row 0: picture none.png does not open (not there)" in refusal(lists, "-S", "task=rec", **given)


def test_a_bound_on_prompts_needs_the_sizes_of_their_pictures():
    from vlmr1.prompts import Prompts
    from vlmr1.sample import Sample, Source

    sample = Sample(7, ("none.png",), "q", "4", "math", "numeric", "m", "train", ())
    source = Source("m", "train", Path("pictures"), (sample,))
    assert len(Prompts([source], None)) == 1
    with pytest.raises(ValueError, match=r"m id 7: 1 pictures and 0 sizes, .* set max_prompt_length to null"):
        Prompts([source], None, longest=100)
