"""Boxes: the one IoU of the project and the change of coordinate frame.

A box is `(x0, y0, x1, y1)` in continuous pixels, x to the right, y downwards, max corner exclusive.
Left out on purpose: matching several boxes, which is the detection reward's (`vlmr1.rewards.detection`).
"""

from __future__ import annotations

Box = tuple[float, float, float, float]
Size = tuple[int, int]  # (width, height)


def area(box: Box) -> float:
    """Area in square pixels; 0 for an empty or inverted box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes in the same frame, in [0, 1]; 0 when both are empty."""
    inside = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - inside
    if not inside or not union:
        return 0.0
    return min(1.0, inside / union)


def rescale(box: Box, old: Size, new: Size) -> Box:
    """Carry a box from a picture of size `old` to the same picture at size `new`, both (width, height)."""
    sx, sy = new[0] / old[0], new[1] / old[1]
    return (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy)


def from_xywh(xywh: list[float]) -> Box:
    """COCO's (x, y, width, height) as (x0, y0, x1, y1)."""
    x, y, w, h = xywh
    return (x, y, x + w, y + h)
