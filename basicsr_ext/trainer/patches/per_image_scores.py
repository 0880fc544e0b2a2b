"""The scores of every image, of which BasicSR's validation keeps only the means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os.path import splitext
from typing import Any

import numpy as np
import torch

from basicsr_ext.distributed import on_all_ranks
from basicsr_ext.functional.luminance import luminance
from basicsr_ext.storage.folder import EXTENSIONS
from basicsr_ext.trainer.patches import image_io

Scores = dict[str, dict[str, float]]
_Noted = list[tuple[str, dict[str, float]]]  # path of an image below its folder


class ScoreRecord:
    """Stands between BasicSR's validation and its metrics.

    Attributes:
        sets: Name of a set -> path and scores of each image of this rank, in order. An image is named as its GT image,
            where there is one, as ``basicsr evaluate`` does.
    """

    def __init__(self) -> None:
        self.sets: dict[str, _Noted] = {}
        self.model: Any = None
        self._noted: _Noted | None = None
        self._options: Mapping[str, Any] = {}  # of the dataset

    def follow(self, model: Any) -> None:
        """Watches what the model is given: which set, which image."""
        self.model = model
        validation, feed_data = model.validation, model.feed_data

        def noting_validation(dataloader: Any, *arguments: Any, **named: Any) -> None:
            self._options = dataloader.dataset.opt
            self._noted = self.sets.setdefault(_unused(self._options['name'], self.sets), [])
            try:
                validation(dataloader, *arguments, **named)
            finally:
                self._noted = None

        def noting_feed_data(data: dict[str, Any], *arguments: Any, **named: Any) -> None:
            kind = next((kind for kind in ('gt', 'lq') if isinstance(data.get(f'{kind}_path'), (list, tuple))), None)
            if self._noted is not None and kind is not None:
                path = _below(str(data[f'{kind}_path'][0]), self._options.get(f'dataroot_{kind}'))
                self._noted.append((path, {}))
            feed_data(data, *arguments, **named)

        model.validation, model.feed_data = noting_validation, noting_feed_data
        if hasattr(model, 'on_image_scored'):
            model.on_image_scored = self._replace_last

    def _replace_last(self, scores: Mapping[str, float]) -> None:
        """Takes the scores of an image from a model that measures more than one image of its own for each."""
        if self._noted:
            self._noted[-1] = (self._noted[-1][0], dict(scores))

    def calculate_metric(self, data: dict[str, Any], opt: dict[str, Any]) -> Any:
        """Computes a metric as BasicSR does, and notes it.

        Where a network made the luminance of a colour image, metrics of luminance get what it made, not what is left of it
        in the colours of an image; where images are luminance, they get output and GT image before these were rounded.

        Args:
            data: ``img`` and, where there is one, ``img2``: BGR or grey arrays on [0, 255].
            opt: The metric's block of ``val.metrics``.
        """
        made, gt = (getattr(self.model, f'{name}_luminance', None) for name in ('output', 'gt'))
        shown = not isinstance(data['img'], image_io.NotFinite)
        if shown and made is not None and opt.get('test_y_channel') and 'img2' in data:
            if gt is not None:
                data = {'img': _as_array(made), 'img2': _as_array(gt)}
            elif data['img2'].shape[-1] == 3:
                data = {'img': _as_array(made), 'img2': luminance(data['img2'][..., ::-1])[..., None]}
        value = image_io.calculate_metric(data, opt)
        if self._noted:
            metrics = self.model.opt['val']['metrics']
            name = next((name for name, block in metrics.items() if block is opt), str(opt.get('type')))
            self._noted[-1][1][name] = float(value)
        return value

    def gathered(self) -> dict[str, Scores]:
        """Scores by set, image and metric, from all ranks, images in the order of their names; all ranks must
        call it.

        Sets of which nothing was noted are left out: without metrics, or of models that validate in another way.
        """
        everyone: list[dict[str, _Noted]] = on_all_ranks(self.sets)
        gathered = {}
        for name in self.sets:
            noted = sorted((image for share in everyone for image in share.get(name, [])), key=lambda image: image[0])
            if noted and all(scores for _, scores in noted):
                names = image_names([path for path, _ in noted])
                gathered[name] = dict(sorted((image, scores) for image, (_, scores) in zip(names, noted, strict=True)))
        return gathered


def image_names(paths: list[str]) -> list[str]:
    """Returns names for images: keys, and paths without extension where that tells them apart, else numbered."""
    names = [stem if extension.lower() in EXTENSIONS else stem + extension for stem, extension in map(splitext, paths)]
    return names if len(set(names)) == len(names) else [f'{place}: {path}' for place, path in enumerate(paths, 1)]


def _below(path: str, folder: Any) -> str:
    """The path of a file below the folder of its set, or else its name; a store's key stays as it is."""
    if isinstance(folder, str) and path.startswith(folder):
        return os.path.relpath(path, folder)
    return os.path.basename(path) if os.path.isabs(path) else path


def _unused(name: Any, names: Any) -> str:
    """A name of its own for each of several sets of one name."""
    name, number = str(name), 2
    while (other := name if number == 2 else f'{name} ({number - 1})') in names:
        number += 1
    return other


def _as_array(image: torch.Tensor) -> np.ndarray:
    return image[0, 0].clamp(0, 1).mul(255).double().cpu().numpy()[..., None]
