"""The batches of CIFAR's python archives, read as data: a pickle's operations without the pickle.

A pickle is a program. This runs the few operations that those files consist of and nothing else:
it never imports, never looks up and never calls what a file names, and numpy's own functions get
nothing from a file but checked bytes and a checked shape. The `Unpickler` of the standard library
with an allow-list would not do: nine bytes (`LONG_BINPUT` of a large number) make it fill tens of
GB, and a nest of tuples as a key of a dict keeps it busy for ever.
"""

import pickletools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

# Several for each image of a batch: its label and its file name, and the name's place in the memo.
OPERATION_LIMIT = 1_000_000

INTEGERS = {"BININT", "BININT1", "BININT2", "INT", "LONG1"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TEXTS = {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE"}
BYTES = {"SHORT_BINBYTES", "BINBYTES"}
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
GETS = {"BINGET", "LONG_BINGET"}
ONE_OR_MORE = {"APPEND": 1, "SETITEM": 2}  # how many they take; APPENDS and SETITEMS: to the mark
IGNORED = {"PROTO", "FRAME"}

ENCODE, DTYPE, ARRAY = "_codecs.encode", "numpy.dtype", "numpy.ndarray"
MAKE_ARRAY = "numpy.core.multiarray._reconstruct"
GLOBALS = {
    "_codecs.encode": ENCODE,
    "numpy.dtype": DTYPE,
    "numpy.ndarray": ARRAY,
    "numpy.core.multiarray._reconstruct": MAKE_ARRAY,
    "numpy._core.multiarray._reconstruct": MAKE_ARRAY,  # since numpy 2
}


class Name:
    """A function or class that a file names: one of the five that are known, and never called."""

    def __init__(self, text: str) -> None:
        if text not in GLOBALS:
            raise ValueError(f"it asks for {text[:80]!a}, which no batch needs")
        self.known = GLOBALS[text]


class Bytes:
    """The type `uint8`, which is the only one that is understood."""

    def build(self, state: object) -> None:
        """Do nothing: byte order and alignment mean nothing for single bytes."""


class Array:
    """An array as the file describes it: nothing is allocated before `uint8`."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._order: Any = "C"
        self._content = ""

    def build(self, state: Any) -> None:
        """Take shape, type, order and content from a pickled `ndarray`'s state."""
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, Bytes):
            raise ValueError("an array is not of type uint8")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("an array has no proper shape")
        self._shape, self._content = tuple(shape), content
        self._order = "F" if fortran else "C"

    def uint8(self) -> NDArray[np.uint8]:
        """The array itself, read-only; ValueError if content and shape don't fit together."""
        flat = np.frombuffer(self._content.encode("latin-1"), np.uint8)
        return flat.reshape(self._shape, order=self._order)


def read(content: bytes) -> Any:
    """What the pickle `content` describes: dicts, lists, tuples, numbers, texts and `Array`s.

    Byte strings come as texts of the same code points (Latin-1). Any Exception for what is
    damaged; ValueError that says what for anything that a CIFAR batch doesn't consist of.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def taken(start: int) -> list[Any]:
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, operand, _) in enumerate(pickletools.genops(content)):
        name, argument = opcode.name, cast(Any, operand)
        if count == OPERATION_LIMIT:
            raise ValueError(f"more than {OPERATION_LIMIT:,} operations")
        if name in INTEGERS or name in TEXTS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in BYTES:
            stack.append(argument.decode("latin-1"))
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in PUTS:
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in GETS:
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(taken(marks.pop())))
        elif name in TUPLES:
            stack.append(tuple(taken(len(stack) - TUPLES[name])))
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            single = ONE_OR_MORE.get(name)
            _extend(stack, taken(len(stack) - single if single else marks.pop()))
        elif name == "GLOBAL":
            stack.append(Name(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            stack.append(Name(".".join(taken(len(stack) - 2))))
        elif name == "REDUCE":
            stack.append(_made(*taken(len(stack) - 2)))
        elif name == "BUILD":
            (state,) = taken(len(stack) - 1)
            stack[-1].build(state)
        elif name == "STOP":
            return stack[-1]
        elif name not in IGNORED:
            raise ValueError(f"it has the operation {name}, which no batch needs")
    raise ValueError("it has no end")


def _extend(stack: list[Any], items: list[Any]) -> None:
    """Add `items` to the list, or keys and values in turn to the dict, on top of `stack`."""
    target = stack[-1]
    if isinstance(target, list):
        target.extend(items)
        return
    keys = items[::2]
    # Only texts: the hash of a nest of tuples takes for ever.
    if not (isinstance(target, dict) and all(isinstance(key, str) for key in keys)):
        raise ValueError("a dict has a key that is no text")
    target.update(zip(keys, items[1::2], strict=True))


def _made(function: Any, arguments: Any) -> Any:
    """What one of the known functions stands for; ValueError for anything else."""
    if not (isinstance(function, Name) and isinstance(arguments, tuple)):
        raise ValueError("it calls what is no function")
    if function.known == ENCODE and arguments[1:] == ("latin1",):
        return arguments[0]  # bytes are kept as such texts throughout
    if function.known == DTYPE and arguments[0] == "u1":
        return Bytes()
    if function.known == MAKE_ARRAY:
        return Array()
    raise ValueError("an array is not of type uint8")
