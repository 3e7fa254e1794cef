"""Pickles read as data: no code of theirs runs, and a small file cannot ask for a large memory.

A pickle is a program for a stack machine. It is walked once before it runs: only the instructions that build plain
values may stand in it, and no index into its notes may be out of all proportion. Whatever would fetch a name from a
module is refused, but for the few names by which numpy writes numbers and arrays; those are answered by stand-ins
of our own, which have numpy read plain numbers and nothing else, and arrays come out as lists.

What memory and time are left to an attacker grow with the file alone: arrays hold no more numbers in all than the file
has bytes, and tuples, which can be built so that hashing one takes for ever, are no keys.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlmr1.sources.reading import NOT_FOUND, collector_at_rest, shown

# Instructions by the form of their argument: none, of fixed length, a line of text. The index of a note (PUT,
# LONG_BINPUT) stays below 2**24, for the machine makes room for every index up to the highest.
_PLAIN = (
    rb"[(N\]}ldaesu012\x88\x89\x94]|[hqK\x80].|M..|[jJ]....|r...\x00|[G\x95].{8}"
    rb"|[ILFSVg][^\n]*+\n|p[0-9]{1,7}\n"
)
_OF_ARRAYS = rb"|c[^\n]*+\n[^\n]*+\n|[\x93Rb]"  # GLOBAL, STACK_GLOBAL, REDUCE, BUILD
_RUN = {  # as many as stand together
    False: re.compile(rb"(?:" + _PLAIN + rb")*+", re.DOTALL),
    True: re.compile(rb"(?:" + _PLAIN + _OF_ARRAYS + rb")*+", re.DOTALL),
}
_PREFIXED = {  # bytes of the length that stands before the value
    **dict.fromkeys(b"\x8cUC\x8a", 1),  # SHORT_BINUNICODE, SHORT_BINSTRING, SHORT_BINBYTES, LONG1
    **dict.fromkeys(b"XTB\x8b", 4),  # BINUNICODE, BINSTRING, BINBYTES, LONG4
    **dict.fromkeys(b"\x8d\x8e\x96", 8),  # BINUNICODE8, BINBYTES8, BYTEARRAY8
}
_TUPLES = frozenset(b")t\x85\x86\x87")  # EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
_STOP = ord(".")
_DIMENSIONS = 4  # of an array, at most: each is a list around every number
_left: ContextVar[int] = ContextVar("_left")  # numbers that the arrays of the file being read may still hold


def load_pickle(path: Path, arrays: bool) -> Any:
    """The value of a pickle of any protocol made of plain data, with `arrays` also of numpy's.

    Raises FileNotFoundError, and ValueError for a file that is cut short, no pickle, or anything but data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {NOT_FOUND}")
    data = path.read_bytes()
    try:
        machine = _Careful if _walk(data, arrays) else _Quick
        _left.set(len(data))
        with collector_at_rest():
            return machine(data, arrays).load()
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError, ArithmeticError) as e:
        raise ValueError(f"{path}: not a pickle of plain data ({e}); get the published file") from e


def _walk(data: bytes, arrays: bool) -> bool:
    """Whether there are tuples. Raises ValueError unless every instruction up to STOP builds plain values."""
    end_of_run, at, tuples = _RUN[arrays].match, 0, False
    while True:
        match = end_of_run(data, at)
        at = match.end() if match else at
        if at >= len(data):
            raise ValueError("it is cut short")
        op = data[at]
        if op in _PREFIXED:
            value = at + 1 + _PREFIXED[op]
            at = value + int.from_bytes(data[at + 1 : value], "little")
        elif op in _TUPLES:
            at, tuples = at + 1, True
        elif op == _STOP:
            return tuples
        else:
            raise ValueError(f"byte {at}: instruction {data[at : at + 1]!r} does more than hold data")


def _named(module: str, name: str, arrays: bool) -> Any:
    found = _STAND_INS.get((module.replace("numpy._core.", "numpy.core."), name)) if arrays else None
    if found is None:
        raise pickle.UnpicklingError(f"it asks for {shown(module)}.{shown(name)}")
    return found


class _Quick(pickle.Unpickler):
    """The machine written in C, for files without tuples: all that is left to be a key is hashed in no time."""

    def __init__(self, data: bytes, arrays: bool) -> None:
        # RefCOCO's were written by Python 2, whose strings are bytes.
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="strict")
        self.arrays = arrays

    def find_class(self, module: str, name: str) -> Any:
        return _named(module, name, self.arrays)


_Python: Any = pickle._Unpickler  # type: ignore[attr-defined]  # the machine written in Python


def _with_keys(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """An instruction that sets items, after a look at their keys, which stand there on the stack."""

    def checked(machine: Any) -> None:
        for key in machine.stack[keys]:
            if not isinstance(key, str | int | bytes):
                raise ValueError(f"{shown(key)} is no key")
        load(machine)

    return checked


class _Careful(_Python):  # type: ignore[misc]
    """A machine that looks at every key before it is hashed. Slower, as files with arrays are smaller."""

    dispatch: ClassVar = {
        **_Python.dispatch,
        ord("d"): _with_keys(_Python.load_dict, slice(0, None, 2)),
        ord("s"): _with_keys(_Python.load_setitem, slice(-2, -1)),
        ord("u"): _with_keys(_Python.load_setitems, slice(0, None, 2)),
    }

    def __init__(self, data: bytes, arrays: bool) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="strict")
        self.arrays = arrays

    def find_class(self, module: str, name: str) -> Any:
        return _named(module, name, self.arrays)


# The stand-ins. None has an attribute that a pickle could set, and none is a type it could make things of.


class _Dtype:
    """A numpy type of numbers: its code (f8, i4, …), then by its state the order of its bytes."""

    __slots__ = ("kind",)

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
            raise ValueError(f"numpy type {shown(code)} is none of numbers")
        self.kind = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"numpy byte order {shown(state[1])} is unknown")
        self.kind = self.kind.newbyteorder(state[1])


class _Array(list[Any]):
    """A numpy array as nested lists."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self[:] = _nested(raw, dtype, shape, "F" if fortran else "C")


def _nested(raw: Any, dtype: Any, shape: Any, order: Any) -> list[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        raise ValueError("a numpy array of something else than numbers")
    if len(shape) > _DIMENSIONS or not all(isinstance(length, int) and length >= 0 for length in shape):
        raise ValueError(f"a numpy array of shape {shown(shape)}")
    _left.set(_left.get() - math.prod(max(length, 1) for length in shape))
    if _left.get() < 0:
        raise ValueError("its arrays hold more numbers than the file has bytes")
    values = np.frombuffer(raw, dtype.kind).reshape(shape, order="F" if order == "F" else "C").tolist()
    return values if isinstance(values, list) else [values]


class _MakeDtype:
    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Dtype:
        return _Dtype(code)


class _MakeArray:
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()  # empty whatever shape is asked for; the state fills it


class _FromBuffer:
    __slots__ = ()

    def __call__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> list[Any]:
        return _nested(raw, dtype, shape, order)


class _MakeScalar:
    __slots__ = ()

    def __call__(self, dtype: Any, raw: Any) -> Any:
        return _nested(raw, dtype, (1,), "C")[0]


class _NdArray:
    __slots__ = ()  # stands as an argument only


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _MakeDtype(),
    ("numpy", "ndarray"): _NdArray(),
    ("numpy.core.multiarray", "_reconstruct"): _MakeArray(),
    ("numpy.core.multiarray", "scalar"): _MakeScalar(),
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
}
