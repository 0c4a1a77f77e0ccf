"""Open untrusted pickled models: `.pkl`, `.joblib` and `.skops`, recognised by content.

A pickle is a program for a stack machine. It is run twice here. The first run is a rehearsal: every global is
checked by `models.admission` and then stands on the stack as a token, calls make tokens, and nothing of the
file runs. Only when the whole program has passed does the second run build the model, under the same rules.
So a refused file has had no effect at all, not even by the calls that come before the refused one.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import OnnxtoolError, SourceError, UntrustedError, require
from onnxtool.models.safety.admission import (
    CLOUDPICKLE,
    MEMMAP,
    PARTIAL,
    Admitted,
    Operation,
    admit,
    is_function,
    set_dtype_state,
)
from onnxtool.models.safety.archives import members
from onnxtool.models.safety.attributes import check_attributes
from onnxtool.models.safety.skops import refused
from onnxtool.models.versions import find_releases
from onnxtool.reports.model import SavedBy
from onnxtool.sandbox import confine

EXPANDED_LIMIT = 8 * 2**30
"""Most bytes that a compressed file may expand to."""

Packing: TypeAlias = Literal["plain", "zlib", "gzip", "bz2", "xz", "lzma", "lz4"]

MAGIC: dict[bytes, Packing] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x78": "zlib",
}

Order: TypeAlias = Literal["C", "F"]
Dispatch: TypeAlias = dict[int, Callable[[Any], None]]


def is_pickle(path: Path) -> bool:
    """Whether a file's content, after decompression, begins as a pickle does. Nothing is executed."""
    try:
        with _open(path) as stream:
            head = stream.read(256)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, OnnxtoolError):
        return False
    if head[:1] == pickle.PROTO:
        # A magic number in front: the format of torch.save before 1.6, which is several pickles.
        return head[1:2] <= b"\x05" and head[2:4] != b"\x8a\x0a"
    # Protocols 0 and 1 have no mark; a model begins with the call that makes it.
    return re.match(rb"\(?[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n", head) is not None


def is_skops(path: Path) -> bool:
    """Whether a file is a skops archive: a zip with a `schema.json` that names a skops protocol."""
    return "schema.json" in members(path)


def load(path: Path, trust: Sequence[str] = ()) -> object:
    """Open a pickle or joblib file, plain or compressed.

    Args:
        path: The file.
        trust: Full names, `package.Class`, that it may use besides those known to be safe.

    Raises:
        UntrustedError: it uses something else; nothing of it has run.
        SourceError: it is damaged, or does not fit the installed libraries.
        MissingExtraError: a library that it needs is not installed.
    """
    if CLOUDPICKLE not in trust:  # whose files are code, which no rehearsal can follow
        _rehearse(path, trust)
    with _warnings_later(), _damage(path), _open(path) as stream:
        return Loader(stream, trust).load()


def _rehearse(path: Path, trust: Sequence[str]) -> None:
    with _damage(path), _open(path) as stream:
        rehearsal = Rehearsal(stream, trust)
        try:
            rehearsal.load()
        except Exception:
            # A pickle that is cut off after naming something evil is evil first and damaged second.
            if not rehearsal.refused and not rehearsal.violation:
                raise
    if rehearsal.refused:
        raise UntrustedError(_refusal(path, sorted(rehearsal.refused)))
    if rehearsal.violation:
        raise UntrustedError(f"{path} {rehearsal.violation}. No saved model needs that; none of it has run.")


