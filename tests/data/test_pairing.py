import numpy as np
import pytest
from memory_store import MemoryStore

from basicsr_ext import UserError
from basicsr_ext.data import pairing
from basicsr_ext.data.pairing import Source


def source(option, sizes, scale=1, surplus=0, channels=3, dtype=np.uint8):
    store = MemoryStore('folder', {key: np.zeros((*size, channels), dtype) for key, size in sizes.items()})
    return Source(option, store, list(sizes), scale, surplus)


def test_pairs_follow_the_template_and_the_order_of_gt():
    assert pairing.pair_keys(['a', 'b'], ['bx4', 'ax4'], '{}x4') == [('a', 'ax4'), ('b', 'bx4')]


def test_missing_lq_images_are_named_and_counted():
    message = r'^4 of 5 GT images have no LQ image; not found: "bx2", "cx2", "dx2" and 1 more\.$'
    with pytest.raises(UserError, match=message):
        pairing.pair_keys(list('abcde'), ['ax2'], '{}x2')


def test_missing_gt_images_are_named_and_counted():
    with pytest.raises(UserError, match=r'^1 of 2 LQ images have no GT image: "b"\.$'):
        pairing.pair_keys(['a'], ['a', 'b'], '{}')


def test_both_sides_are_reported_together():
    with pytest.raises(UserError, match=r'not found: "a"\. 1 of 1 LQ images have no GT image: "ax4"\.$'):
        pairing.pair_keys(['a'], ['ax4'], '{}')


@pytest.mark.parametrize(
    ('lq', 'template', 'expected'),
    [
        (['s/ax4', 's/a_1x4', 'bx4'], '{}', '{}x4'),
        (['s/ax4', 'bx4'], '{}', '{}x4'),  # one is missing
        (['s/a', 's/a_1', 'b'], '{}x4', '{}'),
        (['LR/s/a', 'LR/s/a_1', 'LR/b'], '{}', 'LR/{}'),
        (['s/a', 's/a_1', 'c'], '{}', None),  # none is better
        (['x', 'y'], '{}', None),
        (['s/a{}', 's/a_1{}', 'b{}'], '{}', None),  # such a template cannot be written
    ],
)
def test_the_template_that_fits_is_found(lq, template, expected):
    assert pairing.found_template(['b', 's/a', 's/a_1'], lq, template) == expected


def test_matching_keys_takes_the_first_list_that_fits():
    assert pairing.matching_keys(['a', 'b'], [['b', 'a']]) == ['b', 'a']
    assert pairing.matching_keys(['a', 'b'], [['ax2', 'bx2'], ['a', 'b']]) == ['a', 'b']


def test_matching_keys_names_what_differs_from_the_first_list():
    message = r'^1 of 2 images are not in it: "ax2"\. 2 of its 3 images are not in the dataset: "c", "d"\.$'
    with pytest.raises(UserError, match=message):
        pairing.matching_keys(['bx2', 'd', 'c'], [['ax2', 'bx2'], ['a', 'b']])


def test_sizes_may_exceed_by_the_surplus_only():
    sizes = [(4, 5)]
    for size in ((8, 10), (9, 11), (9, 10)):
        pairing.check_sizes(source('dataroot_gt', {'a': size}, scale=2, surplus=1), sizes)
    for size in ((10, 10), (8, 12), (7, 10), (8, 9)):
        with pytest.raises(UserError, match=f'"a" is {size[0]}x{size[1]}, expected 8x10'):
            pairing.check_sizes(source('dataroot_gt', {'a': size}, scale=2, surplus=1), sizes)


def test_wrong_sizes_are_counted():
    wrong = source('dataroot_gt', dict.fromkeys('abcde', (9, 9)), scale=2)
    message = (
        r'dataroot_gt \(folder\): 5 of 5 images are not 2 times as large as their LQ image, .*"c" is 9x9.* and 2 more'
    )
    with pytest.raises(UserError, match=message):
        pairing.check_sizes(wrong, [(4, 4)] * 5)


def test_images_smaller_than_the_crop_are_named_with_the_crop_that_fits():
    lq = source('dataroot_lq', {'a': (10, 10), 'b': (7, 12), 'c': (12, 6)})
    pairing.check_crop(lq, [(10, 10), (7, 12), (12, 6)], 6, 4, 'gt_size')
    message = r'gt_size: 32 needs LQ images of at least 8x8 .* 2 of 3 .*: "b" is 7x12, "c" is 12x6\..* to 24 or less'
    with pytest.raises(UserError, match=message):
        pairing.check_crop(lq, [(10, 10), (7, 12), (12, 6)], 8, 4, 'gt_size')


def test_channels_must_agree():
    rgb, grey = source('dataroot_lq', {'a': (2, 2)}), source('dataroot_gt', {'a': (2, 2)}, channels=1)
    pairing.check_channels({'lq': rgb, 'gt': rgb})
    with pytest.raises(UserError, match=r'dataroot_gt \(folder\) has images of 1 channels, but dataroot_lq .* of 3'):
        pairing.check_channels({'lq': rgb, 'gt': grey})


def test_uint8_names_the_store_of_another_type():
    fine, wrong = source('dataroot_lq', {'a': (2, 2)}), source('dataroot_gt', {'a': (2, 2)}, dtype=np.uint16)
    pairing.check_uint8({'lq': fine})
    with pytest.raises(UserError, match=r'dataroot_gt \(folder\) holds uint16 images, but output: uint8'):
        pairing.check_uint8({'lq': fine, 'gt': wrong})
