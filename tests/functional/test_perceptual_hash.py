"""Fingerprints of what an image shows."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_ext.functional.perceptual_hash import BITS, hash_distances, perceptual_hash, turned_hashes


@pytest.fixture(scope='module')
def hashes(photos):
    return np.stack([perceptual_hash(photo) for photo in photos.values()])


def test_different_images_differ_in_many_bits(hashes):
    distances = hash_distances(hashes, hashes)
    assert (np.diagonal(distances) == 0).all()
    assert distances[~np.eye(len(hashes), dtype=bool)].min() > 85
    assert set(np.unique(hashes)) == {-1, 1} and hashes.shape[1] == BITS


def test_types_and_channels_do_not_matter(photos):
    image = photos['coffee']
    expected = perceptual_hash(image)[None]
    for same in (image.astype(np.uint16) * 257, image / np.float32(255), image.mean(axis=2, keepdims=True)):
        assert hash_distances(expected, perceptual_hash(same)[None])[0, 0] <= 1


def test_distances_count_bits():
    first = np.ones((1, BITS), np.float32)
    second = first.copy()
    second[0, [3, 7, 200]] = -1
    assert hash_distances(first, np.concatenate([first, second])).tolist() == [[0, 3]]


def test_turned_hashes_are_hashes_of_turned_images(photos, hashes):
    turned = turned_hashes(hashes)
    turns = [
        (0, lambda image: image),
        (1, lambda image: image.transpose(1, 0, 2)),
        (2, lambda image: image[:, ::-1]),
        (4, lambda image: image[::-1]),
        (6, lambda image: image[::-1, ::-1]),
    ]
    for number, turn in turns:
        made = np.stack([perceptual_hash(np.ascontiguousarray(turn(photo))) for photo in photos.values()])
        assert np.diagonal(hash_distances(turned[number], made)).max() <= 4
    assert len({hash_.tobytes() for hash_ in turned[:, 0]}) == 8


def test_flat_images():
    for value in (0, 77, 255):
        assert (perceptual_hash(np.full((30, 40, 3), value, np.uint8)) == -1).all()
