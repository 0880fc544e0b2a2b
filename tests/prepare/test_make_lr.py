"""``basicsr prepare lr``."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import downsample, imresize, mod_crop
from basicsr_ext.prepare.lr import gaussian_noise, make_lr
from basicsr_ext.storage import RawLmdbWriter, open_store


def images_of(path) -> dict[str, np.ndarray]:
    store = open_store(path)
    keys = store.keys()
    return {key: np.array(store.read(key)) for key in keys}


@pytest.mark.parametrize('output', ['low.lmdb', 'low'])
@pytest.mark.parametrize('scale', [2, 3, 4, 8])
def test_equals_the_exact_resize_in_both_kinds_of_output(tmp_path, prepare, lq_folder, crops, output, scale):
    prepare('lr', '-i', lq_folder, '-o', tmp_path / output, '--scale', scale, '--suffix', f'x{scale}')
    low = images_of(tmp_path / output)
    assert list(low) == [f'{key}x{scale}' for key in crops]
    for key, image in crops.items():
        np.testing.assert_array_equal(low[f'{key}x{scale}'], imresize(mod_crop(image, scale), 1 / scale))


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_set5_has_no_differing_pixel(tmp_path, prepare, bench_dir, scale):
    prepare('lr', '-i', bench_dir / 'Set5/HR', '-o', tmp_path / 'LR', '-s', scale, '--suffix', f'x{scale}')
    made, published = images_of(tmp_path / 'LR'), images_of(bench_dir / f'Set5/LR_bicubic/X{scale}')
    assert list(made) == list(published)
    for key, image in published.items():
        assert np.count_nonzero(made[key] != image) == 0, key


def test_double_rounds_once(tmp_path, prepare, lq_folder, crops):
    prepare('lr', '-i', lq_folder, '-o', tmp_path / 'exact.lmdb', '-s', 2)
    prepare('lr', '-i', lq_folder, '-o', tmp_path / 'double.lmdb', '-s', 2, '--double')
    exact, double = images_of(tmp_path / 'exact.lmdb'), images_of(tmp_path / 'double.lmdb')
    for key, image in crops.items():
        expected = np.floor(np.clip(downsample(mod_crop(image, 2) / 255.0, 2), 0, 1) * 255 + 0.5)
        np.testing.assert_array_equal(double[key], expected)
    difference = np.concatenate([(exact[key].astype(int) - double[key]).ravel() for key in crops])
    assert 0.02 < (difference != 0).mean() < 0.4
    assert abs(difference).max() <= 2


def test_16_bits(tmp_path, prepare, crops):
    deep = {key: image.astype(np.uint16) * 257 + 100 for key, image in crops.items()}
    (tmp_path / 'HR').mkdir()
    for key, image in deep.items():
        cv2.imwrite(str(tmp_path / f'HR/{key}.png'), np.ascontiguousarray(image[:, :, ::-1]))
    prepare('lr', '-i', tmp_path / 'HR', '-o', tmp_path / 'LR', '-s', 2)
    for key, image in images_of(tmp_path / 'LR').items():
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, downsample(mod_crop(deep[key], 2), 2))


def test_grey_and_float_stores(tmp_path):
    image = np.random.default_rng(0).random((12, 15, 1), dtype=np.float32)
    with RawLmdbWriter(tmp_path / 'HR.lmdb', channels=1, dtype=np.float32) as writer:
        writer.put('a', image)
    make_lr(tmp_path / 'HR.lmdb', tmp_path / 'LR.lmdb', 3)
    low = images_of(tmp_path / 'LR.lmdb')['a']
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, np.clip(downsample(image.astype(np.float64), 3), 0, 1), atol=1e-6)
    with pytest.raises(UserError, match=r'not float32: write into a store \(a path ending in .lmdb\)'):
        make_lr(tmp_path / 'HR.lmdb', tmp_path / 'LR', 3)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_noise(tmp_path, dtype):
    level = np.iinfo(dtype).max
    with RawLmdbWriter(tmp_path / 'HR.lmdb', channels=3, dtype=dtype) as writer:
        writer.put('grey', np.full((256, 256, 3), level // 2, dtype))
        writer.put('white', np.full((256, 256, 3), level, dtype))
    make_lr(tmp_path / 'HR.lmdb', tmp_path / 'LR.lmdb', 2, noise_sigma=0.02, noise_seed=3)
    low = images_of(tmp_path / 'LR.lmdb')
    noise = low['grey'] / level - (level // 2) / level
    assert low['grey'].dtype == dtype
    assert abs(noise.mean()) < 5e-4
    assert abs(noise.std() - 0.02) < 4e-4
    channels = noise.reshape(-1, 3)
    assert abs(np.corrcoef(channels.T) - np.eye(3)).max() < 0.05  # independent in each channel
    assert low['white'].max() == level
    assert 0.45 < (low['white'] == level).mean() < 0.65  # clipped, not wrapped around


def test_noise_depends_on_seed_and_name_only(tmp_path, folder_of, crops):
    alone = folder_of(tmp_path / 'alone', {'coffee': crops['coffee']})
    together = folder_of(tmp_path / 'together', crops)
    for name, folder, seed in [('a', alone, 0), ('b', together, 0), ('c', alone, 1)]:
        make_lr(folder, tmp_path / f'{name}.lmdb', 2, noise_sigma=0.05, noise_seed=seed)
    first, second, other = (images_of(tmp_path / f'{name}.lmdb')['coffee'] for name in 'abc')
    np.testing.assert_array_equal(first, second)
    assert (first != other).mean() > 0.5
    assert not np.array_equal(gaussian_noise((4, 4, 3), 1, 0, 'a'), gaussian_noise((4, 4, 3), 1, 0, 'b'))


def test_noise_on_double_is_rounded_once(tmp_path, lq_folder, crops):
    make_lr(lq_folder, tmp_path / 'LR.lmdb', 2, double=True, noise_sigma=0.01)
    low = downsample(mod_crop(crops['coffee'], 2) / 255.0, 2)
    noisy = low + gaussian_noise(low.shape, 0.01, 0, 'coffee')
    np.testing.assert_array_equal(images_of(tmp_path / 'LR.lmdb')['coffee'], np.floor(np.clip(noisy, 0, 1) * 255 + 0.5))


def test_the_store_says_how_it_was_made(tmp_path, lq_folder):
    make_lr(lq_folder, tmp_path / 'LR.lmdb', 2, noise_sigma=0.01, noise_seed=5)
    meta = open_store(tmp_path / 'LR.lmdb').meta
    expected = {'kind': 'lr', 'source': 'LR', 'scale': 2, 'double': False, 'noise_sigma': 0.01, 'noise_seed': 5}
    assert {key: meta[key] for key in expected} == expected


@pytest.mark.parametrize('output', ['low.lmdb', 'low'])
def test_a_damaged_image_leaves_nothing(tmp_path, lq_folder, output):
    damaged = lq_folder / 'coffee.png'
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(UserError, match='coffee'):
        make_lr(lq_folder, tmp_path / output, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['LR']


@pytest.mark.parametrize('output', ['low.lmdb', 'low'])
def test_an_interrupted_run_is_gone_on_with(tmp_path, lq_folder, monkeypatch, output):
    make_lr(lq_folder, tmp_path / f'whole_{output}', 2)
    calls = []

    def interrupted(image, factor):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return downsample(image, factor)

    monkeypatch.setattr('basicsr_ext.prepare.lr.downsample', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_lr(lq_folder, tmp_path / output, 2, num_workers=0)
    assert not (tmp_path / output).exists()
    with pytest.raises(UserError, match='double was false, is true'):
        make_lr(lq_folder, tmp_path / output, 2, double=True)
    make_lr(lq_folder, tmp_path / output, 2, num_workers=0)
    assert len(calls) == 3 + 2  # two were done, and are not done again
    made, whole = images_of(tmp_path / output), images_of(tmp_path / f'whole_{output}')
    assert all(np.array_equal(made[key], image) for key, image in whole.items()) and made.keys() == whole.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(['LR', output, f'whole_{output}'])


def test_float_lr_images_keep_what_is_computed(tmp_path, prepare, lq_folder, crops):
    prepare('lr', '-i', lq_folder, '-o', tmp_path / 'low.lmdb', '-s', 2, '--double', '--dtype', 'float32')
    for key, low in images_of(tmp_path / 'low.lmdb').items():
        expected = np.clip(downsample(mod_crop(crops[key] / 255, 2), 2), 0, 1)
        assert low.dtype == np.float32
        np.testing.assert_allclose(low, expected, rtol=0, atol=1e-7)
    with pytest.raises(UserError, match='PNG holds uint8 or uint16'):
        make_lr(lq_folder, tmp_path / 'low', 2, dtype='float32')
    with pytest.raises(UserError, match="dtype: expected one of uint8, uint16, float32, found 'int8'"):
        make_lr(lq_folder, tmp_path / 'low', 2, dtype='int8')


def test_enlarged_again(tmp_path, prepare, lq_folder, crops):
    prepare('lr', '-i', lq_folder, '-o', tmp_path / 'low', '-s', 3, '--enlarge')
    for key, low in images_of(tmp_path / 'low').items():
        np.testing.assert_array_equal(low, imresize(downsample(mod_crop(crops[key], 3), 3), 3))


@pytest.mark.parametrize(('double', 'sigma'), [(True, 0), (True, 0.02), (False, 0.02)])
def test_enlarged_before_anything_is_rounded(tmp_path, lq_folder, crops, double, sigma):
    make_lr(lq_folder, tmp_path / 'low.lmdb', 2, double=double, noise_sigma=sigma, enlarge=True, num_workers=1)
    for key, made in images_of(tmp_path / 'low.lmdb').items():
        image = mod_crop(crops[key], 2)
        low = downsample(image / 255.0 if double else image, 2) / (1.0 if double else 255.0)
        low = low + gaussian_noise(low.shape, sigma, 0, key) if sigma else low
        expected = np.floor(np.clip(imresize(low, 2), 0, 1) * 255 + 0.5)
        np.testing.assert_array_equal(made, expected)
        rounded = np.floor(np.clip(low, 0, 1) * 255 + 0.5) / 255
        assert (expected != np.floor(np.clip(imresize(rounded, 2), 0, 1) * 255 + 0.5)).mean() > 0.05


def test_alpha_is_dropped_with_one_warning(tmp_path, folder_of, crops, prepare, capfd):
    folder_of(tmp_path / 'HR', crops)
    for key in ('coffee', 'rocket'):
        bgra = np.dstack([crops[key][..., ::-1], np.arange(crops[key][..., 0].size).reshape(crops[key].shape[:2])])
        cv2.imwrite(str(tmp_path / f'HR/{key}.png'), bgra.astype(np.uint8))
    prepare('lr', '-i', tmp_path / 'HR', '-o', tmp_path / 'low.lmdb', '-s', 2, '--num_workers', 2)
    message = capfd.readouterr().err
    assert message.count('warning') == 1 and '2 of 4 images have alpha, such as "coffee": it is dropped' in message
    for key, low in images_of(tmp_path / 'low.lmdb').items():
        np.testing.assert_array_equal(low, downsample(mod_crop(crops[key], 2), 2))
    prepare('lmdb', '-i', tmp_path / 'low.lmdb', '-o', tmp_path / 'again.lmdb')
    assert 'alpha' not in capfd.readouterr().err


def test_processes_make_the_same(tmp_path, lq_folder):
    for workers in (1, 3):
        make_lr(lq_folder, tmp_path / f'{workers}.lmdb', 2, num_workers=workers)
    files = [(tmp_path / f'{workers}.lmdb' / 'data.mdb').read_bytes() for workers in (1, 3)]
    assert files[0] == files[1]


def test_bad_arguments(tmp_path, lq_folder, folder_of, crops):
    with pytest.raises(UserError, match=r'1 of 4 images are too small for scale 16: "rocket" \(14x19\)'):
        make_lr(lq_folder, tmp_path / 'low', 16)
    with pytest.raises(UserError, match='scale: expected an integer of at least 2, found 1'):
        make_lr(lq_folder, tmp_path / 'low', 1)
    with pytest.raises(UserError, match='--noise_sigma: expected 0 to 1'):
        make_lr(lq_folder, tmp_path / 'low', 2, noise_sigma=2.55)
    with pytest.raises(UserError, match='--noise_seed: expected'):
        make_lr(lq_folder, tmp_path / 'low', 2, noise_seed=-1)
    with pytest.raises(UserError, match='nowhere'):
        make_lr(tmp_path / 'nowhere', tmp_path / 'low', 2)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty'):
        make_lr(tmp_path / 'empty', tmp_path / 'low', 2)
    existing = folder_of(tmp_path / 'existing', {'a': crops['coffee']})
    with pytest.raises(UserError, match='existing exists'):
        make_lr(lq_folder, existing, 2)
    assert [path.name for path in existing.iterdir()] == ['a.png']
    assert not (tmp_path / 'low').exists()


# ---- Pillow's bicubic, as in PSPL's published evaluation ----------------------------------------------------------------


@pytest.mark.parametrize('channels', [3, 1])
def test_pillow_resizes_hr_images(tmp_path, prepare, folder_of, photos, channels):
    from PIL import Image

    image = photos['coffee'][:81, :66]
    images = {'odd': image, 'even': np.ascontiguousarray(image[:80, :64])}
    folder = folder_of(tmp_path / 'HR', images)
    if channels == 1:
        for key, colours in images.items():
            cv2.imwrite(str(folder / f'{key}.png'), colours[..., 0])
            images[key] = colours[..., :1]
    outputs = ['-o', tmp_path / 'LR.lmdb', '--output_hr', tmp_path / 'crop.lmdb', '--scale', 4]
    prepare('lr', '-i', folder, *outputs, '--resizer', 'pillow')
    prepare('lr', '-i', folder, '-o', tmp_path / 'large.lmdb', '--scale', 4, '--resizer', 'pillow', '--enlarge')
    low, high, large = (images_of(tmp_path / f'{name}.lmdb') for name in ('LR', 'crop', 'large'))
    np.testing.assert_array_equal(high['even'], images['even'])
    for key in images:
        assert high[key].shape == large[key].shape == (80, 64, channels) and low[key].shape == (20, 16, channels)
        whole = Image.fromarray(images[key].squeeze())
        resized = whole.resize((64, 80), Image.BICUBIC)
        small = resized.resize((16, 20), Image.BICUBIC)
        np.testing.assert_array_equal(high[key].squeeze(), np.asarray(resized))
        np.testing.assert_array_equal(low[key].squeeze(), np.asarray(small))
        np.testing.assert_array_equal(large[key].squeeze(), np.asarray(small.resize((64, 80), Image.BICUBIC)))
    assert np.count_nonzero(high['odd'] != images['odd'][:80, :64]) > 1000
    meta = open_store(tmp_path / 'crop.lmdb').meta
    assert (meta['kind'], meta['resizer'], meta['scale']) == ('hr', 'pillow_bicubic', 4)


def test_cropped_hr_images_are_kept(tmp_path, prepare, lq_folder, crops):
    prepare('lr', '-i', lq_folder, '-o', tmp_path / 'low', '--output_hr', tmp_path / 'high', '--scale', 3)
    high = images_of(tmp_path / 'high')
    assert list(high) == list(crops)
    for key, image in crops.items():
        np.testing.assert_array_equal(high[key], mod_crop(image, 3))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'resizer': 'lanczos'}, '--resizer: expected one of matlab, pillow'),
        ({'resizer': 'pillow', 'double': True}, '--resizer: pillow makes 8-bit images without noise'),
        ({'resizer': 'pillow', 'noise_sigma': 0.1}, '--resizer: pillow makes 8-bit images without noise'),
        ({'output_hr': 'low'}, '--output_hr: expected another path than --output'),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, lq_folder, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        make_lr(lq_folder, 'low', 2, num_workers=1, **options)
    assert not (tmp_path / 'low').exists()


def test_pillow_takes_8_bits(tmp_path):
    (tmp_path / 'HR').mkdir()
    cv2.imwrite(str(tmp_path / 'HR/a.png'), np.zeros((8, 8, 3), np.uint16))
    with pytest.raises(UserError, match='--resizer pillow takes 8-bit images, found uint16'):
        make_lr(tmp_path / 'HR', tmp_path / 'LR.lmdb', 2, resizer='pillow', num_workers=1)