def load_skops(path: Path, trust: Sequence[str] = ()) -> object:
    """Open a skops archive. Arguments and errors are those of `load`."""
    skops = require("skops.io", "sklearn")
    with _warnings_later(), _damage(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > EXPANDED_LIMIT:
                raise SourceError(f"expands to more than {EXPANDED_LIMIT:,} bytes, which is as much as is read.")
            schema = json.loads(archive.read("schema.json"))
        if unknown := refused(schema, trust):
            raise UntrustedError(_refusal(path, unknown))
        model: object = skops.load(path, trusted=skops.get_untrusted_types(file=path))
        return model


def saved_by(path: Path) -> list[SavedBy]:
    """The releases that saved a file that `load` or `load_skops` has opened, as far as it names them."""
    if not is_skops(path):
        return find_releases(partial(_open, path), xgboost="minor")
    with zipfile.ZipFile(path) as archive:
        members = [find_releases(partial(archive.open, name), xgboost="minor") for name in archive.namelist()]
    return list({(each.library, each.version): each for found in members for each in found}.values())


# -- The two runs ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ArrayWrapper:
    """Stands for joblib's `NumpyArrayWrapper`: says what array the bytes that follow it hold."""

    subclass: Any = None
    shape: tuple[int, ...] = ()
    order: str = "C"
    dtype: Any = None
    allow_mmap: bool = False
    numpy_array_alignment_bytes: int | None = None  # absent in files of joblib 1.1 and older


WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
DEFAULT_DICT = "collections.defaultdict"


class Token:
    """The result of a call in the first run: an object that does nothing.

    Attributes:
        origin: Full name of what makes it.
        kind: Its class, where that is known.
        trusted: Whether the user vouches for what makes it.
    """

    def __init__(self, origin: str, kind: type | None = None, trusted: bool = False) -> None:
        self.origin = origin
        self.kind = kind
        self.trusted = trusted

    def extend(self, items: list[Any]) -> None:
        """Lists of a class of their own are filled after they are made; only those that are trusted are.

        Raises:
            UnpicklingError: it is not.
        """
        if not self.trusted:
            raise pickle.UnpicklingError("it appends to what is no list")

    def append(self, item: Any) -> None:
        """The same for one item."""
        self.extend([item])

    def __setitem__(self, key: object, value: object) -> None:
        """Mappings are filled after they are made; nothing else is.

        Raises:
            UnpicklingError: it is no mapping.
        """
        if not self.trusted and self.origin != DEFAULT_DICT and not (self.kind and issubclass(self.kind, dict)):
            raise pickle.UnpicklingError("it sets items of what is no mapping")


# The pure Python machine, as joblib uses it: it lets single operations be replaced, and two runs of it
# cannot read the same bytes in two ways.
class Reader(pickle._Unpickler):
    """The base of both runs: joblib's arrays, checked dtypes, and refused operations that no model needs."""

    dispatch: ClassVar[Dispatch] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    proto: int

    def __init__(self, stream: Stream, trust: Sequence[str]) -> None:
        super().__init__(cast(Any, stream))
        self.stream = stream
        self.trust = trust

    def look_up(self, module: str, name: str) -> Admitted | None:
        """Check a global under the name that it has in Python 3."""
        import _compat_pickle  # the standard table, which pickle itself uses

        if self.proto < 3:
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            else:
                module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        if f"{module}.{name}" == WRAPPER:
            return Admitted(WRAPPER, "constructible", ArrayWrapper, lambda args: not args)
        return admit(module, name, self.trust)

    def load_build(self) -> None:
        """Give the object below the top of the stack its state."""
        instance, state = self.stack[-2], self.stack[-1]
        if isinstance(instance, np.dtype):
            set_dtype_state(instance, self.stack.pop())
        elif isinstance(instance, ArrayWrapper):
            for key, value in self.stack.pop().items():
                if key not in ArrayWrapper.__slots__:
                    raise ValueError("an array is of an unknown form")
                setattr(instance, key, value)
            self.stack[-1] = self.read_array(instance)
        else:
            self.set_state(instance, state)

    def set_state(self, instance: Any, state: Any) -> None:
        """Give an object of neither kind its state."""
        raise NotImplementedError

    def read_array(self, wrapper: ArrayWrapper) -> Any:
        """Read the array that follows in the stream: its bytes, or a pickle of its own when it holds objects."""
        dtype, shape = wrapper.dtype, tuple(int(size) for size in wrapper.shape)
        if not isinstance(dtype, np.dtype) or any(size < 0 for size in shape):
            raise ValueError("an array is of an unknown form")
        if dtype.hasobject:
            return self.read_inner()
        if wrapper.numpy_array_alignment_bytes is not None:
            self.stream.exactly(self.stream.exactly(1)[0])
        data = self.stream.exactly(math.prod(shape) * dtype.itemsize)
        return self.make_array(data, dtype, shape, "F" if wrapper.order == "F" else "C")

    def read_inner(self) -> Any:
        """Read a pickle within the pickle, under the same rules."""
        return type(self)(self.stream, self.trust).load()

    def make_array(self, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order) -> Any:
        """Make an array of its bytes."""
        raise NotImplementedError

    def refuse_operation(self) -> None:
        """Old classes, extension codes and outside references: no fitted model has them."""
        raise pickle.UnpicklingError("it uses an operation of pickle that no saved model needs")

    dispatch[pickle.BUILD[0]] = load_build
    for opcode in ("INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"):
        dispatch[getattr(pickle, opcode)[0]] = refuse_operation


class Rehearsal(Reader):
    """The first run: names are checked, nothing is made."""

    dispatch: ClassVar[Dispatch] = dict(Reader.dispatch)

    def __init__(self, stream: Stream, trust: Sequence[str]) -> None:
        super().__init__(stream, trust)
        self.refused: set[str] = set()
        self.violation = ""
        self.states: list[tuple[type, Any]] = []

    def find_class(self, module: str, name: str) -> Any:
        """Check a global and put a token for it on the stack."""
        found = self.look_up(module, name)
        if found is None:
            self.refused.add(f"{module}.{name}")
            return Admitted(f"{module}.{name}", "both", None, lambda _: True)
        return found

    def load_reduce(self) -> None:
        """Call a global, in token."""
        args = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], args, "REDUCE")

    def load_newobj(self) -> None:
        """Make an instance without its `__init__`, in token."""
        args = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], args, "NEWOBJ")

    def load_newobj_ex(self) -> None:
        """The same with keywords, which no estimator takes there."""
        keywords = self.stack.pop()
        if keywords:
            raise pickle.UnpicklingError("it makes an object with keywords")
        self.load_newobj()

    def set_state(self, instance: Any, state: Any) -> None:
        """Take a state, for an object that this pickle has made."""
        if not isinstance(instance, Token):
            self._violate("sets attributes of what it has not made")
        elif instance.origin in ARRAY_MAKERS:
            check_array_state(state)
        elif instance.origin == PARTIAL:
            if not is_function(state[0]):
                self._violate("makes a partial of something that is no admitted function")
        elif instance.kind is not None:
            self.states.append((instance.kind, state))
        self.stack.pop()

    def load(self) -> Any:
        """Read the whole; states are looked at in the end, when nothing more can be put into them."""
        made = super().load()
        for kind, state in self.states:
            if found := check_attributes(kind, state):
                self._violate(found)
        return made

    def read_array(self, wrapper: ArrayWrapper) -> Any:
        """Read past an array."""
        if not (isinstance(wrapper.subclass, Admitted) and wrapper.subclass.full_name in ARRAY_CLASSES):
            self._violate("holds an array of an unknown class")
        return super().read_array(wrapper)

    def read_inner(self) -> Any:
        """Rehearse a pickle within the pickle; what is wrong with it is wrong with the whole."""
        inner = Rehearsal(self.stream, self.trust)
        inner.refused = self.refused
        try:
            return inner.load()
        finally:
            self._violate(inner.violation)

    def make_array(self, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order) -> Any:
        """Make a token for an array."""
        return Token("numpy.ndarray")

    def _made(self, target: Any, args: Any, operation: Operation) -> Any:
        if not isinstance(target, Admitted) or not isinstance(args, tuple):
            self._violate("calls something that is neither a class nor a function")
            return Token("unknown")
        if not target.allows(operation, args):
            does = "calls" if operation == "REDUCE" else "makes an instance of"
            self._violate(f"{does} {target.full_name} in a way in which no model does")
        elif target.value is ArrayWrapper:
            return ArrayWrapper()
        elif target.pure:
            return target.value(*args)
        return Token(target.full_name, None if target.trusted else _class_made(target, args), target.trusted)

    def _violate(self, what: str) -> None:
        self.violation = self.violation or what

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex


