"""Typed structure for the block of a :class:`~basicsr_ext.data.mixed_store_dataset.MixedStoreDataset`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from basicsr_ext.data.store_options import DataRoot, KeyTemplate, StoreOptions
from basicsr_ext.options.config import OptionBlock


class NoiseOptions(OptionBlock):
    """``noise`` of a source: its LQ images get the noise of another set.

    Attributes:
        dataroot: Image store of windows without structure, cut from noisy images and at least as large as an LQ crop;
            ``basicsr prepare noise`` makes it.
        probability: Of a sample to get noise.
    """

    dataroot: DataRoot
    probability: float = Field(1, ge=0, le=1)


class MixedSourceOptions(OptionBlock):
    """One of the ``sources``.

    Attributes:
        dataroot_gt: Image store of the GT images.
        dataroot_lq: Image store of the LQ images.
        filename_tmpl: LQ key, with ``{}`` in place of the GT key.
        folder: Takes only the images whose keys lie in this folder of the stores; default: all.
        weight: Share of the samples that come from this source, relative to the other sources' weights; where no source has
            one, each gives samples in proportion to the area of its LQ images.
        noise: Noise that is added to the LQ crops.
    """

    dataroot_gt: DataRoot
    dataroot_lq: DataRoot
    filename_tmpl: KeyTemplate = '{}'
    folder: str | None = Field(None, min_length=1)
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    noise: NoiseOptions | None = None


class MixedStoreOptions(StoreOptions):
    """Options of :class:`~basicsr_ext.data.mixed_store_dataset.MixedStoreDataset`, besides those of :class:`StoreOptions`.

    Attributes:
        phase: Training only.
        grid: Not offered: images are drawn by the sources' weights.
        sampling: Not offered either: in a source by area.
        sources: Name -> where its pairs come from. Keys of images begin with the name.
    """

    phase: Literal['train']
    grid: Literal[False] = False
    sampling: Literal['area'] = 'area'
    sources: dict[str, MixedSourceOptions] = Field(min_length=1)

    @field_validator('sources')
    @classmethod
    def _names(cls, sources: dict[str, MixedSourceOptions]) -> dict[str, MixedSourceOptions]:
        for name in sources:
            if not name or '/' in name:
                raise ValueError(f'Expected names without a slash, which ends them in keys of images, found {name!r}')
        return sources

    @field_validator('sources')
    @classmethod
    def _weights_of_all(cls, sources: dict[str, MixedSourceOptions]) -> dict[str, MixedSourceOptions]:
        without = [name for name, source in sources.items() if source.weight is None]
        if 0 < len(without) < len(sources):
            raise ValueError(f'Expected a weight for every source or for none, and {", ".join(without)} has none')
        return sources
