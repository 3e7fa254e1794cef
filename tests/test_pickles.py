"""Pickles are read as data: whatever would do more is refused, before it is done."""

import os
import pickle
import struct
import subprocess
import sys

import pytest

from vlmr1.sources.pickles import load_pickle


class Hostile:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_runs_nothing(tmp_path, protocol, arrays):
    for number, call in enumerate((Hostile(os.mkdir, str(tmp_path / "made")), Hostile(eval, "1"), Hostile)):
        (tmp_path / f"{number}.p").write_bytes(pickle.dumps([call], protocol=protocol))
        with pytest.raises(ValueError, match=rf"{number}\.p: not a pickle of plain data"):
            load_pickle(tmp_path / f"{number}.p", arrays)
    assert not (tmp_path / "made").exists()


CRAFTED = {
    "note": b"\x80\x02]r" + struct.pack("<I", 2**31) + b".",
    "text note": b"]p4000000000\n.",
    "instance": b"(S'id'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'id'\no.",
    "extension": b"\x82\x01.",
    "persistent": b"Pid\n.",
    "new object": b"\x80\x02cbuiltins\nobject\n)\x81.",
    "out of band": b"\x80\x05\x97.",
    "nothing": b"",
    "cut": pickle.dumps([{"a": "text"}])[:-9],
    "not one": b"\xff\xfe[]",
    "long string": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "no stack": b"a.",
    "unhashable": pickle.dumps({}, protocol=4)[:-1] + b"]Ns.",
    "bad text": b"X\x01\x00\x00\x00\xff.",
}


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickles_are_refused_in_a_sentence(tmp_path, name, arrays):
    (tmp_path / "x.p").write_bytes(CRAFTED[name])
    with pytest.raises(ValueError, match=r"x\.p: not a pickle of plain data .*; get the published file"):
        load_pickle(tmp_path / "x.p", arrays)


def test_a_small_pickle_cannot_ask_for_a_large_memory(tmp_path):
    """Even at the highest note that is let through, the machine's room for notes is bounded."""
    (tmp_path / "x.p").write_bytes(b"\x80\x02]r" + struct.pack("<I", 2**24 - 1) + b".")
    code = f"""
from pathlib import Path
from vlmr1.sources.pickles import load_pickle
assert load_pickle(Path({str(tmp_path / "x.p")!r}), False) == []
status = Path("/proc/self/status").read_text()  # resource would count what the parent held when it forked
print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400  # MB
