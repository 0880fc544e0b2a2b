import pytest
from torch.utils.tensorboard import SummaryWriter

from basicsr_ext.errors import UserError
from basicsr_ext.report.curves import Curve, read_scalars


def write(folder, points, tag='metrics/val/psnr', suffix=''):
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for step, value, seconds in points:
            writer.add_scalar(tag, value, step, walltime=seconds)


def test_all_points_of_one_tag_in_order(tmp_path):
    write(tmp_path, [(step, step / 4, step) for step in range(1, 1501)])
    write(tmp_path, [(7, 99.0, 7)], tag='losses/l_pix', suffix='.other')
    curve = read_scalars(tmp_path, 'metrics/val/psnr')
    assert curve.iterations == tuple(range(1, 1501))
    assert curve.values == tuple(step / 4 for step in range(1, 1501))
    assert read_scalars(str(tmp_path), 'losses/l_pix') == Curve((7,), (99.0,))


def test_a_resumed_run_overrides_what_it_repeats(tmp_path):
    write(tmp_path, [(10, 1.0, 100), (20, 2.0, 101), (30, 3.0, 102)])
    write(tmp_path, [(20, 2.5, 200), (30, 3.5, 201)], suffix='.resumed')
    assert read_scalars(tmp_path, 'metrics/val/psnr') == Curve((10, 20, 30), (1.0, 2.5, 3.5))


def test_an_unknown_tag_names_the_known_ones(tmp_path):
    write(tmp_path, [(1, 1.0, 1)])
    with pytest.raises(UserError, match=r'"metrics/val/ssim", found metrics/val/psnr'):
        read_scalars(tmp_path, 'metrics/val/ssim')


@pytest.mark.parametrize('name', ['.', 'missing'])
def test_a_folder_without_events(tmp_path, name):
    with pytest.raises(UserError, match='expected event files of TensorBoard'):
        read_scalars(tmp_path / name, 'metrics/val/psnr')
