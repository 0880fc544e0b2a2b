"""The shared base as a model of its own, for training with plain losses."""

from __future__ import annotations

from basicsr.utils.registry import MODEL_REGISTRY

from basicsr_ext.models.base import TrainingModel

MODEL_REGISTRY.register(TrainingModel)
