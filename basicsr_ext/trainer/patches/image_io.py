"""Reading and writing images as BasicSR does, with errors that name the file."""

from __future__ import annotations

import errno
import math
import os
import threading
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_metric as basicsr_calculate_metric
from basicsr.utils import FileClient
from basicsr.utils import imfrombytes as basicsr_imfrombytes
from basicsr.utils import tensor2img as basicsr_tensor2img

from basicsr_ext.errors import UserError, writing_failed

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_basicsr_get = FileClient.get
_last = threading.local()  # what this thread has read last, and from where


def get(self: Any, filepath: Any, client_key: str = 'default') -> Any:
    """Reads a file or an entry, and remembers its name for :func:`imfrombytes`.

    Args:
        self: BasicSR's ``FileClient``.
        filepath: Path or key.
        client_key: Name of the LMDB.
    """
    content = _basicsr_get(self, filepath, client_key)
    _last.read = (content, filepath, client_key)
    return content


def imfrombytes(content: Any, flag: str = 'color', float32: bool = False) -> np.ndarray:
    """BasicSR's decoding of an image, for files that may be damaged.

    Args:
        content: An encoded image.
        flag: ``color``, ``grayscale`` or ``unchanged``.
        float32: Whether to return float32 on [0, 1] instead of uint8.

    Raises:
        UserError: It cannot be decoded; names the file.
    """
    try:
        image = basicsr_imfrombytes(content, flag, float32)
    except (AttributeError, cv2.error):  # of None, OpenCV's answer to what it cannot decode; of an empty file
        image = None
    if image is None:
        read, path, client_key = getattr(_last, 'read', (None, None, None))
        entry = path if client_key == 'default' else f'{path} ({client_key})'
        raise UserError(
            f'{entry if read is content else "An image"} is damaged, or no image. Replace or remove it.'
        ) from None
    return image


class NotFinite(np.ndarray):
    """A picture made of values that are not finite: it shows nothing, has no score, and is not written."""


def tensor2img(tensor: Any, *arguments: Any, **named: Any) -> Any:
    """BasicSR's conversion to 8 bits, which makes black of NaN; marks such a picture as :class:`NotFinite`.

    Args:
        tensor: (C, H, W), or a list of one.
        *arguments: As BasicSR takes them.
        **named: As BasicSR takes them.
    """
    parts = [tensor] if isinstance(tensor, torch.Tensor) else tensor
    finite = all(bool(part.isfinite().all()) for part in parts)
    image = basicsr_tensor2img(tensor, *arguments, **named)
    return image if finite or isinstance(image, list) else image.view(NotFinite)


def calculate_metric(data: dict[str, Any], opt: dict[str, Any]) -> Any:
    """BasicSR's metric of an image, and NaN for one that is :class:`NotFinite`.

    Args:
        data: ``img`` and, where there is one, ``img2``.
        opt: The metric's block of ``val.metrics``.
    """
    return math.nan if isinstance(data['img'], NotFinite) else basicsr_calculate_metric(data, opt)


def imwrite(img: np.ndarray, file_path: str, params: Any = None, auto_mkdir: bool = True) -> None:
    """Writes an image as BasicSR does, and says why where that fails.

    Args:
        img: BGR or grey.
        file_path: Its extension chooses the format.
        params: For OpenCV's encoder.
        auto_mkdir: Whether to make the folder. A picture that is :class:`NotFinite` is left out.

    Raises:
        Interrupted: Writing fails; names the file.
        OSError: The disk is full; names the file.
    """
    if isinstance(img, NotFinite):
        return
    try:
        if auto_mkdir:
            os.makedirs(os.path.dirname(os.path.abspath(file_path)), exist_ok=True)
        _, encoded = cv2.imencode(os.path.splitext(file_path)[1], img, params or [])
        with open(file_path, 'wb') as file:
            file.write(encoded)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise OSError(error.errno, error.strerror, file_path) from error
        raise writing_failed(file_path, error) from error
