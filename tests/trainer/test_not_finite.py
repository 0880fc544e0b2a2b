"""A training that diverges ends with an error; nothing that is not finite is saved, resumed, started from or scored."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import math
from pathlib import Path

import pytest
import torch
from run_helpers import (
    gan_options,
    network_weights,
    on_ranks,
    sr_options,
    write_options,
    write_pairs,
    write_weights,
)

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.weights import not_finite
from basicsr_ext.trainer.checkpoints import newest_state
from basicsr_ext.trainer.metrics_log import read_metrics

EXPERIMENT = Path('experiments/run')


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def exploding(root: Path, model: str = 'TrainingModel', **train) -> dict:
    """Diverges in the step of iteration 4, so that the loss of iteration 5 is the first that is not finite."""
    options = gan_options(root, model) if model == 'ESRGANModel' else sr_options(root, model_type=model)
    options['train'].update(total_iter=8, scheduler={'type': 'MultiStepLR', 'milestones': [3], 'gamma': 1e22}, **train)
    options['logger'].update(print_freq=3, save_checkpoint_freq=2, keep_last=1)
    options['val']['val_freq'] = 2
    return options


def iterations() -> list[int]:
    return sorted(int(path.stem) for path in (EXPERIMENT / 'training_states').glob('*.state'))


def train(options: dict, *arguments: str) -> int:
    return main(['train', '-opt', str(write_options(Path('o.yml'), options)), *arguments])


@pytest.mark.parametrize(
    ('model', 'iteration'), [('TrainingModel', 'in iteration 5 the'), ('SRModel', 'in iteration 6, or before it, the')]
)
def test_a_loss_that_is_not_finite_ends_the_run_at_the_next_line(root, capsys, model, iteration):
    options = exploding(root, model)
    options['logger']['save_checkpoint_freq'] = 3
    assert train(options) == 2
    assert f'The training diverged: {iteration} loss l_pix is not finite' in capsys.readouterr().err
    assert iterations() == [3]
    assert not (EXPERIMENT / 'models/net_g_latest.pth').exists()


def test_the_loss_is_asked_before_saving_too(root, capsys):
    options = exploding(root)
    options['logger'].update(print_freq=100, save_checkpoint_freq=6)
    assert train(options) == 2
    assert 'in iteration 5 the loss l_pix is not finite' in capsys.readouterr().err
    assert iterations() == []


@pytest.mark.parametrize('model', ['TrainingModel', 'SRModel', 'ESRGANModel'])
def test_weights_that_are_not_finite_are_not_saved(root, capsys, model):
    """The step of iteration 4 makes them, where the loss was finite still; the checkpoint of 2 stays."""
    options = exploding(root, model)
    options['train'].update({key: {'type': 'SGD', 'lr': 1e-12} for key in options['train'] if key.startswith('optim_')})
    options['train']['pixel_opt']['loss_weight'] = 1e8
    options['train']['scheduler'].update(gamma=1e49)
    options['logger']['print_freq'] = 100
    assert train(options, '--force_yml', 'train:total_iter=2') == 0
    before = network_weights(root, iteration=2)
    assert train(options, '--auto_resume') == 2
    assert 'after iteration 4, NaN or infinity is in net_g_4.pth, params.' in capsys.readouterr().err
    assert iterations() == [2]
    assert not list((EXPERIMENT / 'models').glob('*_4.pth'))
    torch.testing.assert_close(network_weights(root, iteration=2), before, rtol=0, atol=0)


@pytest.mark.parametrize('value', [math.inf, -math.inf])
def test_what_an_optimizer_keeps_must_be_finite(root, capsys, monkeypatch, value):
    from basicsr_ext.trainer.checkpointing import CheckpointManager

    original = CheckpointManager._save_training_state

    def spoil(self, epoch, current_iter):
        next(iter(self.model.optimizers[0].state.values()))['exp_avg_sq'].fill_(value)
        original(self, epoch, current_iter)

    monkeypatch.setattr(CheckpointManager, '_save_training_state', spoil)
    assert train(sr_options(root, model_type='TrainingModel')) == 2
    assert 'NaN or infinity is in optimizer.0.state.0.exp_avg_sq' in capsys.readouterr().err
    assert iterations() == []


def _diverging_rank(path: str) -> None:
    assert main(['train', '-opt', path, '--launcher', 'pytorch']) == 2


def test_all_ranks_end(root):
    for model in ('TrainingModel', 'SRModel'):
        on_ranks(2, _diverging_rank, str(write_options(root / 'o.yml', exploding(root, model))))


def test_a_checkpoint_that_is_not_finite_is_passed_over_and_counts_for_nothing(root, capsys):
    """As an earlier version saved them: the newest three of four."""
    options = sr_options(root, model_type='TrainingModel')
    options['train'].update(total_iter=6)
    options['logger'].update(save_checkpoint_freq=1, keep_last=4)
    assert train(options) == 0
    from basicsr_ext.trainer.checkpoints import sha256, write_atomically

    for iteration in (4, 5, 6):
        file, state_file = (
            EXPERIMENT / f'models/net_g_{iteration}.pth',
            EXPERIMENT / f'training_states/{iteration}.state',
        )
        content, state = torch.load(file, weights_only=True), torch.load(state_file, weights_only=True)
        if iteration == 5:
            next(iter(state['optimizers'][0]['state'].values()))['exp_avg'].fill_(math.nan)
        else:
            content['params']['conv_last.bias'][0] = math.nan
        write_atomically(content, file)
        write_atomically({**state, 'networks': {file.name: sha256(file)}}, state_file)
    newest, problems = newest_state(EXPERIMENT / 'training_states')
    assert newest.name == '3.state'
    assert [f'iteration {n} cannot be resumed' in p for n, p in zip((6, 5, 4), problems, strict=True)] == [True] * 3
    assert train(options, '--auto_resume', '--force_yml', 'logger:keep_last=1', 'train:total_iter=4') == 0
    assert iterations() == [4, 5, 6]  # the good one of now; those passed over did not crowd it out
    assert newest_state(EXPERIMENT / 'training_states')[0].name == '4.state'
    assert not not_finite(network_weights(root, iteration=4)['params'])


# ---- steps that were skipped ---------------------------------------------------------------------------------------------


def test_while_the_guard_refuses_steps_nothing_is_saved(root, capsys):
    options = exploding(root, guard={'max_skips': 3, 'initial': 10.0})
    options['train']['scheduler'].update(gamma=1e9)  # finite still, and useless
    options['logger'].update(save_checkpoint_freq=3)
    assert train(options) == 2
    assert 'train.guard: 3 steps in a row were skipped' in capsys.readouterr().err
    assert iterations() == [3]


def test_the_checkpoint_before_an_explosion_stays_until_a_step_is_taken(root):
    """That of iteration 4 holds the weights that its own step made useless."""
    options = exploding(root, guard={'max_skips': 3, 'initial': 10.0})
    options['train']['scheduler'].update(gamma=1e9)
    assert train(options) == 2
    assert iterations() == [2, 4]
    assert train(options, '--auto_resume') == 2
    assert iterations() == [2, 4]


def test_with_a_guard_old_checkpoints_go_one_iteration_later(root):
    options = sr_options(root, model_type='TrainingModel')
    options['train'].update(guard={}, total_iter=5)
    options['logger'].update(save_checkpoint_freq=1, keep_last=2)
    assert train(options) == 0
    assert iterations() == [4, 5]


def test_a_run_that_ends_with_a_skipped_step_says_so(root, capsys):
    options = exploding(root, guard={'max_skips': 30, 'initial': 10.0})
    options['logger'].update(save_checkpoint_freq=3)
    assert train(options) == 2
    error = capsys.readouterr().err
    assert 'the last step, of iteration 8, was skipped' in error and 'the newest is that of iteration 3' in error
    assert iterations() == [3]


def model_of(root: Path, **train) -> TrainingModel:
    from run_helpers import model_options

    options = sr_options(root)
    options['train'].update(train)
    with model_options(options, root) as opt:
        return TrainingModel(opt)


def steps(model: TrainingModel, spoiled: set[int], count: int) -> TrainingModel:
    for iteration in range(1, count + 1):
        lq, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
        if iteration in spoiled:
            lq[0, 0, 0, 0] = math.nan
        model.feed_data({'lq': lq, 'gt': gt})
        model.optimize_parameters(iteration)
    return model


@pytest.mark.parametrize('train', [{'guard': {}}, {'precision': 'fp16'}])
def test_losses_of_steps_that_were_skipped_may_be_anything(tmp_path, train):
    model = steps(model_of(tmp_path, **train), {2, 4}, 4)
    assert math.isnan(model.get_current_log()['l_pix'])


def test_the_first_iteration_is_named(tmp_path):
    model = steps(model_of(tmp_path), {3}, 7)
    with pytest.raises(UserError, match='in iteration 3 the loss l_pix is not finite'):
        model.get_current_log()
    with pytest.raises(UserError, match='in iteration 3 the loss l_pix is not finite'):
        model.save(0, 7)


def test_a_due_checkpoint_is_written_after_the_next_step_that_is_taken(root, monkeypatch):
    from basicsr_ext.models.guard import Guard

    original, calls = Guard.accepts, []

    def accepts(self, *arguments):
        calls.append(1)
        return original(self, *arguments) and len(calls) not in (2, 3)

    monkeypatch.setattr(Guard, 'accepts', accepts)
    options = sr_options(root, model_type='TrainingModel')
    options['train'].update(guard={}, total_iter=5)
    assert train(options) == 0
    assert iterations() == [4, 5]


# ---- weights and scores --------------------------------------------------------------------------------------------------


def spoiled_weights(root: Path, value: float = math.nan) -> str:
    path = write_weights(root / 'spoiled.pth')
    content = torch.load(path, weights_only=True)
    content['params']['conv_first.weight'][0, 0, 0, 0] = value
    torch.save(content, path)
    return path


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_everywhere(root, capsys, value):
    path = spoiled_weights(root, value)
    options = sr_options(root)
    options['path']['pretrain_network_g'] = path
    file = str(write_options(root / 'o.yml', options))
    upscale = ['upscale', '-i', 'lr', '-o', 'out', '-opt', file, '--weights', path]
    for command in (['train', '-opt', file], ['check', '-opt', file], ['test', '-opt', file], upscale):
        assert main(command) == 2
        assert 'NaN or infinity in 1 of' in ''.join(capsys.readouterr())
    assert not Path('experiments').exists() and not Path('out').exists()


def test_a_mask_of_attention_may_hold_minus_infinity():
    mask = {'mask': torch.tensor([0.0, -math.inf]), 'count': torch.tensor(3), 'empty': torch.zeros(0)}
    assert not_finite(mask, masks=mask) == [] and not_finite(mask) == ['mask']
    assert not_finite({'a': torch.tensor([-math.nan]), 'b': torch.tensor([1.0]), 'c': torch.tensor(math.inf)}) == [
        'a',
        'c',
    ]


@pytest.mark.parametrize('model', ['TrainingModel', 'SRModel'])
def test_a_network_with_such_a_mask_is_saved_resumed_and_taken(root, capsys, model):
    from basicsr.archs.edsr_arch import EDSR
    from basicsr.utils.registry import ARCH_REGISTRY

    class EDSRWithAMask(EDSR):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.register_buffer('mask', torch.tensor([0.0, -math.inf]))

    if 'EDSRWithAMask' not in ARCH_REGISTRY:
        ARCH_REGISTRY.register(EDSRWithAMask)
    options = sr_options(root, model_type=model)
    options['network_g']['type'] = 'EDSRWithAMask'
    assert train(options, '--force_yml', 'train:total_iter=2') == 0
    assert train(options, '--auto_resume') == 0
    assert 'NaN or infinity' not in ''.join(capsys.readouterr())
    options.update(name='next', path={'pretrain_network_g': str(EXPERIMENT / 'models/net_g_latest.pth')})
    assert train(options) == 0


def overflowing_weights(root: Path) -> str:
    """Finite; the network's output is not."""
    path = write_weights(root / 'huge.pth')
    content = torch.load(path, weights_only=True)
    content['params'] = {key: torch.full_like(value, 1e30) for key, value in content['params'].items()}
    torch.save(content, path)
    return path


