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
    "endless hash": b"\x80\x02}N" + b"2\x86" * 60 + b"Ns.",
    "endless hash by a note": b"\x80\x04}N" + b"\x94h\x00\x86" * 60 + b"Ns.",
    "endless hash of many": b"\x80\x02}(N" + b"2\x86" * 60 + b"Nu.",
    "endless hash at once": b"(N" + b"2\x86" * 60 + b"Nd.",
    "set": b"\x80\x04\x8f.",
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


def array(shape, raw=b"q\x02"):
    """A pickle of one array of bytes, which notes `raw` as 2 at its first use."""
    made = b"cnumpy.core.numeric\n_frombuffer\n(" + raw + b"cnumpy\ndtype\n(S'u1'\ntR"
    return made + b"(" + b"".join(b"L%dL\n" % length for length in shape) + b"tS'C'\ntR"


RAW = b"C\xc8" + bytes(200) + b"q\x02"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"(" + array([200], RAW) + array([200], b"h\x02") * 2000 + b"l", "more numbers than the file has bytes"),
        (array([10**8, 0], b"C\x00"), "more numbers than the file has bytes"),
        (array([200] + [1] * 30, RAW), "a numpy array of shape"),
        (array([-1], RAW), "a numpy array of shape"),
    ],
)
def test_arrays_hold_no_more_than_the_file(tmp_path, body, said):
    (tmp_path / "x.p").write_bytes(b"\x80\x03" + array([200], RAW) + b".")
    assert load_pickle(tmp_path / "x.p", True) == [0] * 200
    (tmp_path / "x.p").write_bytes(b"\x80\x03" + body + b".")
    with pytest.raises(ValueError, match=said):
        load_pickle(tmp_path / "x.p", True)


def test_tuples_are_read_as_data(tmp_path):
    value = {"a": (1, (2.5, "x"), ()), 3: [(b"y", None)]}
    for protocol in range(6):
        (tmp_path / "x.p").write_bytes(pickle.dumps(value, protocol=protocol))
        if protocol > 2:  # before that Python 3 writes bytes by a function
            assert load_pickle(tmp_path / "x.p", False) == value
