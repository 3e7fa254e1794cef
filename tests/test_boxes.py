import pytest

from vlmr1.boxes import area, from_xywh, iou, rescale


def test_iou_of_half_overlap():
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("other", [(10, 0, 20, 10), (30, 30, 40, 40), (3, 3, 3, 3), (8, 8, 2, 2)])
def test_iou_is_zero_without_a_common_area(other):
    assert iou((0, 0, 10, 10), other) == 0.0


def test_iou_counts_a_one_pixel_overlap():
    assert iou((0, 0, 10, 10), (9, 0, 19, 10)) == pytest.approx(10 / 190)


def test_two_empty_boxes_have_no_iou():
    assert iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0.0


def test_rescale_there_and_back():
    box = (3.0, 5.0, 40.0, 60.0)
    assert rescale(rescale(box, (641, 427), (112, 84)), (112, 84), (641, 427)) == pytest.approx(box)


def test_xywh_and_area():
    assert from_xywh([103.93, 299.99, 134.22, 177.42]) == pytest.approx((103.93, 299.99, 238.15, 477.41))
    assert area((1, 2, 4, 6)) == 12
