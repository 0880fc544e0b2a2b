"""Models in BasicSR's registry, on one shared base."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'ail_model': ('AILModel',),
        'base': ('TrainingModel',),
        'criacl_model': ('CriaCLModel',),
        'eco_model': ('ECOModel',),
        'lfcsr_model': ('LFCSRModel',),
    },
    needs_basicsr=True,
)
