"""Files that are whole or not there, and arrays in one file."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np


def atomic_write(file: Path, *content: bytes | memoryview, scratch: Path | None = None) -> None:
    """Writes a file that appears under its name only when it is whole.

    Args:
        file: To write.
        content: In parts.
        scratch: Folder on the same disk where a kill may leave an unfinished file; default: that of the file.
    """
    temporary = (scratch or file.parent) / f'.{file.name}.{os.getpid()}'
    try:
        with temporary.open('wb') as stream:
            stream.writelines(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def packed(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """A line of JSON (name, dtype, shape and checksum of each array), then the arrays' bytes."""
    buffers = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays.values()]
    index = [
        (name, array.dtype.str, array.shape, zlib.crc32(buffer))
        for (name, array), buffer in zip(arrays.items(), buffers, strict=True)
    ]
    yield json.dumps(index).encode() + b'\n'
    yield from buffers


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """Gives the arrays back, read-only; a ValueError, TypeError or KeyError says that the bytes are damaged."""
    line, _, _ = content.partition(b'\n')
    arrays, start = {}, len(line) + 1
    for name, dtype, shape, checksum in json.loads(line):
        array = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)
        if zlib.crc32(content[start : start + array.nbytes]) != checksum:
            raise ValueError('its checksum is wrong')
        arrays[name] = array
        start += array.nbytes
    return arrays
