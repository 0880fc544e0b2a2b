"""Losses, in BasicSR's registry."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'contextual_loss': ('ContextualLoss',),
        'cria_loss': ('CriaLoss',),
        'feature_loss': ('FeatureLoss',),
        'pspl_loss': ('PSPLLoss',),
        'vgg_features': ('VGGFeatures',),
    },
    needs_basicsr=True,
)
