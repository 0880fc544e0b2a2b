"""Fingerprints of images and key lists."""

from __future__ import annotations

import hashlib

import numpy as np

from basicsr_ext.functional.digest import image_digest, keys_digest


def test_pixels_shape_and_dtype_count_and_memory_layout_does_not():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    digest = image_digest(image)
    assert len(digest) == 16
    assert image_digest(np.asfortranarray(image)) == digest
    assert image_digest(np.repeat(image, 2, axis=1)[:, ::2]) == digest
    changed = image.copy()
    changed[3, 3, 2] ^= 1
    others = [changed, image.astype(np.uint16), image.reshape(2, 8, 3), image.reshape(8, 2, 3)]
    assert digest not in {image_digest(other) for other in others}


def test_byte_order_and_a_missing_channel_axis_do_not_count():
    image = np.arange(6, dtype='<u2').reshape(2, 3)
    assert image_digest(image) == image_digest(image.astype('>u2')) == image_digest(image[:, :, None])


def test_the_digest_is_fixed():
    expected = hashlib.blake2b(b'1 2 1 uint8\n\x05\x06', digest_size=8).hexdigest()
    assert image_digest(np.array([[5, 6]], dtype=np.uint8)) == expected


def test_keys_in_any_order():
    assert keys_digest(['b', 'a']) == keys_digest(['a', 'b']) == hashlib.sha256(b'a\nb\n').hexdigest()
    assert keys_digest(['ab']) != keys_digest(['a', 'b'])