@pytest.mark.parametrize('model', ['SRModel', 'TrainingModel'])
def test_test_refuses_scores_that_are_not_numbers(root, capsys, model):
    options = sr_options(root, model_type=model)
    options['val'].update(save_img=True, suffix=None)
    options['path']['pretrain_network_g'] = overflowing_weights(root)
    assert main(['test', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    assert 'Scores are not numbers: psnr of "astronaut" in val' in capsys.readouterr().err
    assert not list(Path('results').rglob('metrics.*')) and not list(Path('results').rglob('*.png'))


def test_validation_says_nan_and_never_best(root, capsys):
    options = sr_options(root, model_type='TrainingModel')
    options['path']['pretrain_network_g'] = overflowing_weights(root)
    options['train'].update(guard={'max_skips': 100})  # no step is taken
    options['logger'].update(keep_best='psnr')
    assert train(options) == 2
    line = next(line for line in read_metrics(EXPERIMENT / 'metrics.jsonl') if line['event'] == 'validation')
    assert line['metrics'] == {'psnr': None} and line['best']['psnr'] == {'value': None, 'iteration': -1}
    assert 'psnr: nan' in ''.join(capsys.readouterr())


@pytest.mark.parametrize(
    ('precision', 'hint'), [('bf16', 'It ran in bf16: choose the precision fp32'), ('fp32', 'Its weights do not suit')]
)
def test_upscale_says_what_to_change(root, capsys, precision, hint):
    path, file = overflowing_weights(root), str(write_options(root / 'o.yml', sr_options(root)))
    command = ['upscale', '-i', 'lr/astronaut.png', '-o', 'out', '-opt', file, '--weights', path]
    assert main([*command, '--precision', precision]) == 2
    assert f'values that are not finite. {hint}' in capsys.readouterr().err
