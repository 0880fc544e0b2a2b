"""Networks of spandrel: each architecture is built and takes a step; runs, checkpoints and commands with one of them."""

from __future__ import annotations

import builtins
import importlib
import sys

import pytest
import torch
from run_helpers import log_text, network_weights, sr_options, write_options, write_pairs

import basicsr_ext

basicsr_ext.register()

from basicsr.archs import build_network

from basicsr_ext.archs import spandrel_arch
from basicsr_ext.archs.spandrel_arch import NOT_TRAINED, SpandrelNetwork
from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.networks.requirements import requirements_of

pytest.importorskip('spandrel')

WINDOWS = {'embed_dim': 8, 'depths': [2], 'num_heads': [2], 'window_size': 4, 'img_size': 16, 'upscale': 2}
SMALL = {
    'ATD': {**WINDOWS, 'category_size': 16, 'num_tokens': 4, 'reducted_dim': 2, 'upsampler': 'pixelshuffledirect'},
    'CRAFT': {'embed_dim': 12, 'depths': [1], 'num_heads': [2], 'upscale': 2},
    'Compact': {'num_feat': 4, 'num_conv': 1, 'upscale': 2},
    'DAT': {'embed_dim': 16, 'depth': [2], 'num_heads': [2]},
    'DCTLSA': {'nf': 10, 'upscale': 2},
    'DITN': {'dim': 8, 'ITL_blocks': 1, 'SAL_blocks': 1, 'upscale': 2},
    'DRCT': {'embed_dim': 8, 'depths': [1], 'num_heads': [2], 'window_size': 4, 'upscale': 2, 'upsampler': 'pixelshuffle',
             'gc': 4},
    'DRUNet': {'in_nc': 4, 'out_nc': 3, 'nc': [4, 4, 8, 8], 'nb': 2},
    'DnCNN': {'in_nc': 3, 'out_nc': 3, 'nc': 4, 'nb': 3},
    'ESRGAN': {'num_filters': 4, 'num_blocks': 1, 'scale': 2},
    'FBCNN': {'nc': [4, 4, 8, 512], 'nb': 2},
    'FDAT': {'embed_dim': 8, 'num_groups': 1, 'depth_per_group': 1, 'num_heads': 2, 'scale': 2, 'mid_dim': 8,
             'window_size': 4},
    'FFTformer': {'dim': 4, 'num_blocks': [1, 1, 1], 'num_refinement_blocks': 1},
    'GRL': {'embed_dim': 8, 'depths': [2], 'num_heads_window': [2], 'num_heads_stripe': [2], 'window_size': 4,
            'stripe_size': [4, 4], 'img_size': 16, 'upscale': 2, 'upsampler': 'pixelshuffledirect'},
    'HAT': {**WINDOWS, 'num_feat': 4, 'squeeze_factor': 2, 'compress_ratio': 2},
    'HVICIDNet': {'channels': [8, 8, 16, 16], 'heads': [1, 2, 2, 2]},
    'IPT': {'patch_size': 12, 'n_feats': 4, 'num_heads': 2, 'num_layers': 1, 'scale': [2]},
    'KBNet_l': {'dim': 12, 'num_blocks': [1] * 4, 'num_refinement_blocks': 1},
    'KBNet_s': {'width': 8, 'middle_blk_num': 1, 'enc_blk_nums': [1], 'dec_blk_nums': [1]},
    'MMRealSR': {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 4, 'num_feats': [4] * 4,
                 'num_blocks': [1] * 4},
    'MixDehazeNet': {'embed_dims': [8, 16, 32, 16, 8]},
    'MoESR': {'dim': 8, 'n_blocks': 1, 'n_block': 1, 'scale': 2},
    'MoSR': {'n_block': 1, 'dim': 8, 'upscale': 2},
    'NAFNet': {'width': 4, 'enc_blk_nums': [1], 'dec_blk_nums': [1]},
    'OmniSR': {'num_feat': 8, 'up_scale': 2},
    'PLKSR': {'dim': 8, 'n_blocks': 1, 'upscaling_factor': 2},
    'RCAN': {'n_resgroups': 1, 'n_resblocks': 1, 'n_feats': 4, 'reduction': 2, 'scale': 2},
    'RGT': {'embed_dim': 8, 'depth': [2], 'num_heads': [2]},
    'RealPLKSR': {'dim': 8, 'n_blocks': 1, 'upscaling_factor': 2},
    'RetinexFormer': {'n_feat': 8, 'stage': 1},
    'SAFMN': {'dim': 8, 'n_blocks': 1, 'upscaling_factor': 2},
    'SAFMNBCIE': {'dim': 8, 'n_blocks': 1, 'num_layers': 1},
    'SCUNet': {'config': [1] * 7, 'dim': 64, 'input_resolution': 64},
    'SPAN': {'num_in_ch': 3, 'num_out_ch': 3, 'feature_channels': 8, 'upscale': 2},
    'SeemoRe': {'num_layers': 1, 'scale': 2},
    'SwiftSRGAN': {'num_channels': 4, 'num_blocks': 1, 'upscale_factor': 2},
    'Swin2SR': {**WINDOWS, 'upsampler': 'pixelshuffledirect'},
    'SwinIR': {**WINDOWS, 'upsampler': 'pixelshuffledirect'},
    'Uformer': {'embed_dim': 4, 'depths': [1] * 9, 'num_heads': [1] * 9},
    'UpCunet2x': {},
    'UpCunet2x_fast': {},
    'UpCunet3x': {},
    'UpCunet4x': {},
}  # fmt: skip
PLKSR = {'type': 'spandrel', 'architecture': 'RealPLKSR', **SMALL['RealPLKSR']}


