import random
import time

import pytest

from vlmr1.answers import Found, read

GOOD = '<think>the red square</think><answer>{"bbox_2d":[7,14,42,49]}</answer>'


def test_a_good_completion_has_no_problems():
    said = read(GOOD)
    assert said.problems == ()
    assert said.thinking == "the red square"
    assert said.box == (7, 14, 42, 49)


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ("", "no closed answer block"),
        ("[1,2,3,4]", "no closed answer block"),
        ("<answer>[1,2,30,40]</answer>", "tags are not"),
        (GOOD + GOOD, "tags are not"),
        ("I see. " + GOOD, "text outside"),
        (GOOD.replace("</think>", "</think> so "), "text between"),
        ("<think>a</think><answer>[9,2,3,40]</answer>", "empty or inverted"),
        ("<think>a</think><answer>[-9,2,3,40]</answer>", "negative coordinate"),
        ("<think>a</think><answer>[9,2,1e13,40]</answer>", "beyond any picture"),
        ("<THINK>a</THINK><ANSWER>[1,2,3,4]</ANSWER>", "tags in capitals"),
        ("<think>a<answer>[1,2,3,4]", "never closed"),
        ("<think>" + "a" * 70_000, "longer than 65536"),
    ],
)
def test_what_was_wrong_is_said(completion, problem):
    assert any(problem in said for said in read(completion).problems)


def test_the_first_box_of_the_last_answer_counts():
    said = read("<think>a</think><answer>[1,2,3,4]</answer><answer>[5,6,7.5,8] and [1,1,9,9]</answer>")
    assert said.box == (5, 6, 7.5, 8)


def test_negative_and_float_coordinates_are_read():
    assert read("<think></think><answer>[-1.5, 2, 3, 4.25]</answer>").box == (-1.5, 2, 3, 4.25)


def test_hostile_completions_are_read_quickly_and_never_raise():
    rng = random.Random(0)
    pieces = [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "[",
        "]",
        "{",
        "1",
        "9" * 400,
        "-",
        ".",
        ",",
        " ",
        "NaN",
        "\x00",
        "𝟙",
        "e999",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(80))) for _ in range(3000)]
    texts += [
        "[" * 500_000,
        "[1," * 200_000,
        "<answer>" * 100_000,
        "[" + "1" * 1_000_000,
        "<answer>[" + " " * 1_000_000 + "</answer>",
    ]
    for text in texts:
        start = time.perf_counter()
        said = read(text)
        assert time.perf_counter() - start < 1.0
        assert said.box is None or (said.box[0] < said.box[2] and said.box[1] < said.box[3])


def boxes(text):
    return [(tuple(map(int, one.box)), one.label) for one in read(f"<think>a</think><answer>{text}</answer>").found]


CAT, DOG = ((1, 2, 3, 4), "cat"), ((5, 6, 7, 8), "dog")


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6, 7, 8], "label": "dog"}]\n```',
        '[{"bbox": [1, 2, 3, 4], "label": "cat"}, {"label": "dog", "box": [5.0, 6, 7, 8]}]',
        "[{'box_2d': [1,2,3,4], 'label': 'cat'}, {'bounding_box': [5,6,7,8], 'name': 'dog'}]",
        '{"bbox_2d":[1,2,3,4],"label":"cat"}\n{"bbox_2d":[5,6,7,8],"label":"dog"}',
        '[{"bbox_2d":[1,2,3,4],"label":"cat",},{"bbox_2d":[5,6,7,8],"label":"dog"},{"bbox_2d":[9,9',
        "[{bbox_2d:[1,2,3,4], label: cat}, {bbox_2d:[5,6,7,8], label: dog}]",
        '```\n[]\n``` no: ```json\n[{"bbox_2d":[1,2,3,4],"label":"cat"},{"bbox_2d":[5,6,7,8],"label":"d\\u006fg"}]```',
        '```json\n[{"bbox_2d":[1e0,2,3,4],"label":"cat"},{"bbox_2d":[5,6,7,8],"label":"dog"}',
    ],
)
def test_boxes_and_labels_are_read_whole_or_broken_fenced_or_bare(text):
    assert boxes(text) == [CAT, DOG]


def test_a_box_without_a_label_borrows_none():
    assert boxes('[{"bbox_2d":[1,2,3,4]},{"bbox_2d":[5,6,7,8],"label":"dog"}]') == [((1, 2, 3, 4), ""), DOG]


def test_the_last_fence_counts_and_what_is_cut_off_only_alone():
    assert boxes("```json [1,2,3,4] ``` then ```json [5,6,7,8] ```") == [((5, 6, 7, 8), "")]
    assert boxes("```json [1,2,3,4] ``` then ```json [5,6,7,8]") == [((1, 2, 3, 4), "")]


@pytest.mark.parametrize("text", ["None", "none.", " null ", "[]", "```json\n[]\n```", "```json\nNone\n```", '"None"'])
def test_nothing_is_an_answer(text):
    said = read(f"<think>a</think><answer>{text}</answer>")
    assert said.none and said.box is None and said.problems == ()


def test_half_a_surrogate_is_no_text():
    ((_, label),) = boxes('{"bbox_2d":[1,2,3,4],"label":"\\ud800"}')
    label.encode()
    assert boxes('{"bbox_2d":[1,2,3,4],"label":"\\ud83d\\ude00"}')[0][1] == "😀"


