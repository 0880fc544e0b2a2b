"""The exceptions that the command turns into one-line messages."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend: an option, a file, a path, a command line.

    The message says what was expected, what was found, and which option or file to change. The command prints it without
    a traceback and exits with status 2.
    """

    def __init__(self, message: str):
        # torch raises an error of a loader's worker again with the worker's traceback as its message
        super().__init__(
            message.rpartition(f'{type(self).__name__}: ')[2].strip() if 'Original Traceback' in message else message
        )


class Stopped(Exception):
    """The run was asked to stop, and has saved.

    Attributes:
        iteration: The last one done; ``None`` where only the ranks know.
        signal_number: What asked; 0 where another rank was asked.
    """

    def __init__(self, iteration: int | None, signal_number: int):
        super().__init__(
            'the ranks were stopped; what they have saved is said above'
            if iteration is None
            else f'stopped and saved after iteration {iteration}; go on with --auto_resume'
        )
        self.iteration = iteration
        self.signal_number = signal_number
