"""Which images belong together, and how they are read."""

import cv2
import numpy as np
import pytest

from basicsr_ext import UserError
from basicsr_ext.evaluation.evaluate import name_methods, name_of
from basicsr_ext.evaluation.images import match_names, open_images
from basicsr_ext.storage import RawLmdbWriter, open_store

SET5 = ['baby', 'bird', 'butterfly', 'head', 'woman']


@pytest.mark.parametrize(
    ('gt', 'ending'),
    [
        (SET5, ''),
        (SET5, '_RCAN_x4'),
        (SET5, 'x4'),
        (['0801', '0802', '0810'], 'x4_EDSR'),
        (['img_1', 'img_10', 'img_100'], '-x2'),
        (['a', 'a_b', 'a_b_c'], '_x2'),
        (['städte/münchen', 'städte/köln'], ' x2'),
    ],
)
def test_names_with_one_ending(gt, ending):
    assert match_names(gt, [key + ending for key in reversed(gt)]) == {key: key + ending for key in gt}


def test_gt_names_with_an_ending_of_their_own():
    gt = [f'{name}_HR_x4' for name in SET5]
    expected = {f'{name}_HR_x4': f'{name}_RCAN_x4' for name in SET5}
    assert match_names(gt, list(expected.values())) == expected
    assert match_names(gt, SET5) == dict(zip(gt, SET5, strict=True))


@pytest.mark.parametrize(
    ('gt', 'found', 'messages'),
    [
        (SET5, [f'{name}_x2' for name in SET5[1:]], ['1 of 5 GT images have no image: "baby".']),
        (SET5, [*SET5, 'lenna'], ['1 of 6 images have no GT image: "lenna".']),
        (SET5, [*SET5, *(f'{name}_x2' for name in SET5)], ['5 of 10 images have no GT image: "baby_x2", "bird_x2"']),
        (
            ['img_1', 'img_2'],
            ['img_10', 'img_20'],
            ['2 of 2 GT images have no image', '2 of 2 images have no GT image'],
        ),
        (
            SET5,
            ['baby_a', 'bird_b', 'butterfly_a', 'head_a', 'woman_a'],
            ['no image: "bird".', 'no GT image: "bird_b".'],
        ),
    ],
)
def test_names_that_do_not_fit(gt, found, messages):
    with pytest.raises(UserError, match='one ending may follow') as error:
        match_names(gt, found)
    assert all(message in str(error.value) for message in messages)


def test_methods_are_named_after_their_folders():
    assert name_methods(['results/RCAN']) == {'RCAN': 'results/RCAN'}
    assert name_methods(['a/x/Set5', 'a/y/Set5/']) == {'x/Set5': 'a/x/Set5', 'y/Set5': 'a/y/Set5/'}
    assert name_methods(['Mine=a/x', 'y.lmdb']) == {'Mine': 'a/x', 'y': 'y.lmdb'}
    with pytest.raises(UserError, match='named twice'):
        name_methods(['a/x', './a/x'])
    with pytest.raises(UserError, match='two methods are called "x"'):
        name_methods(['x=a', 'b/x'])


@pytest.fixture
def folders(tmp_path, photos):
    """GT images of 41x62 pixels, and images of the sizes that x2 and x4 give, of which the first are brighter by 1."""
    image = photos['coffee'][100:141, 100:162]
    write(tmp_path / 'GT' / 'cup.png', image)
    write(tmp_path / 'x2' / 'cup_x2.png', np.minimum(image, 254)[:40, :62] + 1)
    write(tmp_path / 'x4' / 'cup_x4.png', image[:40, :60])
    return tmp_path


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image)


def test_gt_is_cropped_to_a_multiple_of_the_scale(folders):
    gt = open_store(folders / 'GT')
    images = open_images('x2', folders / 'x2', gt, 2)
    assert name_of(images) == folders.name
    pair = images.read('cup')
    expected = gt.read('cup')[:40, :62, ::-1]
    np.testing.assert_array_equal(pair['img2'], expected)
    np.testing.assert_array_equal(pair['img'], np.minimum(expected, 254) + 1)
    whole = open_images('whole', folders / 'GT', gt, 4).read('cup')
    np.testing.assert_array_equal(whole['img'], expected[:40, :60])
    np.testing.assert_array_equal(whole['img2'], expected[:40, :60])