def test_every_architecture_is_built_or_listed_with_a_reason():
    import spandrel

    assert set(spandrel_arch._classes()) == set(SMALL)
    built = {spandrel_arch._architecture_of(kind).id for kind in spandrel_arch._classes().values()}
    assert built | set(NOT_TRAINED) == {support.architecture.id for support in spandrel.MAIN_REGISTRY}
    for name, reason in NOT_TRAINED.items():
        with pytest.raises(UserError, match=f'{name} of spandrel is not built here, since {reason[:20]}'):
            SpandrelNetwork(architecture=name)


@pytest.mark.parametrize('name', SMALL)
def test_each_takes_a_step(name):
    """All trained parameters get gradients, but for those that a network does not use; it is built again from its option."""
    torch.manual_seed(0)
    network = build_network({'type': 'spandrel', 'architecture': name, **SMALL[name]})
    image = torch.rand(2, network.channels, 17, 18)
    given = image.clone()
    output = network(image)
    assert output.shape == (2, network.channels, 17 * network.scale, 18 * network.scale)
    assert torch.equal(image, given)
    output.sub(0.5).square().mean().backward()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    moved = sum(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)
    assert moved > len(trained) / 6  # many begin with layers of zeros
    torch.optim.SGD(trained, lr=0.01).step()
    assert not any(key.startswith('model.model.') or key.startswith('model.0.model') for key in network.state_dict())

    again = build_network(network.own_option)
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected = network.eval()(image)
        assert torch.equal(again.eval()(image), expected)


def test_names_are_spandrels(tmp_path):
    """Weights go both ways, and arguments are found in them."""
    import spandrel

    torch.manual_seed(0)
    network = build_network(PLKSR)
    found = spandrel.MAIN_REGISTRY.load(dict(network.state_dict()))
    assert found.architecture.id == 'PLKSR' and network.state_dict().keys() == found.model.state_dict().keys()
    torch.save({'params_ema': found.model.state_dict()}, tmp_path / 'published.pth')
    tuned = build_network({'type': 'spandrel', 'weights': str(tmp_path / 'published.pth')})
    assert tuned.own_option == network.own_option == PLKSR
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in tuned.state_dict().items())
    assert all(parameter.requires_grad for parameter in tuned.parameters())
    parts = torch.nn.ModuleDict({'stage': tuned})
    assert {key.removeprefix('stage.') for key in parts.state_dict()} == network.state_dict().keys()
    parts.load_state_dict(parts.state_dict())


def test_sizes_and_channels_that_a_network_needs(tmp_path):
    option = {'type': 'spandrel', 'architecture': 'SAFMN', **SMALL['SAFMN']}
    assert requirements_of(option) == (8, False)
    assert requirements_of(
        {'type': 'spandrel', 'architecture': 'DnCNN', 'in_nc': 1, 'out_nc': 1, 'nb': 3, 'nc': 4}
    ).luminance


