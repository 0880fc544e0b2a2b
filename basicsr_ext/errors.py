"""The exceptions that the command turns into one-line messages."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend: an option, a file, a path, a command line.

    The message says what was expected, what was found, and which option or file to change. The command prints it without
    a traceback and exits with status 2.
    """


class Stopped(Exception):
    """The run was asked to stop, and has saved.

    Attributes:
        iteration: The last one done.
        signal_number: What asked; 0 where another rank was asked.
    """

    def __init__(self, iteration: int, signal_number: int):
        super().__init__(f'stopped and saved after iteration {iteration}; go on with --auto_resume')
        self.iteration = iteration
        self.signal_number = signal_number
