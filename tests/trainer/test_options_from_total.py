"""Options that come from the length of a training are computed once, and stay where a run goes on with another length."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
import yaml
from run_helpers import eco_options, log_text, network_weights, sr_options, write_centroids, write_options, write_pairs

from basicsr_ext.cli.main import main
from basicsr_ext.losses.pspl_loss import PSPLLoss
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def train(root, options: dict, *arguments: str) -> int:
    return main(['train', '-opt', str(write_options(root / 'o.yml', options)), *arguments])


def lines(root) -> dict[int, dict]:
    found = read_metrics(root / 'experiments/run/metrics.jsonl')
    return {line['iteration']: line for line in found if line['event'] == 'train'}


def written(root) -> dict:
    return yaml.safe_load((root / 'experiments/run/o.yml').read_text())


@pytest.mark.parametrize('saved_without', [False, True])
def test_the_end_of_ecos_schedule_stays(root, saved_without):
    """Also where the checkpoint is of a version that kept the missing option as it was."""
    write_centroids(root)
    options = eco_options(root)
    options['train']['total_iter'] = 6
    assert train(root, options) == 0
    assert written(root)['train']['eco']['schedule']['end'] == 6
    if saved_without:
        from basicsr_ext.trainer.checkpoints import write_atomically

        path = root / 'experiments/run/training_states/6.state'
        state = torch.load(path, weights_only=True)
        del state['options']['train']['eco']['schedule']
        write_atomically(state, path)
    options['train']['total_iter'] = 10
    assert train(root, options, '--auto_resume') == 0
    alphas = {iteration: line['alpha'] for iteration, line in lines(root).items()}
    assert alphas == pytest.approx({n: min(1.0, (n - 1) / 6) for n in range(1, 11)})
    said = (
        'train.eco.schedule.end: 6 stays, as the run began with it; by train.total_iter, 6 before and 10 now, it would'
    )
    assert said in log_text(root / 'experiments/run')
    assert written(root)['train']['eco']['schedule']['end'] == 6


def test_an_end_that_is_given_may_not_change(root, capsys):
    write_centroids(root)
    options = eco_options(root)
    assert train(root, options) == 0
    options['train']['eco'] = {'schedule': {'end': 9}}
    assert train(root, options, '--auto_resume', '--force_yml', 'train:total_iter=6') == 2
    assert 'train.eco.schedule.end (was 4, is 9)' in capsys.readouterr().err


@pytest.mark.parametrize('model', ['SRModel', 'TrainingModel'])
def test_auto_is_the_published_ratio_and_stays(root, model):
    options = sr_options(root, model_type=model)
    options['train'].update(total_iter=6, pixel_opt={'type': 'PSPLLoss', 'step_iters': 'auto'})
    assert train(root, options) == 0
    assert written(root)['train']['pixel_opt']['step_iters'] == 6 / 300
    before = network_weights(root, iteration=6)
    options['train']['total_iter'] = 8
    assert train(root, options, '--auto_resume') == 0
    assert 'train.pixel_opt.step_iters: 0.02 stays' in log_text(root / 'experiments/run')
    assert written(root)['train']['pixel_opt']['step_iters'] == 6 / 300
    assert before['params'].keys() == network_weights(root, iteration=8)['params'].keys()


def test_auto_under_basicsrs_own_command():
    with pytest.raises(
        basicsr_ext.UserError, match=r'step_iters: auto is filled in by "basicsr train".*total_iter / 300'
    ):
        PSPLLoss(step_iters='auto')


def test_our_models_fill_it_in_themselves(tmp_path):
    from run_helpers import model_options

    from basicsr_ext.models.training_model import TrainingModel

    with model_options(sr_options(tmp_path), tmp_path) as opt:
        opt['train'].update(total_iter=600, pixel_opt={'type': 'PSPLLoss', 'step_iters': 'auto'})
        assert TrainingModel(opt).criteria['pixel'].step_iters == 2


# ---- trainings that are too short ----------------------------------------------------------------------------------------


def warnings_of(root, capsys, total: int, **pspl) -> str:
    options = sr_options(root)
    options['train'].update(total_iter=total, pixel_opt={'type': 'PSPLLoss', **pspl})
    assert main(['check', '-opt', str(write_options(root / 'o.yml', options))]) == 0
    return capsys.readouterr().out


def test_check_warns_of_steps_that_are_too_long(root, capsys):
    """Half of the height at SSIM 1 takes 2402 iterations of the published pace: a fifth of 12,011."""
    text = warnings_of(root, capsys, 11_900)
    assert 'pixel_opt.step_iters: the attention' in text and 'for 20% of 11,900 iterations' in text
    assert 'Set step_iters: auto, which is 39.6667 here' in text
    assert 'attention' not in warnings_of(root, capsys, 12_100)
    assert 'for 100% of 100 iterations' in warnings_of(root, capsys, 100)
    for settings in ({'step_iters': 'auto'}, {'beta': 3}, {'mu': 1}, {'alpha': -1000}):
        assert 'attention' not in warnings_of(root, capsys, 100, **settings), settings
    assert 'attention' in warnings_of(root, capsys, 300_000, alpha=0)


def test_train_warns_too_and_auto_trains(root, capsys):
    options = sr_options(root)
    options['train'].update(pixel_opt={'type': 'PSPLLoss', 'criterion': 'l1'})
    assert train(root, options) == 0
    assert 'Warning:' in (text := capsys.readouterr().out) and 'step_iters: auto' in text
    assert all(line['l_pix'] == 0 for line in lines(root).values())
    assert train(root, options, '--force_yml', 'train:pixel_opt:step_iters=auto') == 0
    assert 'Warning:' not in capsys.readouterr().out
    assert lines(root)[4]['l_pix'] > 0.01


@pytest.mark.parametrize('model', ['SRModel', 'TrainingModel'])
def test_a_loss_of_exactly_0_over_a_printed_interval_warns_once(root, model, monkeypatch):
    """0 but for iterations 1 and 2: the interval up to 2 is not, those up to 4, 6, 8 are, and one warning is enough."""
    original = PSPLLoss.forward

    def forward(self, pred, target):
        return original(self, pred, target) + (pred.mean() * 0 + 1 if self.iteration == 1 else 0)

    monkeypatch.setattr(PSPLLoss, 'forward', forward)
    options = sr_options(root, model_type=model)
    options['train'].update(total_iter=8, pixel_opt={'type': 'PSPLLoss', 'criterion': 'l1'})
    options['logger']['print_freq'] = 2
    assert train(root, options) == 0
    text = log_text(root / 'experiments/run')
    assert text.count('exactly 0') == 1 and 'l_pix: exactly 0 in every iteration up to 4 since the last line' in text