def _class_made(target: Admitted, args: tuple[Any, ...]) -> type | None:
    """The class of what a call makes, where that is known."""
    named = args[0] if args and isinstance(args[0], Admitted) else target  # a constructor is given the class first
    return named.value if isinstance(named.value, type) and not named.trusted else None


class Loader(Reader):
    """The second run, of a pickle that has passed the first: the model is built."""

    dispatch: ClassVar[Dispatch] = dict(Reader.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up, at the moment when it is needed, under the rules of the first run."""
        found = self.look_up(module, name)
        if found is None:
            raise UntrustedError(f"uses {module}.{name}, which is not known to be safe.")
        return found.value

    def set_state(self, instance: Any, state: Any) -> None:
        """Set a state as pickle does, an array's after a check."""
        if isinstance(instance, np.ndarray):
            check_array_state(state)
        pickle._Unpickler.dispatch[pickle.BUILD[0]](cast(Any, self))

    def make_array(self, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order) -> Any:
        """Make an array, writable and in this machine's byte order."""
        array: NDArray[Any] = np.frombuffer(bytearray(data), dtype=dtype).reshape(shape, order=order)
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


ARRAY_CLASSES = ("numpy.ndarray", MEMMAP)
ARRAY_MAKERS = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")


def check_array_state(state: Any) -> None:
    """Check that an array's data fit its shape: NumPy reads a list of objects without looking at its length.

    Raises:
        ValueError: they do not fit.
    """
    shape, dtype, _, data = state[1:5]
    objects = bool(dtype.hasobject)
    if (
        isinstance(data, list) != objects
        or (objects and len(data) != math.prod(shape))
        or min(shape, default=0) < 0
    ):
        raise ValueError("an array's data do not fit its shape")


# -- Streams --------------------------------------------------------------------------------------------------


class Stream:
    """The bytes of a pickle, decompressed, with an end to how many there may be."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file = file
        self.limit = limit
        self.left = limit

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        # A file that is read beyond its limit would first allocate all of the size given.
        return self._counted(self.file.read(min(size, self.left + 1)))

    def readline(self) -> bytes:
        """Bytes up to the next end of line, as the text opcodes have them."""
        return self._counted(self.file.readline(self.left + 1))

    def exactly(self, size: int) -> bytes:
        """Exactly `size` bytes.

        Raises:
            EOFError: there are fewer.
        """
        data = self._counted(self.file.read(size)) if size <= self.left else self._exceeded()
        if len(data) != size:
            raise EOFError("an array is cut off")
        return data

    def _counted(self, data: bytes) -> bytes:
        self.left -= len(data)
        return data if self.left >= 0 else self._exceeded()

    def _exceeded(self) -> NoReturn:
        raise SourceError(f"holds, or expands to, more than {self.limit:,} bytes, which is as much as is read.")


class ZlibFile(io.RawIOBase):
    """A zlib stream as a file; the standard library has none. joblib's default compression writes it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decompressor = zlib.decompressobj()

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with decompressed bytes, as many as one step gives."""
        data = b""
        while not data and not self.decompressor.eof:
            chunk = self.decompressor.unconsumed_tail or self.file.read(2**16)
            if not chunk:
                raise EOFError("the compressed data are cut off")
            data = self.decompressor.decompress(chunk, len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _open(path: Path) -> Iterator[Stream]:
    with path.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        packing: Packing = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "plain")
        if packing == "plain":
            yield Stream(raw, path.stat().st_size)
        elif packing == "zlib":
            yield Stream(cast(BinaryIO, io.BufferedReader(ZlibFile(raw))), EXPANDED_LIMIT)
        else:
            with _decompressor(packing, raw) as unpacked:
                yield Stream(unpacked, EXPANDED_LIMIT)


def _decompressor(packing: Packing, raw: BinaryIO) -> BinaryIO:
    if packing == "lz4":
        try:
            import lz4.frame
        except ModuleNotFoundError as error:
            raise SourceError("is compressed with lz4. Install it with: pip install lz4") from error
        return cast(BinaryIO, lz4.frame.open(raw, "rb"))
    openers: dict[Packing, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open, "lzma": lzma.open}
    return cast(BinaryIO, openers[packing](raw, "rb"))


# -- Saying what is wrong -------------------------------------------------------------------------------------


def _refusal(path: Path, names: Sequence[str]) -> str:
    if any(name.startswith(f"{CLOUDPICKLE}.") for name in names):
        return (
            f"{path} holds code, put there by cloudpickle, which may do anything. Nothing of it has run. "
            f"If you know who made the file: --trust {CLOUDPICKLE}"
        )
    flags = " ".join(dict.fromkeys(f"--trust {_vouched(name)}" for name in names))
    return (
        f"{path} uses {', '.join(names)}, not known to be safe. Nothing of it has run. "
        f"If you know who made the file: {flags}"
    )


def _vouched(name: str) -> str:
    """What to trust: the library where a file names parts of it by the dozen, as a network of PyTorch's does."""
    root = name.partition(".")[0]
    return root if root in ("skorch", "torch") else name


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what a broken or foreign file makes the machinery raise into a SourceError."""
    try:
        yield
    except SourceError as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path} {error}") from error
    except OnnxtoolError:
        raise
    except MemoryError as error:
        if confine.confined:  # the process that set the limit reports it
            raise
        raise SourceError(f"{path} needs more memory than there is.") from error
    except Exception as error:  # a hostile stack machine can make any of its operations fail in any way
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise SourceError(f"{path} is damaged, or saved by another version of its library: {reason}.") from error


@contextmanager
def _warnings_later() -> Iterator[None]:
    """Give warnings once all is read, when one that is turned into an error is no damage of the file.

    scikit-learn's about its versions, one an estimator, are left out: what saved the file is a part of the report.
    """
    inconsistent = require("sklearn.exceptions", "sklearn").InconsistentVersionWarning
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for entry in caught:
        if not issubclass(entry.category, inconsistent):
            warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
