"""``basicsr evaluate`` as a user runs it."""

import json
import shutil

import cv2
import numpy as np
import pytest

from basicsr_ext.cli.main import main
from basicsr_ext.functional.resize import upsample
from basicsr_ext.storage import RawLmdbWriter, open_store

# ../bench's README: RCAN's published images, and bicubic enlargement of the uint8 LR images
RCAN = {2: (38.274, 0.9614), 3: (34.742, 0.9299), 4: (32.634, 0.9002)}
BICUBIC = {2: 33.67, 3: 30.40, 4: 28.43}


@pytest.fixture
def sets(tmp_path, photos):
    """Two GT images, a method that is brighter by 1, and one that is perfect."""
    for name in ('chelsea', 'coffee'):
        image = np.clip(photos[name][50:100, 50:114], 0, 254)[..., ::-1]
        write(tmp_path / 'Set2' / 'HR' / f'{name}.png', image)
        write(tmp_path / 'Brighter' / f'{name}_x2.png', image + 1)
        write(tmp_path / 'Perfect' / f'{name}.png', image)
    return tmp_path


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def run(capsys, *arguments):
    """Exit status, what was printed, and what was printed as error."""
    status = main(['evaluate', *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_published_numbers(bench_dir, tmp_path, capsys, scale):
    lr = open_store(bench_dir / 'Set5' / 'LR_bicubic' / f'X{scale}')
    for key in lr.keys():
        write(tmp_path / 'bicubic' / f'{key}.png', upsample(lr.read(key), scale)[..., ::-1])
    published = bench_dir / 'Set5_SR_fixtures' / 'RCAN' / f'x{scale}'
    status, printed, _ = run(
        capsys, '--gt', bench_dir / 'Set5' / 'HR', '--sr', f'RCAN={published}', '--sr', tmp_path / 'bicubic',
        '--scale', scale, '-o', tmp_path / 'out', '--num_workers', 0,
    )  # fmt: skip
    assert status == 0
    rcan, bicubic = json.loads((tmp_path / 'out' / 'metrics.json').read_text())['results']
    assert (rcan['dataset'], rcan['method'], bicubic['method']) == ('Set5', 'RCAN', 'bicubic')
    assert rcan['mean']['PSNR'] == pytest.approx(RCAN[scale][0], abs=0.001)
    assert rcan['mean']['SSIM'] == pytest.approx(RCAN[scale][1], abs=1e-4)
    assert bicubic['mean']['PSNR'] == pytest.approx(BICUBIC[scale], abs=0.0055)  # published with two digits
    assert f'{RCAN[scale][0]:.2f}' in printed


@pytest.mark.parametrize(('arguments', 'noted'), [([], True), (['--scale', 2], False), (['--crop_border', 0], False)])
def test_a_note_where_numbers_are_not_as_published(sets, capsys, arguments, noted):
    _, printed, _ = run(
        capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect', '--num_workers', 0, *arguments
    )  # fmt: skip
    assert ('Without --scale no border is left out' in printed) == noted


def test_table_and_files(sets, capsys):
    out = sets / 'out'
    status, printed, _ = run(
        capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Brighter', sets / 'Perfect', '--rgb', '-o', out,
        '--crop_border', 1, '--num_workers', 2,
    )  # fmt: skip
    assert status == 0
    assert printed.splitlines()[:4] == [
        'Set2: Brighter     PSNR    SSIM',
        f'chelsea         48.1308  {ssim_in(out, "Brighter", "chelsea"):.4f}',
        f'coffee          48.1308  {ssim_in(out, "Brighter", "coffee"):.4f}',
        f'mean            48.1308  {ssim_in(out, "Brighter", None):.4f}',
    ]
    assert ['Perfect', 'inf', '1.0000'] in [line.split() for line in printed.splitlines()]
    assert 'PSNR (crop_border 1, test_y_channel false)' in printed
    assert sorted(path.name for path in out.iterdir()) == ['metrics.csv', 'metrics.json', 'metrics.md']
    settings = json.loads((out / 'metrics.json').read_text())['settings']
    assert settings['metrics']['PSNR'] == {'type': 'PSNR', 'crop_border': 1, 'test_y_channel': False}


def ssim_in(out, method, image):
    results = json.loads((out / 'metrics.json').read_text())['results']
    (found,) = (result for result in results if result['method'] == method)
    return (found['images'][image] if image else found['mean'])['SSIM']


def test_gt_in_a_store(sets, capsys):
    folder = open_store(sets / 'Set2' / 'HR')
    with RawLmdbWriter(sets / 'Set2.lmdb', channels=3, dtype=np.uint8) as writer:
        for key in folder.keys():
            writer.put(key, folder.read(key))
    of_folder, of_store = (
        run(capsys, '--gt', gt, '--sr', sets / 'Brighter')[1] for gt in (sets / 'Set2' / 'HR', sets / 'Set2.lmdb')
    )
    assert of_store == of_folder != ''


def test_luminance_is_the_default(sets, capsys):
    """All channels brighter by 1 are 219/255 brighter in luminance."""
    status, printed, _ = run(capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Brighter', '--metrics', 'psnr')
    expected = 20 * np.log10(255 / (219 / 255))
    assert status == 0 and f'mean            {expected:.4f}' in printed


def test_metrics_with_options(sets, bench_dir, capsys):
    pytest.importorskip('lpips', reason='needs the extra metrics')
    weights = bench_dir / 'weights' / 'lpips' / 'squeeze.backbone.pth'
    status, printed, _ = run(
        capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect', '--crop_border', 2, '--num_workers', 0,
        '--metrics', 'ssim', 'calculate_psnr', f'{{type: LPIPS, net: squeeze, backbone_path: {weights}}}',
    )  # fmt: skip
    assert status == 0
    assert printed.splitlines()[0].split() == [
        'Set2:',
        'Perfect',
        'SSIM',
        'calculate_psnr',
        'LPIPS',
        '(net',
        'squeeze)',
    ]
    assert 'LPIPS (net squeeze) (net squeeze, backbone_path' in printed and 'crop_border 0' in printed


def test_images_without_gt(photos, tmp_path, capsys):
    write(tmp_path / 'Real' / 'city.png', photos['motorcycle_left'][100:204, 150:352, ::-1])
    status, printed, _ = run(capsys, '--sr', tmp_path / 'Real', '--metrics', 'NIQE')
    assert status == 0 and printed.startswith('Real: Real')
    status, _, error = run(capsys, '--sr', tmp_path / 'Real', '--metrics', 'niqe', 'ssim')
    assert status == 2 and '--gt: SSIM compare with GT images' in error


def test_alpha_is_left_out_with_a_message(sets, capsys):
    path = sets / 'Perfect' / 'coffee.png'
    image = cv2.imread(str(path))
    write(path, np.concatenate([image, image[..., :1]], axis=2))
    status, printed, error = run(capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect')
    assert status == 0 and 'mean' in printed and 'inf' in printed
    assert 'alpha is left out, of 1 of 2 images, such as "coffee"' in error


def _drop(sets):
    (sets / 'Perfect' / 'coffee.png').unlink()


def _cut_off(sets):
    path = sets / 'Perfect' / 'coffee.png'
    path.write_bytes(path.read_bytes()[:1500])


def _no_image(sets):
    (sets / 'Perfect' / 'coffee.png').write_bytes(b'nothing')


def _other_size(sets):
    write(sets / 'Perfect' / 'coffee.png', np.zeros((25, 32, 3), np.uint8))


def _empty(sets):
    shutil.rmtree(sets / 'Perfect')
    (sets / 'Perfect').mkdir()


def _mixed_depths(sets):
    write(sets / 'Perfect' / 'coffee.png', np.zeros((50, 64, 3), np.uint16))


def _grey(sets):
    for path in (sets / 'Perfect').iterdir():
        write(path, cv2.imread(str(path))[..., 0])


@pytest.mark.parametrize(
    ('damage', 'arguments', 'message'),
    [
        (_drop, [], '1 of 2 GT images have no image: "coffee"'),
        (_cut_off, [], 'coffee.png: image "coffee": '),
        (_no_image, [], 'coffee.png: not an image'),
        (_other_size, [], '"coffee" is 25x32, expected 50x64'),
        (_empty, [], 'expected images'),
        (_mixed_depths, [], 'all images of a set must have the same depth'),
        (_grey, [], 'all images are grey, but GT images'),
        (None, ['--metrics', 'pnsr'], 'did you mean "PSNR"?'),
        (None, ['--metrics', 'psnr', 'PSNR'], 'PSNR is named twice'),
        (None, ['--metrics', '{type: LPIPS'], '--metrics {type: LPIPS, line 1: not valid YAML'),
        (None, ['--metrics', '{net: alex}'], 'expected a name or a block'),
        (None, ['--metrics', '{type: SSIM, border: 3}'], '--metrics SSIM (border 3).border: unknown option of SSIM'),
        (None, ['--scale', '0'], '--scale: expected an integer of at least 1'),
        (None, ['--crop_border', '-1'], 'crop_border: expected a whole number'),
        (None, ['--crop_border', '25'], 'image "chelsea": PSNR: crop_border: 25 leaves nothing of an image of 50x64'),
        (None, ['--num_workers', '-1'], 'num_workers: expected 0 or a larger integer'),
        (None, ['--sr', 'nowhere'], 'nowhere: expected a folder of images or an LMDB directory'),
    ],
)
def test_one_clear_error_and_nothing_written(sets, capsys, damage, arguments, message):
    if damage is not None:
        damage(sets)
    status, printed, error = run(
        capsys,
        '--gt',
        sets / 'Set2' / 'HR',
        '--sr',
        sets / 'Perfect',
        '--num_workers',
        0,
        '-o',
        sets / 'out',
        *arguments,
    )
    assert status == 2 and printed == ''
    assert message in error and '\nbasicsr evaluate: error: ' in f'\n{error}' and 'Traceback' not in error
    assert not (sets / 'out').exists()


def test_an_error_in_a_worker(sets, capsys):
    for name in ('a', 'b', 'c'):
        shutil.copy(sets / 'Set2' / 'HR' / 'coffee.png', sets / 'Set2' / 'HR' / f'{name}.png')
        shutil.copy(sets / 'Set2' / 'HR' / 'coffee.png', sets / 'Perfect' / f'{name}.png')
    _cut_off(sets)
    status, _, error = run(capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect', '--num_workers', 2)
    assert status == 2 and 'image "coffee"' in error and 'Traceback' not in error


def test_an_earlier_report_stays(sets, capsys):
    """Refused before anything is computed; what a test wrote is such a report too."""
    arguments = ['--gt', sets / 'Set2' / 'HR', '--num_workers', 0, '--metrics', 'psnr', '-o', sets / 'out']
    assert run(capsys, *arguments, '--sr', sets / 'Perfect')[0] == 0
    (sets / 'out' / 'metrics.md').unlink()
    before = {path.name: path.read_text() for path in (sets / 'out').iterdir()}
    status, printed, error = run(capsys, *arguments, '--sr', sets / 'Brighter')
    assert status == 2 and printed == '' and f'{sets / "out" / "metrics.json"}, ' in error
    assert 'metrics.csv exist already. Choose another folder (-o), or remove them.' in error
    assert {path.name: path.read_text() for path in (sets / 'out').iterdir()} == before


def test_output_is_a_file(sets, capsys):
    (sets / 'out').touch()
    status, _, error = run(capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect', '-o', sets / 'out')
    assert status == 2 and 'is a file' in error
    status, _, error = run(capsys, '--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect', '-o', sets / 'scores.json')
    assert status == 2 and 'found the name of a file (.json)' in error and not (sets / 'scores.json').exists()


def test_places_that_cannot_be_written(sets, capsys, monkeypatch):
    arguments = ['--gt', sets / 'Set2' / 'HR', '--sr', sets / 'Perfect', '--num_workers', 0, '-o']
    status, _, error = run(capsys, *arguments, '/proc/out')
    assert status == 2 and 'output /proc/out: ' in error and 'Traceback' not in error

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('basicsr_ext.report.results.os.fsync', full)
    status, _, error = run(capsys, *arguments, sets / 'out')
    assert status == 2 and 'writing failed (No space left on device)' in error
    assert list((sets / 'out').iterdir()) == []
