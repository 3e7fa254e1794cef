"""The reader of Pascal VOC, on small files of that form, hostile ones among them."""

import pytest

from tests.faults import expect_fault
from tests.test_sources_ovd import put, read

VOC = {"format": "voc", "annotations": "xml", "negatives": "all", "corners": "pascal", "seed": 0}


def xml(name, *things, size="<size><width>500</width><height>375</height><depth>3</depth></size>", head=""):
    boxes = "".join(
        f"<object><name>{label}</name><difficult>1</difficult><bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><ymax>{y1}</ymax></bndbox><part><name>head</name></part></object>"
        for label, x0, y0, x1, y1 in things
    )
    return f"{head}<annotation><filename>{name}</filename>{size}{boxes}</annotation>"


def test_voc_pixels_are_counted_from_one(tmp_path):
    put(tmp_path / "xml/a.xml", xml("a.jpg", ("dog", 1, 1, 500, 375), ("cat", 8.5, 9, 20, 30)))
    put(tmp_path / "xml/b.xml", xml("b.jpg", size="", head='<?xml version="1.0" encoding="ISO-8859-1"?>'))
    first, second = read(tmp_path, **VOC)
    assert first.boxes == ((0, 0, 500, 375), (7.5, 8, 20, 30)) and first.labels == ("dog", "cat")
    assert first.images == ("a.jpg",) and first.sizes == ((500, 375),)
    assert second.sizes == second.boxes == () and sorted(second.asked) == ["cat", "dog"]
    assert read(tmp_path, **VOC | {"corners": "plain"})[0].boxes[0] == (1, 1, 500, 375)
    assert [row.images for row in read(tmp_path, **VOC | {"negatives": 0})] == [("a.jpg",)]


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "&a;" * 10}">' for i in range(9)
) + "]>"  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_xml_bomb_does_not_go_off(tmp_path, encoding):
    put(tmp_path / "xml/a.xml", "")
    (tmp_path / "xml/a.xml").write_bytes(xml("&a8;", head=LAUGHS).encode(encoding))
    rows = read(tmp_path, **VOC)
    expect_fault(rows, r"a\.xml: it declares a document type, which is not read; mend or remove it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation>", "not XML"),
        ("", "not XML"),
        ("<annotation/>", "no filename"),
        (xml("a.jpg", ("dog", 1, 1, "wide", 5)), "bndbox/xmax is 'wide' where a number is needed"),
        (xml("a.jpg", ("dog", 1, 1, "", 5)), "no bndbox/xmax"),
        (xml("a.jpg", (" ", 1, 1, 5, 5)), "no name"),
        (xml("a.jpg", size="<size><width>5</width></size>"), "no size/height"),
    ],
)
def test_malformed_voc_is_named(tmp_path, text, said):
    put(tmp_path / "xml/a.xml", text)
    put(tmp_path / "xml/b.xml", xml("b.jpg", ("cat", 8.5, 9, 20, 30)))
    rows = read(tmp_path, **VOC)
    (good,) = expect_fault(rows, rf"a\.xml: {said}.*; mend or remove it")
    assert (good.row, good.asked) == (1, ("cat",))


def test_a_folder_without_xml_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="xml: not found"):
        read(tmp_path, **VOC)
    (tmp_path / "xml").mkdir()
    with pytest.raises(ValueError, match="xml: no XML files in it"):
        read(tmp_path, **VOC)