def test_means_are_constants():
    network = build_network({'type': 'spandrel', 'architecture': 'RCAN', **SMALL['RCAN']})
    fixed = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert {name.split('.')[1] for name in fixed} == {'sub_mean', 'add_mean'}


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


@pytest.mark.parametrize('model_type', ['TrainingModel', 'SRModel'])
def test_a_run_with_its_average_and_checkpoints(root, model_type, capsys):
    """Trains, goes on, is tested, and enlarges from its checkpoint alone."""
    options = sr_options(root, model_type=model_type, network_g=PLKSR)
    options['train'].update(ema_decay=0.5)
    path = str(write_options(root / 'o.yml', options))
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=4']) == 0
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=6', '--auto_resume']) == 0
    assert 'Resuming training' in log_text(root / 'experiments/run')
    content = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    assert content['basicsr_ext']['network'] == PLKSR
    for key in ('params', 'params_ema'):
        assert content[key].keys() == build_network(PLKSR).model.state_dict().keys()
    weights = 'experiments/run/models/net_g_latest.pth'
    assert main(['test', '-opt', path, '--weights', weights]) == 0
    assert main(['upscale', '-i', 'lr', '-o', 'out', '--weights', weights, '--tile', '18', '--device', 'cpu']) == 0
    assert main(['check', '-opt', path]) == 0
    assert 'spandrel: ' in capsys.readouterr().out


def test_published_weights_are_tuned_and_need_their_file_no_more(root):
    source = build_network(PLKSR)
    torch.save(source.state_dict(), 'published.pth')
    options = sr_options(root, network_g={'type': 'spandrel', 'weights': 'published.pth'})
    options['train']['optim_g']['lr'] = 0.0
    path = str(write_options(root / 'o.yml', options))
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=1']) == 0
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in network_weights(root)['params'].items())
    (root / 'published.pth').unlink()
    weights = 'experiments/run/models/net_g_latest.pth'
    assert main(['upscale', '-i', 'lr', '-o', 'out', '--weights', weights, '--device', 'cpu']) == 0


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        ({'architecture': 'RealPLKRS'}, 'found "RealPLKRS"; did you mean "RealPLKSR"?'),
        ({'architecture': 'KBNet'}, 'it has several classes: KBNet_l, KBNet_s.'),
        ({'architecture': 'LaMa'}, 'LaMa of spandrel is not built here, since it takes a mask beside the image.'),
        ({'architecture': 'RealPLKSR', 'n_block': 1}, 'did you mean "n_blocks"?'),
        ({'architecture': 'RealPLKSR', 'n_blocks': 'x'}, 'network_g.n_blocks: expected'),
        ({'architecture': 'SPAN'}, 'SpandrelNetwork cannot be built with these options (TypeError'),
        ({}, 'expected either architecture, with its arguments, or weights.'),
        ({'architecture': 'RealPLKSR', 'weights': 'x.pth'}, 'network_g'),
        ({'weights': 'nowhere.pth'}, 'nowhere.pth'),
        ({'weights': 'other.pth'}, 'does not recognise the network'),
        ({'architecture': 'RealPLKSR', 'dim': 8, 'n_blocks': 1, 'upscaling_factor': 4}, 'like its GT images. Check'),
    ],
    ids=range(11),
)  # fmt: skip
def test_wrong_options_are_found_before_a_run(root, capsys, network, message):
    torch.save({'a.weight': torch.zeros(3)}, 'other.pth')
    options = sr_options(root, network_g={'type': 'spandrel', **network})
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
    assert not (root / 'experiments').exists()


def test_without_spandrel_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.partition('.')[0] == 'spandrel':
            raise ImportError("No module named 'spandrel'")
        return real(name, *rest, **options)

    spandrel_arch._classes.cache_clear()
    monkeypatch.setattr(builtins, '__import__', without)
    monkeypatch.setattr(importlib, 'import_module', without)
    monkeypatch.delitem(sys.modules, 'spandrel')
    with pytest.raises(UserError, match=r'pip install "basicsr-ext\[spandrel\]"'):
        SpandrelNetwork(architecture='HAT')
