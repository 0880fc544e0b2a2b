"""The exceptions that the command turns into one-line messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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


class Interrupted(UserError):
    """A failure of the machine (a full disk, too little memory), not of what was given: what is done is still good."""


def writing_failed(path: object, error: Exception) -> Interrupted:
    """The error for what could not be written.

    Args:
        path: Of the file or folder.
        error: Why.
    """
    reason = getattr(error, 'strerror', None) or error
    return Interrupted(
        f'{path}: writing failed ({reason}). Check that the place is writable and has room, or choose another.'
    )


def diverged(what: str) -> UserError:
    """The error for a training whose numbers are no longer finite.

    Args:
        what: Where and when that was found, such as "in iteration 7 the loss l_pix is not finite".
    """
    return UserError(
        f'The training diverged: {what}. It ends here; checkpoints saved before are unharmed. Start anew, from one of them '
        '(path.pretrain_network_g) or from the beginning, with a lower learning rate, train.grad_clip or train.guard.'
    )


def brief(text: Any, length: int = 80) -> str:
    """Cuts what a message quotes to a readable length, on one line."""
    try:
        line = str(text)
    except ValueError:  # of an integer with thousands of digits
        line = f'a long {type(text).__name__}'
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if len(line) <= length else f'{line[: length - 3]}...'


def first_of(texts: Sequence[str], count: int = 3) -> str:
    """Lists the first texts, and says how many more there are."""
    more = f' and {len(texts) - count} more' if len(texts) > count else ''
    return ', '.join(texts[:count]) + more


class RankLost(UserError):
    """Another rank has ended in the middle of a run: why is said in its output, not in this one's.

    Attributes:
        stopping: Whether this rank had been asked to stop already.
    """

    def __init__(self, error: Exception, stopping: bool = False):
        super().__init__(
            f'another rank has ended, and its output says why (here: {str(error).splitlines()[0]}). Mend that, then go on '
            'with --auto_resume.'
        )
        self.stopping = stopping


class Stopped(Exception):
    """The run was asked to stop, and has saved.

    Attributes:
        iteration: The last one done; ``None`` where only the ranks know.
        signal_number: What asked; 0 where another rank was asked.
    """

    def __init__(self, iteration: int | None, signal_number: int, saved: int | None = None):
        """Says what was saved: that iteration, or an earlier one, 0 for none, where the last steps were skipped."""
        if iteration is None:
            message = 'the ranks were stopped; what they have saved is said above'
        elif saved is None or saved == iteration:
            message = f'stopped and saved after iteration {iteration}; go on with --auto_resume'
        else:
            newest = f'the newest checkpoint is that of iteration {saved}' if saved else 'there is no checkpoint'
            message = (
                f'stopped after iteration {iteration}, not saved, since its step was skipped (train.guard); {newest}'
            )
        super().__init__(message)
        self.iteration = iteration
        self.signal_number = signal_number
