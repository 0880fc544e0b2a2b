"""What image files say about themselves: size, grey or colour, bits. Nothing is decoded."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from basicsr_ext.errors import UserError

_PILLOW_FORMATS: dict[bytes, type[ImageFile]] = {
    b'\xff\xd8': JpegImageFile,
    b'II': TiffImageFile,
    b'MM': TiffImageFile,
    b'BM': BmpImageFile,
    b'RI': WebPImageFile,
}
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_COLOURED = (2, 3, 6)
_ORIENTATION = 0x0112
_NEW_SUBFILE_TYPE = 0x00FE
_THUMBNAIL, _MASK = 1, 4  # its bits
_TURNED = (5, 6, 7, 8)  # the orientations that swap height and width


class HeaderError(ValueError):
    """Not an image, not one of the kinds that are supported, or damaged; the message completes "file: ..."."""


class UnsupportedError(HeaderError):
    """An image that is whole, of a kind or size that is not read; the message says what to do."""


class ImageHeader(NamedTuple):
    """Size as it is after decoding, 1 or 3 channels without alpha, 8 or 16 bits."""

    height: int
    width: int
    channels: int
    bits: int


def read_header(stream: BinaryIO) -> ImageHeader:
    """Reads the header of a PNG, JPEG, BMP, TIFF, WebP, PPM or PGM image, whatever its name says.

    Height and width are swapped where OpenCV, in decoding, obeys an orientation that the image carries.

    Args:
        stream: The image, from its first byte.

    Raises:
        HeaderError: The image is damaged.
        UnsupportedError: It is of a kind or size that is not supported.
    """
    start = stream.read(8)
    stream.seek(0)
    if start == _PNG_SIGNATURE:
        return _png(stream)
    if start[:2] in (b'P2', b'P3', b'P5', b'P6'):
        return _portable_map(stream)
    if start[:2] in _PILLOW_FORMATS:
        return _by_pillow(stream, _PILLOW_FORMATS[start[:2]])
    raise HeaderError('not an image, or of a format that is not supported.')


def common_format(headers: Mapping[str, ImageHeader], channels: int | None, path: Path) -> tuple[int, np.dtype]:
    """Decides how the images of a set are read.

    Args:
        headers: Key -> header, at least one.
        channels: 3 reads RGB and repeats grey; 1 demands grey; ``None`` takes 1 where all images are grey, else 3.
        path: Of the set, for messages.

    Returns:
        Channels and dtype of every image.

    Raises:
        UserError: 8 and 16 bits are mixed, or an image is coloured and grey was demanded.
    """
    first_of_depth: dict[int, str] = {}
    for key, header in headers.items():
        first_of_depth.setdefault(header.bits, key)
    if len(first_of_depth) > 1:
        raise UserError(
            f'{path}: all images of a set must have the same depth, but "{first_of_depth[8]}" has 8 bits a channel and '
            f'"{first_of_depth[16]}" has 16. Convert one of the kinds, or keep them in two folders.'
        )
    coloured = next((key for key, header in headers.items() if header.channels == 3), None)
    if channels is None:
        channels = 1 if coloured is None else 3
    elif channels == 1 and coloured is not None:
        raise UserError(
            f'{path}: channels: 1 needs grey images, but "{coloured}" is coloured. Convert the images, or ask for '
            'channels: 3.'
        )
    elif channels not in (1, 3):
        raise UserError(f'{path}: channels must be 1 or 3, found {channels!r}.')
    return channels, np.dtype(np.uint8 if 8 in first_of_depth else np.uint16)


def _png(stream: BinaryIO) -> ImageHeader:
    """Reads IHDR, since Pillow hides 16 bits of colour images, and the orientation where there is an eXIf chunk."""
    stream.seek(len(_PNG_SIGNATURE))
    length, kind = _png_chunk(stream)
    if kind != b'IHDR' or length != 13:
        raise HeaderError('damaged PNG image: it does not start with an IHDR chunk.')
    width, height, bits, colour_type, *_ = struct.unpack('>IIBBBBB', _exactly(stream, 13))
    stream.seek(4, io.SEEK_CUR)
    turned = False
    length, kind = _png_chunk(stream)
    while kind != b'IDAT':
        if kind == b'eXIf':
            turned = _turned(_exactly(stream, length), 'PNG')
            length = 0
        stream.seek(length + 4, io.SEEK_CUR)
        length, kind = _png_chunk(stream)
    return _oriented(height, width, 3 if colour_type in _PNG_COLOURED else 1, 16 if bits == 16 else 8, turned)


def _png_chunk(stream: BinaryIO) -> tuple[int, bytes]:
    length, kind = struct.unpack('>I4s', _exactly(stream, 8))
    return length, kind


def _portable_map(stream: BinaryIO) -> ImageHeader:
    """Reads magic number, width, height and largest value, between which there may be comments."""
    tokens: list[bytes] = []
    while len(tokens) < 4:
        line = stream.readline(4096)
        if not line:
            raise HeaderError('damaged PPM or PGM image: its header is cut off.')
        tokens += line.split(b'#', 1)[0].split()
    try:
        width, height, largest = (int(token) for token in tokens[1:4])
    except ValueError:
        raise HeaderError('damaged PPM or PGM image: its header holds something else than numbers.') from None
    if largest not in (255, 65535):
        raise UnsupportedError(
            f'PPM and PGM images must have the largest value 255 or 65535, found {largest}: convert it to PNG.'
        )
    return _oriented(height, width, 3 if tokens[0] in (b'P3', b'P6') else 1, 8 if largest == 255 else 16, False)


def _by_pillow(stream: BinaryIO, kind: type[ImageFile]) -> ImageHeader:
    # Not Image.open: it tries all formats in turn, and refuses large images, which are harmless as nothing is decoded.
    try:
        if kind is TiffImageFile:
            return _tiff(stream)
        image = kind(stream)
        turned = _turned(image.info.get('exif', b''), str(image.format))
        return _oriented(image.height, image.width, 1 if image.mode in ('1', 'L') else 3, 8, turned)
    except HeaderError:
        raise
    # Pillow's plugins let all kinds of exceptions out when a file is damaged.
    except Exception as error:
        raise HeaderError(f'damaged image ({error}).') from error


def _tiff(stream: BinaryIO) -> ImageHeader:
    """Reads the tags themselves, since Pillow hides 16 bits of colour images and may have turned the size already."""
    start = stream.read(8)
    if start[2] == 43:  # BigTIFF
        start += stream.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(start)
    stream.seek(tags.next)
    tags.load(stream)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    integer = set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) == {1}
    if not integer or (bits > 8 and bits != 16):
        found = 'whole numbers' if integer else 'floating point or signed numbers'
        raise UnsupportedError(
            f'TIFF images must hold whole numbers of 8 or 16 bits, found {found} of {bits} bits: convert it, such as to PNG '
            'of 16 bits.'
        )
    grey = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) in (0, 1)
    if not grey and tags.get(TiffImagePlugin.EXTRASAMPLES):
        raise UnsupportedError('TIFF image with alpha, which OpenCV blends into the colours: save it without alpha.')
    height, width = tags[TiffImagePlugin.IMAGELENGTH], tags[TiffImagePlugin.IMAGEWIDTH]
    if tags.next and _is_page(start, stream, tags.next):
        raise UnsupportedError(
            'TIFF file of several images, of which only the first would be read: save each in a file.'
        )
    turned = tags.get(_ORIENTATION) in _TURNED and _opencv_turns('TIFF')
    return _oriented(height, width, 1 if grey else 3, max(bits, 8), turned)


def _is_page(start: bytes, stream: BinaryIO, position: int) -> bool:
    """Says whether a second directory of tags describes an image of its own, and no thumbnail or mask of the first."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(start)
    stream.seek(position)
    tags.load(stream)
    belongs_to_first = tags.get(_NEW_SUBFILE_TYPE, 0) & (_THUMBNAIL | _MASK)
    return TiffImagePlugin.IMAGEWIDTH in tags and not belongs_to_first


