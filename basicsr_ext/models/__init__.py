"""Models in BasicSR's registry, on one shared base."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'ail.ail_model': ('AILModel',),
        'training_model': ('TrainingModel',),
        'criacl_model': ('CriaCLModel',),
        'eco_model': ('ECOModel',),
        'lfcsr.lfcsr_model': ('LFCSRModel',),
    },
    needs_basicsr=True,
)
