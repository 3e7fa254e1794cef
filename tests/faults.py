"""What the tests of readers want of a malformed item."""

import re

from vlmr1.rows import unread
from vlmr1.tasks import TASKS


def expect_fault(rows, said):
    """One row alone has a fault, which says so, and nothing else; the other rows are returned."""
    (bad,) = [row for row in rows if row.fault]
    assert re.search(said, bad.fault), bad.fault
    assert bad == unread(bad.row, bad.task, bad.reward, ValueError(bad.fault))
    assert bad.reward in TASKS[bad.task].METHODS
    assert [row.row for row in rows] == sorted({row.row for row in rows})
    return [row for row in rows if not row.fault]