def test_refused_boxes_are_counted_and_named():
    said = read("<think>a</think><answer>[9,2,3,40] [1,2,30,40] [5,5,5,5]</answer>")
    assert [place for place, _ in said.refused] == [0, 1] and said.box == (1, 2, 30, 40) and said.count == 3
    assert sum("empty or inverted" in problem for problem in said.problems) == 2


def test_a_box_outside_its_picture_is_named_and_kept():
    said = read("<think>a</think><answer>[10,10,300,40]</answer>").carried((200, 100), (100, 50))
    assert said.box == (5, 5, 150, 20) and any("reaches outside the picture, 100 x 50" in p for p in said.problems)


def test_what_stands_in_for_a_missing_answer_block():
    assert read("42").said == "42"
    assert read("<think>41</think> 42").said == " 42"
    assert read("<think>41</think><answer>42").said == "42"
    assert read("<think>[1,2,3,4]</think>[1,2,3,4]").boxes == ()  # boxes want their block, as in the original
    assert read("<think>a<answer>b</think></answer>").text == "b</think>"  # tags of the other name are text
    assert read("<answer>use the <think> tag</answer>").text == "use the <think> tag"


def test_a_short_answer_takes_microseconds():
    start = time.process_time()
    for _ in range(2000):
        read(GOOD)
    assert (time.process_time() - start) / 2000 < 100e-6


ONE = (1.0, 2.0, 30.0, 40.0)


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d":[1,2,30,40],"name":"x","label":"cat"}',
        '{"label":"cat","attributes":{"c":1},"bbox_2d":[1,2,30,40]}',
        '{"bbox_2d":[1,2,30,40],"reason":"its label: dog?","label":"cat"}',
        '{"center":[1,2,3,4],"bbox_2d":[1,2,30,40],"label":"cat"}',
        '{"bbox_2d":[1,2,30,40],"note":"compare [5,6,7,8]","label":"cat"}',
        '{"bbox_2d":[1,2,30,40],"note":"}{","label":"cat"}',
        '{"objects":[{"box":["1","2","30","40"],"category":"cat"}]}',
        '{"label":"cat","bbox_2d":[[1,2,30,40]]}',
        '{"label":"cat","bbox_2d":"[1, 2, 30, 40]"}',
        '{"label":"cat","bbox_2d":[[1,2],[30,40]]}',
        '{"label":"cat","x1":1,"y1":2,"x2":30,"y2":40}',
        '{"object":"cat","bbox_2d":[+1,2,30,40]}',
        "{'label': 'cat', 'attributes': {'c': 1}, 'bbox_2d': [1, 2, 30, 40]}",
        '[{"bbox_2d":[1,2,30,40],"note":"compare [5,6,7,8]","label":"cat"},,',
        '{"bbox_2d": [1,2,30,40], "name": "x", "label": "cat"',
        "label: cat, <|box_start|>(1,2),(30,40)<|box_end|>",
        "label: cat, box: [1 2 30 40]",
    ],
)
def test_objects_whole_and_broken(text):
    said = read(f"<answer>{text}</answer>")
    assert said.found == (Found(ONE, "cat"),) and said.count == 1


@pytest.mark.parametrize(
    "junk",
    ["[1,2,NaN,4]", "[1,2,3,4,5]", '"here"', "[1,2,3]", "null"],
)
def test_items_that_are_no_boxes_count_and_are_named(junk):
    good = '{"bbox_2d":[1,2,30,40],"label":"cat"}'
    for text in (f'[{good},{{"bbox_2d":{junk},"label":"cat"}}]', f'[{good},{{"bbox_2d":{junk},"label":"cat"}},,'):
        said = read(f"<answer>{text}</answer>")
        assert said.found == (Found(ONE, "cat"),) and said.count == 2 and len(said.problems) == 2, text


def test_a_label_that_is_null_is_none():
    assert read('<answer>{"bbox_2d":[1,2,30,40],"label":null}</answer>').found == (Found(ONE, ""),)
    long = "x" * 500
    assert read(f'<answer>{{"bbox_2d":[1,2,30,40],"label":"{long}"}}</answer>').found[0].label == long


def test_which_fence_counts():
    box, other = '```json\n[{"bbox_2d":[1,2,30,40],"label":"cat"}]\n```', "```text\nok\n```"
    for text in (box, f"{box} {other}", f"{other} {box}", f"```\n[5,6,7,8]\n``` {box}", f"{box} ```"):
        assert read(f"<answer>{text}</answer>").found == (Found(ONE, "cat"),), text
    assert read(f"<answer>{other} ```\n[1,2,30,40]\n```</answer>").box == ONE


@pytest.mark.parametrize(
    "piece",
    [
        *("[", "{", "}", "{}", '"', "'", '"a"', "```", "<answer>", "[ ", "[1 ", "[1,", "(1,2),", "1 2 3 4"),
        *('{"a":', "label:", 'label:"', '"bbox_2d":', "box:(", '{"label":"a",', "bbox_2d:[1,2,3,", "[1,2,3,4]"),
        *('{"bbox_2d":[1,2,30,40]},', "[1" + " " * 50, "label" + " " * 50),
    ],
)
def test_reading_is_linear(piece):
    text = f"<answer>{piece * (65_000 // len(piece))}</answer>"
    start = time.process_time()
    read(text)
    assert time.process_time() - start < 2  # seconds on a busy machine; tens of milliseconds on one that is not