def _oriented(height: int, width: int, channels: int, bits: int, turned: bool) -> ImageHeader:
    if height <= 0 or width <= 0:
        raise HeaderError(f'damaged image: its header says {height}x{width} pixels.')
    for name, found, default in (
        ('PIXELS', height * width, 1 << 30), ('WIDTH', width, 1 << 20), ('HEIGHT', height, 1 << 20),
    ):  # fmt: skip
        variable = f'OPENCV_IO_MAX_IMAGE_{name}'
        most = int(os.environ.get(variable) or default)
        if found > most:
            raise UnsupportedError(
                f'{height}x{width} pixels, and OpenCV reads at most {most:,} ({name.lower()}): cut it into parts, or set the '
                f'environment variable {variable} to {found}.'
            )
    return ImageHeader(width, height, channels, bits) if turned else ImageHeader(height, width, channels, bits)


def _turned(exif: bytes, kind: str) -> bool:
    """Whether decoding swaps height and width."""
    if not exif:
        return False
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(_ORIENTATION)
    except Exception:  # damaged EXIF data: OpenCV ignores them as well
        return False
    return orientation in _TURNED and _opencv_turns(kind)


@lru_cache
def _opencv_turns(kind: str) -> bool:
    """Tries whether this OpenCV obeys the orientation of a format: that differs between formats and versions."""
    tags = Image.Exif()
    tags[_ORIENTATION] = 6
    encoded = io.BytesIO()
    Image.new('L', (2, 1)).save(encoded, kind, exif=tags)
    decoded = cv2.imdecode(np.frombuffer(encoded.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)
    return decoded is not None and decoded.shape == (2, 1)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise HeaderError('damaged image: its header is cut off.')
    return data