def test_other_sizes_are_refused(folders):
    gt = open_store(folders / 'GT')
    with pytest.raises(UserError, match=r'"cup_x4" is 40x60, expected 41x62\. Give the scale'):
        open_images('x4', folders / 'x4', gt)
    with pytest.raises(UserError, match=r'"cup_x4" is 40x60, expected 40x62\. Check the scale'):
        open_images('x4', folders / 'x4', gt, 2)
    with pytest.raises(UserError, match='smaller than the scale 50'):
        open_images('x4', folders / 'x4', gt, 50)


def test_depths_and_stores_may_differ(folders):
    image = open_store(folders / 'GT').read('cup')
    write(folders / 'deep' / 'cup.png', image.astype(np.uint16) * 257)
    with RawLmdbWriter(folders / 'float.lmdb', channels=3, dtype=np.float32) as writer:
        writer.put('cup', (image / 255).astype(np.float32))
    for path in ('deep', 'float.lmdb'):
        pair = open_images('m', folders / path, open_store(folders / 'GT')).read('cup')
        np.testing.assert_allclose(pair['img'], pair['img2'], atol=1e-4)


def test_grey_images(folders):
    grey = open_store(folders / 'GT').read('cup')[..., 1]
    write(folders / 'grey' / 'cup.png', grey)
    write(folders / 'rgb' / 'cup.png', np.repeat(grey[..., None], 3, axis=2))
    both = open_images('m', folders / 'grey', open_store(folders / 'grey'))
    assert both.read('cup')['img'].shape == (41, 62, 1)
    write(folders / 'rgb' / 'cup.png', np.dstack([grey, grey, grey // 2]))
    of_rgb = open_images('m', folders / 'rgb', open_store(folders / 'grey')).read('cup')
    np.testing.assert_array_equal(of_rgb['img2'], np.repeat(grey[..., None], 3, axis=2))
    with pytest.raises(UserError, match='all images are grey, but GT images in'):
        open_images('m', folders / 'grey', open_store(folders / 'GT'))


def test_grey_images_do_not_depend_on_others(folders):
    """A folder is read in colour where one of its images has colours."""
    image = open_store(folders / 'GT').read('cup')
    for folder in ('grey_gt', 'grey_sr'):
        write(folders / folder / 'cup.png', image[..., 1])
    alone = open_images('m', folders / 'grey_sr', open_store(folders / 'grey_gt')).read('cup')
    blind = open_images('m', folders / 'grey_sr', None).read('cup')
    for folder in ('grey_gt', 'grey_sr'):
        write(folders / folder / 'other.png', image)
    among = open_images('m', folders / 'grey_sr', open_store(folders / 'grey_gt'))
    assert among.read('other')['img'].shape == (41, 62, 3)
    for key, array in among.read('cup').items():
        np.testing.assert_array_equal(array, alone[key])
    np.testing.assert_array_equal(open_images('m', folders / 'grey_sr', None).read('cup')['img'], blind['img'])
    write(folders / 'grey_sr' / 'cup.png', image)  # of a network in colour: as such a test scores it
    pair = open_images('m', folders / 'grey_sr', open_store(folders / 'grey_gt')).read('cup')
    np.testing.assert_array_equal(pair['img2'], np.repeat(image[..., 1:2], 3, axis=2))


def test_alpha_is_left_out(folders):
    image = open_store(folders / 'GT').read('cup')
    alpha = np.full((*image.shape[:2], 1), 9, np.uint8)
    write(folders / 'alpha' / 'cup.png', np.concatenate([image[..., ::-1], alpha], axis=2))
    pair = open_images('m', folders / 'alpha', open_store(folders / 'GT')).read('cup')
    np.testing.assert_array_equal(pair['img'], pair['img2'])
