"""From an encoded image to a window of pixels."""

from __future__ import annotations

import cv2
import numpy as np

from basicsr_ext.storage.base import ImageSpec


class DecodingError(ValueError):
    """The image is damaged; the message completes "file: ..."."""


def decode_window(encoded: np.ndarray, spec: ImageSpec, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Decodes an image, drops alpha, keeps 16 bits, obeys the orientation that it carries, and cuts a window out.

    Args:
        encoded: The bytes of the image file, uint8 of shape (n,).
        spec: What the image must turn out to be.
        top: First row of the window.
        left: First column of the window.
        height: Rows of the window.
        width: Columns of the window.

    Returns:
        RGB or grey array of shape (height, width, channels): contiguous and the caller's own.

    Raises:
        DecodingError: The image cannot be decoded, or is not what ``spec`` says.
    """
    # Not IMREAD_UNCHANGED: that would keep alpha and ignore the orientation, which BasicSR obeys.
    colour = cv2.IMREAD_COLOR if spec.channels == 3 else cv2.IMREAD_GRAYSCALE
    try:
        image = None if _lacks_its_end(encoded) else cv2.imdecode(encoded, colour | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise DecodingError(f'OpenCV cannot decode it ({error.err}).') from error
    if image is None:
        raise DecodingError('OpenCV cannot decode it; it is damaged or cut off.')
    if image.shape[:2] != (spec.height, spec.width) or image.dtype != spec.dtype:
        raise DecodingError(
            f'expected {spec.height}x{spec.width} pixels of {spec.dtype}, found {image.shape[0]}x{image.shape[1]} of '
            f'{image.dtype}.'
        )
    if (height, width) == image.shape[:2]:  # in place: a copy would take as much memory again
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image) if spec.channels == 3 else image[..., np.newaxis]
    window = image[top : top + height, left : left + width]
    return cv2.cvtColor(window, cv2.COLOR_BGR2RGB) if spec.channels == 3 else window[..., np.newaxis].copy()


def _lacks_its_end(encoded: np.ndarray) -> bool:
    """Whether a PNG image has no last chunk: OpenCV refuses it too, but libpng then prints a line of its own."""
    if encoded[:4].tobytes() != b'\x89PNG' or encoded[-8:-4].tobytes() == b'IEND':
        return False
    start = encoded.tobytes().rfind(b'IEND')  # something may follow
    return start < 0 or start + 8 > len(encoded)
