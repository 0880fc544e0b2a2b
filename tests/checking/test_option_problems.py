"""Wrong names, keys, values and files: one problem for each, all of them at once, before anything is made."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from option_checks import changed, problems, report_on
from run_helpers import eco_options, gan_options, sr_options, write_centroids, write_options, write_pairs, write_weights

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.checking import check_options
from basicsr_ext.checking.dataset_contents import Contents
from basicsr_ext.checking.saved_images import check_saved_images
from basicsr_ext.cli.main import main
from basicsr_ext.options.source import read_source


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos) -> Path:
    """A folder with tiny images and their centroids; read only."""
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos)
    write_centroids(root)
    return root


def test_valid_options_have_no_problems(images):
    for options in (sr_options(images), gan_options(images), eco_options(images)):
        report = report_on(options, images)
        assert (report.problems, report.warnings) == ([], [])


# ---- one problem for each mistake ------------------------------------------------------------------------------------


def installed(name: str) -> types.ModuleType:
    """A package that seems to be installed."""
    package = types.ModuleType(name)
    package.__spec__ = ModuleSpec(name, None, origin=f'/packages/{name}/__init__.py')
    return package


@pytest.mark.parametrize(
    ('path', 'value', 'expected'),
    [
        # the whole file
        ('nane', 'x', 'unknown option of SRModel; did you mean "name"?'),
        ('name', 'a/b', "expected a name that can be a folder (no slashes, at most 150 characters), found 'a/b'."),
        ('name', ..., 'this option is required, and is missing'),
        ('model_type', 'SwinIRModel', 'window_size: this option is required by SwinIRModel, and is missing'),
        ('model_type', 'SRModle', "expected the name of a registered model, found 'SRModle'; did you mean \"SRModel\"?"),
        ('scale', 2.5, 'expected a whole number from 1 to 64, found 2.5.'),
        ('manual_seed', -1, 'expected a whole number from 0 to 4,000,000,000 (or ~), found -1.'),
        ('num_gpu', 'two', 'expected auto, or a number of GPUs from 0 (the CPU) on'),
        ('network_d', {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3}, 'unknown option of SRModel'),
        ('dist_params', {'prot': 1}, 'dist_params.prot: unknown option of this block; did you mean "port"?'),
        # datasets
        ('datasets.train', ..., 'training needs this block, and there is none.'),
        ('datasets', [1], 'expected a block of options, found [1].'),
        ('datasets.train.type', 'PairedImagesDataset', 'did you mean "PairedImageDataset"?'),
        ('datasets.train.gt_sise', 16, 'unknown option of PairedImageDataset; did you mean "gt_size"?'),
        ('datasets.train.gt_size', '16', "expected a whole number from 1 to 65,536, found '16'."),
        ('datasets.train.use_hflip', ..., 'this option is required by PairedImageDataset'),
        ('datasets.train.batch_size_per_gpu', 2.0, 'expected a whole number from 1 to 1,000,000'),
        ('datasets.train.num_worker_per_gpu', 10**6, 'expected a whole number from 0 to 256'),
        ('datasets.train.io_backend.type', 'disc', 'expected the name of a backend'),
        ('datasets.train.io_backend.path', 'x', 'unknown option of the backend disk'),
        ('datasets.train.prefetch_mode', 'gpu', "expected one of cpu, cuda (or ~), found 'gpu'."),
        ('datasets.train.mean', [0.5, 0.5, 0.5], 'expected both mean and std, or neither.'),
        ('datasets.val.filename_tmpl', 'x2', 'expected a text with {} once'),
        # networks
        ('network_g.type', 'EDRS', 'expected the name of a registered network, found \'EDRS\'; did you mean "EDSR"?'),
        ('network_g.type', ..., 'this option is required, and is missing'),
        ('network_g.type', ['EDSR'], "expected the name of a class or function, found ['EDSR']."),
        ('network_g.num_blocks', 2, 'unknown option of EDSR; did you mean "num_block"?'),
        ('network_g.num_in_ch', ..., 'this option is required by EDSR, and is missing'),
        ('network_g.num_feat', 'many', "expected a number, found 'many'."),
        ('network_g.num_feat', -4, 'EDSR cannot be built with these options (RuntimeError: '),
        ('network_g.num_block', 10**9, 'expected a whole number from 0 to 1,000, found 1000000000.'),
        ('network_g.rgb_mean', [0.5, 'x'], "expected a list, each a number, found [0.5, 'x']."),
        ('network_g.num_feat', 10**6, 'expected weights that fit into memory'),
        ('network_g.num_out_ch', 5, 'EDSR does not take images of 3x8x8 ('),
        ('network_g.num_in_ch', 4, 'EDSR does not take images of 3x8x8 (a convolution expects 4 channels, and gets 3).'),
        ('network_g.upscale', 4, 'EDSR makes images of 3x32x32 out of LQ images of 3x8x8 as datasets.train has'),
        # losses
        ('train.pixel_opt.type', 'L1', 'expected the name of a registered loss, found \'L1\'; did you mean "L1Loss"?'),
        ('train.pixel_opt.los_weight', 1, 'unknown option of L1Loss; did you mean "loss_weight"?'),
        ('train.pixel_opt.loss_weight', '1e-2', "expected a number, found '1e-2'."),
        ('train.pixel_opt.reduction', 'median', 'L1Loss cannot be built with these options (Unsupported reduction mode'),
        ('train.pixel_opt', None, 'SRModel needs a loss: expected pixel_opt or perceptual_opt, found neither.'),
        ('train.pixel_op', {'type': 'L1Loss'}, 'unknown option of SRModel; did you mean "pixel_opt"?'),
        ('train.perceptual_opt', {'type': 'PerceptualLoss', 'layer_weights': {'conv5_5': 1}},
         'train.perceptual_opt.layer_weights.conv5_5: vgg19 has no such layer; did you mean "conv5_4"?'),
        ('train.perceptual_opt', {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}, 'criterion': 'l2'},
         "train.perceptual_opt.criterion: expected l1 or fro, found 'l2'."),
        ('train.perceptual_opt', {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}, 'vgg_type': 'vgg29'},
         'train.perceptual_opt.vgg_type: unknown VGG \'vgg29\'; did you mean "vgg19"?'),
        ('train.pixel_opt', {'type': 'GANLoss', 'gan_type': 'vanilla'}, 'expected a loss such as L1Loss, found GANLoss'),
        ('train.pixel_opt.reduction', 'none', 'expected mean or sum, since training needs a single number, found none.'),
        ('train.perceptual_opt', {'type': 'FeatureLoss', 'vgg_weights': '/lost.pth', 'layer_weights': {'relu3_4': 1}},
         '/lost.pth'),
        ('train.pixel_opt.loss_weight', 10**30, 'train.pixel_opt.loss_weight: expected a number, found 1000'),
        # optimizers and schedulers
        ('train.optim_g.type', 'LBFGS', 'expected an optimizer that steps once a gradient, found LBFGS.'),
        ('train.optim_g.type', 'Adamm', 'Optimizer Adamm: expected a class of torch.optim or pytorch_optimizer'),
        ('train.optim_g.beta', [0.9, 0.99], 'unknown option of Adam; did you mean "betas"?'),
        ('train.optim_g.betas', 0.9, 'expected a list, each a number, found 0.9.'),
        ('train.optim_g.betas', [0.9, 1.5], 'Optimizer Adam: Invalid beta parameter at index 1: 1.5'),
        ('train.optim_g.lr', -1e-4, 'expected a number from 0 on, found -0.0001.'),
        ('train.optim_g.lr', ..., 'this option is required by Adam, and is missing'),
        ('train.optim_g', ..., 'this option is required by SRModel, and is missing'),
        ('train.scheduler.type', 'MultistepLR', 'Scheduler MultistepLR'),
        ('train.scheduler.milestone', [1], 'unknown option of MultiStepRestartLR; did you mean "milestones"?'),
        ('train.scheduler.milestones', ['x'], "expected a list, each a whole number from 0 on, found ['x']."),
        ('train.scheduler.restarts', [1, 2], 'Scheduler MultiStepLR: restarts and their weights do not match'),
        ('train.scheduler', ..., 'this option is required by SRModel, and is missing'),
        # train, val, logger, path
        ('train.total_iter', 0, 'expected a whole number from 1 on, found 0.'),
        ('train.total_iter', 2.5, 'expected a whole number from 1 on, found 2.5.'),
        ('train.ema_decai', 0.9, 'unknown option of SRModel; did you mean "ema_decay"?'),
        ('train.ema_decay', 1.5, 'expected a number from 0 to 1, found 1.5.'),
        ('val.val_freq', ..., 'this option is required, and is missing'),
        ('val.save_img', 'no', "expected true or false, found 'no'."),
        ('val.metrics.psnr.type', 'psnr', 'expected the name of a registered metric'),
        ('val.metrics.psnr.crop_boarder', 1, 'unknown option of calculate_psnr; did you mean "crop_border"?'),
        ('val.metrics.psnr.crop_border', ..., 'this option is required by calculate_psnr, and is missing'),
        ('val.metrics.psnr.crop_border', -1, 'expected a whole number from 0 to 10,000, found -1.'),
        ('val.metrics.psnr.better', 'bigger', "expected one of higher, lower, found 'bigger'."),
        ('val.metrics.psnr.type', 'calculate_psnr_pt', 'takes tensors, and validation gives arrays: use calculate_psnr.'),
        ('logger.print_freq', 0, 'expected a whole number from 1 on, found 0.'),
        ('logger.wandb', {'project': 'x'}, 'logger.use_tb_logger: expected true'),
        ('logger.keep_best', 'ssim', "expected the name of a score of val.metrics, found ssim; known: psnr."),
        ('path.pretrain_network', 'x', 'unknown option of this block; did you mean "pretrain_network_g"?'),
        ('path.strict_load_g', 1, 'expected true or false, found 1.'),
        # files
        ('path.pretrain_network_g', 'lost.pth', 'expected a file of weights, found nothing at lost.pth, seen from'),
        ('path.pretrain_network_g', '/', 'expected a file of weights, found the folder /.'),
        ('datasets.train.dataroot_gt', '/lost', 'expected a folder of images or an LMDB, found nothing at /lost.'),
        ('datasets.train.meta_info_file', '/lost.txt', 'expected a file, found nothing at /lost.txt.'),
    ],
)  # fmt: skip
def test_one_problem_for_a_mistake(images, path, value, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', installed('wandb'))
    found = problems(changed(sr_options(images), path, value), images)
    assert len(found) == 1 and expected in found[0], found
    assert found[0].startswith(path.rpartition('.')[0] or path) or path == 'model_type'


@pytest.mark.parametrize(
    ('path', 'value', 'expected'),
    [
        ('train.eco.objectiv', 'eco', 'unknown option; did you mean "objective"?'),
        (
            'train.eco.schedule',
            {'type': 'linear', 'ende': 3},
            'train.eco.schedule.ende: unknown option; did you mean "end"?',
        ),
        ('train.eco.noise_sigma', -1, 'input should be greater than or equal to 0, found -1.'),
        ('train.eco', 3, 'expected a block of options, found 3.'),
        (
            'train.eco.teacher',
            {'network': {'type': 'EDSR'}},
            'train.eco.teacher.weights: this option is required, and is missing.',
        ),
        ('train.grad_clip', {'value': 1, 'norm': 2}, 'expected exactly one of "value" and "norm"'),
        ('train.guard', {'factr': 5}, 'train.guard.factr: unknown option; did you mean "factor"?'),
        ('train.precision', 'fp8', "input should be 'fp32', 'tf32', 'bf16' or 'fp16', found 'fp8'."),
        ('train.ema_decay', 2, 'input should be less than or equal to 1, found 2.'),
        ('train.gan_opt', {'type': 'GANLoss'}, 'unknown option of ECOModel'),
        ('datasets.train.outptu', 'uint8', 'unknown option; did you mean "output"?'),
        ('datasets.train.gt_size', 15, 'expected a multiple of scale (2), found 15.'),
        (
            'datasets.train.dataroot_centroid',
            ...,
            'datasets.train.dataroot_centroid: this option is required, and is missing.',
        ),
        (
            'datasets.train.dataroot_centroid',
            '/lost',
            'datasets.train.dataroot_centroid: expected a folder of images or an LMDB',
        ),
        (
            'train.scheduler_g',
            {'type': 'MultiStepLR'},
            'train.scheduler_g.milestones: this option is required by MultiStepRestartLR',
        ),
    ],
)
def test_typed_structures_of_our_classes(images, path, value, expected):
    found = problems(changed(eco_options(images), path, value), images)
    assert any(text.startswith(path) and expected in text for text in found), found


def test_networks_within_networks(images, capfd):
    options = sr_options(images)
    stage = options['network_g']
    options['network_g'] = {'type': 'LFCSR', 'stage_o': dict(stage), 'stage_p': {'type': 'CliqueRefiner'}}
    assert problems(options, images) == []
    del options['network_g']['stage_p']
    assert problems(options, images) == []
    options['network_g']['stage_o']['num_fee'] = 4
    options['network_g']['stage_p'] = {'num_feat': 4}
    assert problems(options, images) == [
        'network_g.stage_o.num_fee: unknown option of EDSR; did you mean "num_feat"?',
        'network_g.stage_p.type: this option is required, and is missing: expected the name of a class or function.',
    ]
    options['network_g'] = {'type': 'LFCSR', 'stage_o': {**stage, 'num_feat': -4}, 'stage_p': 3}
    found = problems(options, images)
    assert [text.partition(': ')[0] for text in found] == ['network_g.stage_p', 'network_g.stage_o']
    options['network_g'] = {'type': 'LFCSR', 'stage_o': {'type': 'LFCSR', 'stage_o': {'type': 'EDRS'}}}
    assert problems(options, images)[0].startswith(
        'network_g.stage_o.stage_o.type: expected the name of a registered network'
    )
    assert capfd.readouterr() == ('', '')  # BasicSR logs each network that it builds


def test_players_and_networks_that_may_be_there(images):
    """A model of another package says what it needs as ours do; here this file is that package."""
    from basicsr.utils.registry import MODEL_REGISTRY

    from basicsr_ext.models.training_model import TrainingModel

    @MODEL_REGISTRY.register()
    class AskingLittleModel(TrainingModel):
        optional_network_names = ('d',)
        player_names = ()
        optional_player_names = ('g', 'd')

    options = sr_options(images, model_type='AskingLittleModel')
    del options['train']['optim_g'], options['train']['scheduler']
    assert problems(options, images) == []
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
    options['train'].update(
        optim_d={'type': 'Adam', 'lr': 1e-3}, scheduler_d={'type': 'MultiStepLR', 'milestones': [3]}
    )
    assert problems(options, images) == []
    options['train'].update(optim_g={'type': 'Adam'}, optim_x={'type': 'Adam', 'lr': 1})
    options['train']['scheduler_d']['milestone'] = [1]
    options['network_d']['num_fee'] = 1
    report = report_on(options, images)
    assert sorted('.'.join(problem.path) for problem in report.problems) == [
        'network_d.num_fee', 'train.optim_g.lr', 'train.scheduler', 'train.scheduler_d.milestone',
    ]  # fmt: skip
    assert ['.'.join(warning.path) for warning in report.warnings] == ['train.optim_x']


def test_models_of_other_packages_say_their_own_losses(images):
    from basicsr.utils.registry import MODEL_REGISTRY
    from pydantic import Field

    from basicsr_ext.models.training_model import TrainingModel

    @MODEL_REGISTRY.register()
    class EdgeModel(TrainingModel):
        loss_keys = ('edge_opt',)
        train_blocks = {'edge_width': Annotated[int, Field(ge=1)]}

    options = sr_options(images, model_type='EdgeModel')
    options['train'].update(edge_opt=options['train'].pop('pixel_opt'), edge_width=0)
    assert problems(options, images) == [
        'train.edge_width: input should be greater than or equal to 1, found 0.',
    ]
    options['train']['edge_width'] = 1
    report = report_on(options, images)
    assert report.problems == [] and report.warnings == []
    options['train']['edge_opt']['type'] = 'L1Los'
    assert problems(options, images)[0].startswith('train.edge_opt.type: expected the name of a registered loss')
    options['train']['pixel_opt'] = options['train'].pop('edge_opt')
    assert 'EdgeModel needs a loss: expected edge_opt' in problems(options, images)[0]
    # it may feed its networks with other than the data's images
    options = sr_options(images, model_type='EdgeModel')
    options['train'].update(edge_opt=options['train'].pop('pixel_opt'))
    options['network_g']['num_in_ch'] = 4
    report = report_on(options, images)
    assert report.problems == []
    assert 'EDSR does not take images of 3x8x8' in str(report.warnings[0])


def test_packages_that_are_not_installed(images, monkeypatch):
    options = changed(sr_options(images), 'logger.use_tb_logger', True)
    options['logger']['wandb'] = {'project': 'x'}
    monkeypatch.setitem(sys.modules, 'wandb', installed('wandb'))
    assert problems(options, images) == []
    package = installed('wandb')
    package.__spec__.origin = None  # a mere folder of that name
    monkeypatch.setitem(sys.modules, 'wandb', package)
    expected = 'logger.wandb.project: this needs the package wandb, which is not installed: pip install wandb.'
    assert problems(options, images) == [expected]


def test_an_unknown_model_hides_nothing(images):
    options = sr_options(images, model_type='SRModell')
    options['train']['pixel_opt']['type'] = 'L1Los'
    options['train']['optim_g']['type'] = 'Adamm'
    options['train']['scheduler']['type'] = 'Nope'
    options['train']['foo'] = options['val']['baz'] = options['bar'] = 1
    found = {text.partition(': ')[0] for text in problems(options, images)}
    assert found == {
        'model_type', 'train.pixel_opt.type', 'train.optim_g.type', 'train.scheduler.type', 'train.foo', 'val.baz', 'bar'
    }  # fmt: skip
    options['model_type'] = 'zzz'
    assert {text.partition(': ')[0] for text in problems(options, images)} == found - {'train.foo', 'val.baz', 'bar'}


def test_options_that_a_base_file_leaves_beside_another_type(images, tmp_path):
    base = write_options(tmp_path / 'base.yml', sr_options(images))
    top = tmp_path / 'top.yml'
    network = 'type: SRVGGNetCompact, num_in_ch: 3, num_out_ch: 3, upscale: 2, num_feat: 4, num_conv: 1'
    top.write_text(f'_base_: base.yml\nnetwork_g: {{{network}}}\n')

    def found(*assignments: str) -> list[str]:
        report = check_options(read_source(top, assignments), is_train=True, root=tmp_path)
        return [str(problem) for problem in report.problems]

    line = next(n for n, text in enumerate(base.read_text().splitlines(), 1) if 'num_block' in text)
    problem = f'{base}, line {line}: network_g.num_block: unknown option of SRVGGNetCompact; '
    (message,) = found()
    assert message.startswith(problem) and message.endswith(
        'It was written beside another type; "_replace_: true" in network_g replaces the whole block.'
    )
    top.write_text(f'_base_: base.yml\nnetwork_g: {{_replace_: true, {network}}}\n')
    assert found() == []
    top.write_text('_base_: base.yml\nnetwork_g: {num_fet: 4}\n')  # misspelt, not left over
    assert found()[0].endswith('did you mean "num_feat"?')
    top.write_text('_base_: base.yml\n')
    assert 'network_g={type: ...} replaces the whole block.' in ' '.join(found('network_g:type=RRDBNet'))
    assert found(f'network_g={{{network}}}') == []


@pytest.mark.parametrize('name', ['test', 'trian', 'train_2', 'validation'])
def test_names_of_datasets(images, name):
    options = sr_options(images)
    options['datasets'][name] = options['datasets']['train']
    expected = (
        f"datasets.{name}: expected a name such as train, val or val_2 for a dataset in this run, found '{name}'."
    )
    assert problems(options, images) == [expected]


def test_a_wrong_key_of_a_dataset_hides_no_missing_folder(images):
    options = changed(eco_options(images), 'datasets.train.batch_size_per_gpu', 'many')
    options['datasets']['train'].update(dataroot_lq='/nowhere', gt_siz=3, use_rot='perhaps')
    found = problems(options, images)
    for key in ('batch_size_per_gpu', 'dataroot_lq', 'gt_siz', 'use_rot'):
        assert sum(text.startswith(f'datasets.train.{key}: ') for text in found) == 1, key


def test_networks_within_our_blocks(images):
    options = eco_options(
        images, teacher={'network': {'type': 'EDSR', 'num_in_ch': 3, 'num_blok': 1}, 'weights': '/lost.pth'}
    )
    assert problems(options, images) == [
        'train.eco.teacher.network.num_out_ch: this option is required by EDSR, and is missing: expected any value.',
        'train.eco.teacher.network.num_blok: unknown option of EDSR; did you mean "num_block"?',
        'train.eco.teacher.weights: expected a file, found nothing at /lost.pth.',
    ]


def test_all_problems_at_once_with_file_and_line(images, tmp_path, capsys, monkeypatch):
    """A syntax of types, names, keys and files: of every pass one, and nothing is made."""
    options = sr_options(images)
    options['train']['total_itre'] = options['train'].pop('total_iter')
    options['network_g']['num_feat'] = 'many'
    options['model_type'] = 'SRModell'
    options['datasets']['val']['dataroot_lq'] = '/lost'
    path = write_options(tmp_path / 'o.yml', options)
    monkeypatch.chdir(tmp_path)
    assert main(['train', '-opt', 'o.yml', '--force_yml', 'val:val_freq=often']) == 2
    lines = path.read_text().splitlines()

    def line(text: str, skip: int = 0) -> int:
        return [number for number, content in enumerate(lines, 1) if text in content][skip]

    assert capsys.readouterr().err.splitlines() == [
        'basicsr train: error: 6 problems in the options:',
        "  --force_yml val:val_freq=often: val.val_freq: expected a whole number from 1 on, found 'often'.",
        f"  o.yml, line {line('SRModell')}: model_type: expected the name of a registered model, found 'SRModell'; did you "
        'mean "SRModel"?',
        f'  o.yml, line {line("/lost")}: datasets.val.dataroot_lq: expected a folder of images or an LMDB, found nothing at '
        '/lost.',
        f"  o.yml, line {line('num_feat')}: network_g.num_feat: expected a number, found 'many'.",
        f'  o.yml, line {line("train:", skip=1)}: train.total_iter: this option is required, and is missing: expected a whole '
        'number from 1 on.',
        f'  o.yml, line {line("total_itre")}: train.total_itre: unknown option of SRModel; did you mean "total_iter"?',
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ['o.yml']


# ---- force_yml -------------------------------------------------------------------------------------------------------


def test_force_yml_may_set_what_the_file_does_not_have_but_only_what_is_known(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(write_options(tmp_path / 'o.yml', sr_options(images)))
    short = ['train:total_iter=1', 'val:val_freq=1', 'logger:save_checkpoint_freq=1']
    assert main(['train', '-opt', path, '--force_yml', *short, 'train:ema_decay=0.5', 'name=forced']) == 0
    written = yaml.safe_load((tmp_path / 'experiments/forced/o.yml').read_text())
    assert written['train']['ema_decay'] == 0.5
    capsys.readouterr()
    assert main(['train', '-opt', path, '--force_yml', 'train:ema_decya=0.5']) == 2
    error = capsys.readouterr().err
    assert (
        '--force_yml train:ema_decya=0.5: train.ema_decya: unknown option of SRModel; did you mean "ema_decay"?'
        in error
    )


# ---- what others registered ------------------------------------------------------------------------------------------


def test_unknown_keys_of_third_party_classes_warn(images):
    from basicsr.data.paired_image_dataset import PairedImageDataset
    from basicsr.models.sr_model import SRModel
    from basicsr.utils.registry import DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

    names = []
    for registry, base in ((DATASET_REGISTRY, PairedImageDataset), (MODEL_REGISTRY, SRModel)):
        other = type('Foreign' + base.__name__, (base,), {'__module__': 'somebody.elses'})
        registry.register(other)
        names.append(other.__name__)

    def foreign_metric(img, img2, strength=1.0, **kwargs):
        return 0.0

    METRIC_REGISTRY.register(foreign_metric)
    options = sr_options(images, model_type=names[1])
    options['datasets']['train'].update(type=names[0], sharpness=3)
    options['train']['own_option'] = 1
    options['their_option'] = 2
    options['val']['metrics']['theirs'] = {'type': 'foreign_metric', 'strength': 2.0, 'colour': 'red'}
    report = report_on(options, images)
    assert report.problems == []
    warned = [str(warning) for warning in report.warnings]
    for key in ('datasets.train.sharpness', 'train.own_option', 'their_option', 'val.metrics.theirs.colour'):
        assert any(
            text.startswith(f'{key}: unknown option of Foreign') or 'foreign_metric' in text for text in warned
        ), warned
        assert any(text.startswith(f'{key}: ') for text in warned)
    options['val']['metrics']['theirs']['strength'] = 'very'
    options['datasets']['train']['batch_size_per_gpu'] = 'two'
    assert problems(options, images) == [
        "datasets.train.batch_size_per_gpu: expected a whole number from 1 to 1,000,000, found 'two'.",
        "val.metrics.theirs.strength: expected a number, found 'very'.",
    ]


def test_keys_that_nothing_reads_warn(images):
    options = sr_options(images)
    options['save_img'] = True
    report = report_on(options, images)
    assert report.problems == []
    assert [str(warning) for warning in report.warnings] == ['save_img: SRModel does not read this option.']


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_options_of_a_test_run(images, tmp_path):
    options = sr_options(images)
    options['datasets'] = {'test_1': options['datasets']['val']}
    del options['train'], options['logger'], options['val']['val_freq']
    options['val']['suffix'] = None
    assert problems(options, images, is_train=False) == [
        'path.pretrain_network_g: expected the weights to test, found none. Set it, or give --weights FILE.'
    ]
    options['path'] = {'pretrain_network_g': write_weights(tmp_path / 'a.pth')}
    assert problems(options, images, is_train=False) == []
    assert problems({**options, 'val': None}, images, is_train=False) == [
        'val: expected a block of options, found nothing.'
    ]
    options['val'].update(save_img=True)
    del options['val']['suffix']
    assert problems(options, images, is_train=False) == []
    options['val']['suffix'] = '/../../../x'
    assert problems(options, images, is_train=False)[0].startswith('val.suffix: expected a name')
    options['val']['suffix'] = None
    options['datasets']['train'] = dict(options['datasets']['test_1'], name='a/b')
    found = problems(options, images, is_train=False)
    assert any(text.startswith('datasets.train: expected a name such as test, test_2 or val') for text in found)
    assert any(text.startswith('datasets.train.name: expected a name that can be a folder') for text in found)


def test_images_of_a_training_that_would_be_saved_as_one_file(images):
    options = sr_options(images)
    options['datasets']['val_2'] = {**options['datasets']['val'], 'name': 'again'}
    assert report_on(options, images).warnings == []
    options['val']['save_img'] = True
    report = report_on(options, images)
    assert report.problems == []
    (warning,) = map(str, report.warnings)
    assert warning.startswith('val.save_img: images "') and warning.endswith('would be saved as one file, "coffee".')


@pytest.mark.parametrize('paths', [None, [{'gt': 'a'}, 3]])
def test_datasets_of_others_may_keep_their_paths_as_they_like(images, paths):
    report = report_on(changed(sr_options(images), 'val.save_img', True), images)
    held = Contents(types.SimpleNamespace(paths=paths, pairs='own'), 2)
    check_saved_images(report, {'val': held, 'val_2': held})
    assert report.warnings == []
