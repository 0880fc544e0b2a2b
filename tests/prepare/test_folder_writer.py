"""Folders of PNGs that appear complete or not at all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.prepare.folder_writer import ImageFolderWriter


def test_images_are_rgb_and_appear_at_the_end(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    with ImageFolderWriter(tmp_path / 'deep/out', dtype=np.uint8) as writer:
        writer.put('a', image)
        writer.put('scene/b', image[:, :, :1])
        assert not (tmp_path / 'deep/out').exists()
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'deep/out/a.png'))[:, :, ::-1], image)
    grey = cv2.imread(str(tmp_path / 'deep/out/scene/b.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(grey, image[:, :, 0])
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['out']


def test_what_a_killed_run_left_is_replaced(tmp_path):
    (tmp_path / 'out.partial').mkdir()
    (tmp_path / 'out.partial/old.png').touch()
    with ImageFolderWriter(tmp_path / 'out', dtype=np.uint8) as writer:
        writer.put('new', np.zeros((2, 2, 3), np.uint8))
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['new.png']


def put_twice(path):
    with ImageFolderWriter(path, dtype='uint8') as writer:
        writer.put('a', np.zeros((2, 2, 3), np.uint8))
        writer.put('a', np.zeros((2, 2, 3), np.uint8))


def interrupted(path):
    with ImageFolderWriter(path, dtype='uint8') as writer:
        writer.put('a', np.zeros((2, 2, 3), np.uint8))
        raise KeyboardInterrupt


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / 'out')
    assert list(tmp_path.iterdir()) == []


def test_one_name_twice(tmp_path):
    with pytest.raises(UserError, match='two images are called "a"'):
        put_twice(tmp_path / 'out')
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'writing failed \(Not a directory\)'):
        put_twice(tmp_path / 'file' / 'out')


def test_a_folder_that_appeared_meanwhile_is_kept(tmp_path):
    writer = ImageFolderWriter(tmp_path / 'out', dtype='uint8')
    writer.__enter__()
    (tmp_path / 'out').mkdir()
    with pytest.raises(UserError, match='out exists'):
        writer.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ['out']
