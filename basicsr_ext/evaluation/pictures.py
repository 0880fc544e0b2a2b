"""Image files with everything in them: alpha, 16 bits, one grey channel."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from basicsr_ext.errors import UserError, writing_failed
from basicsr_ext.files import read_file
from basicsr_ext.storage.alpha import has_alpha
from basicsr_ext.storage.base import ImageSpec
from basicsr_ext.storage.decoding import DecodingError, decode_window
from basicsr_ext.storage.headers import HeaderError, read_header


class BadImage(UserError):
    """One image cannot be used, and others may be."""


class Format(NamedTuple):
    """What an image format holds.

    Attributes:
        deep: 16 bits.
        alpha: Opacity.
        parameters: For OpenCV's encoder.
    """

    deep: bool
    alpha: bool
    parameters: tuple[int, ...] = ()


FORMATS = {
    'png': Format(True, True),
    'tif': Format(True, False),
    'webp': Format(False, True, (cv2.IMWRITE_WEBP_QUALITY, 101)),  # lossless
    'bmp': Format(False, False),
    'jpg': Format(False, False, (cv2.IMWRITE_JPEG_QUALITY, 95)),
}


class Picture(NamedTuple):
    """An image.

    Attributes:
        pixels: RGB or grey (height, width, 3 or 1), uint8 or uint16.
        alpha: Opacity (height, width), of the same type; ``None`` where there is none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None


def read_picture(file: Path) -> Picture:
    """Reads an image; an orientation that it carries is obeyed.

    Raises:
        BadImage: The file cannot be read, is damaged, or of a kind that is not supported.
    """
    try:
        content = read_file(file)
        encoded, stream = np.frombuffer(content, np.uint8), io.BytesIO(content)  # which copies nothing
        header = read_header(stream)
        spec = ImageSpec(
            header.height, header.width, header.channels, np.dtype(np.uint16 if header.bits == 16 else np.uint8)
        )
        pixels = decode_window(encoded, spec, 0, 0, header.height, header.width)
        stream.seek(0)
        everything = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if has_alpha(stream) else None
    except OSError as error:
        raise BadImage(f'{file}: cannot be read: {error.strerror}.') from None
    except (HeaderError, DecodingError, cv2.error) as error:
        raise BadImage(f'{file}: {error} Replace or remove the file.') from None
    if everything is None or everything.ndim != 3 or everything.shape[2] != 4:  # OpenCV drops some kinds of alpha
        return Picture(pixels)
    return Picture(pixels, _turned_alpha(everything, pixels))


def _turned_alpha(everything: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """OpenCV obeys an orientation only where it drops alpha: finds the one that was obeyed, and turns alpha alike."""
    colours = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    for horizontal, vertical, transpose in itertools.product((False, True), repeat=3):
        turned = everything[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        turned = turned.swapaxes(0, 1) if transpose else turned
        if np.array_equal(turned[..., 2::-1], colours):
            return np.ascontiguousarray(turned[..., 3])
    return np.ascontiguousarray(everything[..., 3])


def write_picture(file: Path, picture: Picture) -> None:
    """Writes an image; the file appears when it is whole. What the format cannot hold is left out.

    Args:
        file: Its extension, one of :data:`FORMATS`, chooses the format.
        picture: The image.

    Raises:
        BadImage: The format cannot hold the image.
        UserError: Writing fails; nothing is left of the file.
    """
    form = FORMATS[file.suffix[1:]]
    pixels, alpha = picture.pixels, picture.alpha if form.alpha else None
    if pixels.dtype == np.uint16 and not form.deep:
        pixels, alpha = (None if plane is None else _in_8_bits(plane) for plane in (pixels, alpha))
    if alpha is not None:
        pixels = _with_alpha(pixels, alpha)
    elif pixels.shape[2] == 3:
        pixels = pixels[..., ::-1]
    # Nothing is copied here where a picture's colours lie in this order in the memory, as those of enlarged ones do.
    pixels = np.ascontiguousarray(pixels)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, pixels, form)
    except OSError as error:
        raise writing_failed(file, error) from None


def _with_alpha(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    whole = alpha.base
    if whole is not None and whole is pixels.base and whole.shape == (*alpha.shape, 4):  # one array already
        return whole
    return np.dstack([np.broadcast_to(pixels, (*alpha.shape, 3))[..., ::-1], alpha])


def _write(file: Path, pixels: np.ndarray, form: Format) -> None:
    """Lets OpenCV write straight into a file: encoded in the memory, the image would take up as much again, and twice."""
    temporary = file.with_name(f'.{os.getpid()}{file.suffix}')
    try:
        try:
            done = cv2.imwrite(os.fspath(temporary), pixels, form.parameters)
        except cv2.error:
            done = False
        with temporary.open('ab') as stream:  # OpenCV does not tell that a disk is full: one more byte does
            size = stream.tell()
            stream.write(b'\0')
            if not done:  # it may have removed what it wrote: a little more than the pixels tells
                for _ in range(pixels.nbytes // 1_000_000 + 1):
                    stream.write(bytes(1_010_000))
            stream.truncate(size)
        if not done:
            raise BadImage(
                f'{file}: an image of {pixels.shape[0]}x{pixels.shape[1]} pixels cannot be written in this format. Choose '
                'another (--ext).'
            )
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _in_8_bits(plane: np.ndarray) -> np.ndarray:
    result = np.empty(plane.shape, np.uint8)
    for row, values in zip(result, plane, strict=True):  # not at once: four times the memory
        row[...] = (values.astype(np.uint32) + 128) // 257
    return result
