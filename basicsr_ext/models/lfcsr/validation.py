"""Validation of networks of two stages: both images are measured, and how far apart they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from basicsr.models import sr_model
from basicsr.utils import imwrite, tensor2img
from torch import Tensor, nn
from tqdm import tqdm

from basicsr_ext.archs.lfcsr_arch import LFCSR
from basicsr_ext.functional.wavelet import gaussian_low, haar_high, haar_low
from basicsr_ext.models.inference_options import infer
from basicsr_ext.networks.inference import Result
from basicsr_ext.networks.requirements import requirements_of

# Bands that shall be equal in the images of both stages; the first is measured in any case, to compare trainings.
BANDS: dict[str, Callable[[Tensor], Tensor]] = {'ll': haar_low, 'high': haar_high, 'gaussian': gaussian_low}


def bands_of(opt: Mapping[str, Any]) -> str:
    """Which of :data:`BANDS` the options of a run constrain; a test knows nothing of ``train.lfcsr.low_frequency``."""
    if opt['network_g'].get('order') == 'po':
        return 'high'
    lfcsr = (opt.get('train') or {}).get('lfcsr') or {}
    return 'gaussian' if lfcsr.get('low_frequency') == 'gaussian' else 'll'


class StageResults(NamedTuple):
    """What both stages made of an image in a test.

    Attributes:
        final: Of the stage that runs second.
        first: Of the stage that runs first.
    """

    final: Result
    first: Result

    def difference(self, bands: str) -> float:
        """Mean absolute difference of some of :data:`BANDS`, of images that are not limited to [0, 1]."""
        final, first = (BANDS[bands](result.images) for result in (self.final, self.first))
        return (final - first).abs().mean().item()


def _differences(opt: Mapping[str, Any]) -> dict[str, str]:
    """Names of the differences that a validation measures -> their bands."""
    return {f'{bands}_difference': bands for bands in dict.fromkeys(('ll', bands_of(opt)))}


class _BothImages(nn.Module):
    """Gives the images of both stages beside one another, as channels, so that tiles and flips treat them alike."""

    def __init__(self, network: LFCSR):
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, x: Tensor) -> Tensor:
        first = self.network.first(x)
        return torch.cat([self.network.second(first), first], 1)


def run_stages_in_test(network: LFCSR, images: Tensor, opt: Mapping[str, Any]) -> StageResults:
    """Runs a network of two stages as :func:`~basicsr_ext.models.inference_options.infer` does.

    Args:
        network: Bare.
        images: (N, C, H, W) in [0, 1].
        opt: Options of the run.
    """
    if requirements_of(opt['network_g']).luminance:  # the colours are added to one image at a time
        return StageResults(infer(network, images, opt), infer(network.first, images, opt))
    both = infer(_BothImages(network), images, opt).images
    return StageResults(*(Result(image) for image in both.chunk(2, 1)))


class StageValidation:
    """Mixed into a model whose ``net_g`` is an :class:`~basicsr_ext.archs.lfcsr_arch.LFCSR`: validates both stages.

    Each metric of ``val.metrics`` is that of the final image, and with the other stage's letter behind its name, as in
    ``psnr_o``, that of the other stage. ``ll_difference`` is the mean absolute difference of both images' LL bands; where
    other bands are constrained, ``high_difference`` (of HL, LH and HH, in the order ``po``) or ``gaussian_difference`` is that
    of them. With ``save_img`` the
    other stage's images are saved too: in training beside the final ones, in tests in a folder of their own.
    """

    opt: dict[str, Any]

    @staticmethod
    def scores_of(metrics: Sequence[str], opt: Mapping[str, Any]) -> list[str]:
        """Names of all scores of a validation, from those of ``val.metrics`` and the options of the run."""
        first = 'p' if opt['network_g'].get('order') == 'po' else 'o'
        return [*metrics, *(f'{name}_{first}' for name in metrics), *_differences(opt)]

    def test(self) -> None:
        """Runs ``self.lq`` through the EMA network where there is one, else through ``net_g``; keeps both images."""
        network = self.net_g_ema if hasattr(self, 'net_g_ema') else self.net_g
        self.results = run_stages_in_test(network, self.lq, self.opt)
        self.output, self.output_luminance = self.results.final

    def on_image_scored(self, scores: Mapping[str, float]) -> None:
        """Is told the scores of each image of a validation; a run that keeps them replaces this method."""

    def nondist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Validates on all images of a loader, on this rank.

        Args:
            dataloader: One image at a time.
            current_iter: Iteration, for log and file names.
            tb_logger: TensorBoard's writer, or ``None``.
            save_img: Whether to save the images.
        """
        dataset = dataloader.dataset.opt['name']
        measures = self.opt['val'].get('metrics') is not None
        totals: dict[str, float] = {}
        for data in tqdm(dataloader, unit='image', disable=not self.opt['val'].get('pbar')):
            self.feed_data(data)
            self.test()
            # now: tensor2img limits images on the CPU in place
            differences = {name: self.results.difference(bands) for name, bands in _differences(self.opt).items()}
            visuals = self.get_current_visuals()
            final, first = tensor2img([visuals['result']]), tensor2img([self.results.first.images.cpu()])
            if save_img:
                name = os.path.splitext(os.path.basename(data['lq_path'][0]))[0]
                for image, is_first in ((final, False), (first, True)):
                    imwrite(image, self._picture_path(dataset, name, current_iter, is_first))
            if measures:
                scores = self._scores(final, first, tensor2img([visuals['gt']]) if 'gt' in visuals else None)
                scores.update(differences)
                self.on_image_scored(scores)
                totals = {metric: totals.get(metric, 0.0) + value for metric, value in scores.items()}
        if measures:
            self._initialize_best_metric_results(dataset)
            self.metric_results = {metric: total / len(dataloader) for metric, total in totals.items()}
            for metric, value in self.metric_results.items():
                self._update_best_metric_result(dataset, metric, value, current_iter)
            self._log_validation_metric_values(current_iter, dataset, tb_logger)

    def _scores(self, final: Any, first: Any, gt: Any) -> dict[str, float]:
        """Every metric of both images, BGR arrays on [0, 255]."""
        scores: dict[str, float] = {}
        for image, result, ending in ((final, self.results.final, ''), (first, self.results.first, self._ending)):
            self.output_luminance = result.luminance  # which metrics of luminance take instead of the image
            data = {'img': image} if gt is None else {'img': image, 'img2': gt}
            for name, block in self.opt['val']['metrics'].items():
                # looked up anew: a run under our command has its own
                scores[name + ending] = float(sr_model.calculate_metric(data, block))
        return scores

    @property
    def _ending(self) -> str:
        """Of names that belong to the stage that runs first."""
        return f'_{self.net_g.order[0]}'

    def _picture_path(self, dataset: str, name: str, iteration: Any, is_first: bool) -> str:
        """Where BasicSR saves a picture; those of the first stage have its letter in the name, or in that of the folder."""
        root, ending = self.opt['path']['visualization'], self._ending if is_first else ''
        if self.opt['is_train']:
            return os.path.join(root, name, f'{name}_{iteration}{ending}.png')
        suffix = self.opt['val'].get('suffix') or self.opt['name']
        return os.path.join(root, f'{dataset}{ending}', f'{name}_{suffix}.png')

    def _initialize_best_metric_results(self, dataset_name: str) -> None:
        """Begins the records of the best values, those of the other stage and of the difference too."""
        super()._initialize_best_metric_results(dataset_name)
        record = self.best_metric_results[dataset_name]
        metrics = self.opt['val']['metrics']
        better = {name: block.get('better', 'higher') for name, block in metrics.items()}
        names = self.scores_of(list(metrics), self.opt)
        directions = [*better.values(), *better.values(), *('lower' for _ in _differences(self.opt))]
        for name, which in zip(names, directions, strict=True):
            worst = float('-inf') if which == 'higher' else float('inf')
            record.setdefault(name, {'better': which, 'val': worst, 'iter': -1})
