"""The one exception that the command turns into a one-line message."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend: an option, a file, a path, a command line.

    The message says what was expected, what was found, and which option or file to change. The command prints it without
    a traceback and exits with status 2.
    """
