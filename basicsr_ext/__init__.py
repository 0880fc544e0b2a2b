"""Training methods for super-resolution networks, as a plugin for BasicSR.

``import basicsr_ext`` is light: it imports neither torch nor BasicSR. :func:`register` makes BasicSR importable on today's
torch and puts this package's classes into BasicSR's registries; :func:`train` and :func:`test` run option files.
"""

from __future__ import annotations

from basicsr_ext.errors import UserError

__version__ = '0.1.0'
__all__ = ['UserError', '__version__', 'register', 'test', 'train']


def register() -> None:
    """Makes BasicSR importable and registers this package's datasets, archs, losses, models and metrics.

    Calling it twice is harmless. It changes no behaviour of BasicSR's own classes.
    """
    from basicsr_ext.registration import register as _register

    _register()


def train(options, **arguments):
    """Trains from an option file or a dictionary of options, and returns what came out: folder, weights, scores.

    See :func:`basicsr_ext.trainer.run.train`.
    """
    from basicsr_ext.trainer.run import train as _train

    return _train(options, **arguments)


def test(options, *arguments, **named):
    """Tests from an option file or a dictionary of options, and returns the scores.

    See :func:`basicsr_ext.evaluation.testing.run_test`.
    """
    from basicsr_ext.evaluation.testing import run_test

    return run_test(options, *arguments, **named)
