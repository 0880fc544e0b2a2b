"""What becomes of finished pieces where a step does not come to its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from basicsr_ext.errors import Interrupted, UserError
from basicsr_ext.prepare.pieces import Pieces


@contextmanager
def kept(pieces: Pieces, count: int, after: type[UserError] = Interrupted) -> Iterator[None]:
    """Keeps the pieces where work fails or is stopped, and says so; a folder without finished pieces is not kept.

    Args:
        pieces: Of a step; what this process does not own is left as it is.
        count: How many there are when all is done.
        after: The mistakes of a user's after which they are kept; they are removed after others, such as a damaged image,
            since they cannot be gone on with when it is another image.

    Raises:
        UserError: The one that comes, with a note of what is kept.
    """
    try:
        yield
    except BaseException as error:
        if not pieces.owned:
            pieces.leave()
            raise
        done = sum(pieces.has(index) for index in range(count))
        if not done or (isinstance(error, UserError) and not isinstance(error, after)):
            pieces.remove()
            raise
        pieces.leave()
        if isinstance(error, UserError):
            raise Interrupted(
                f'{error} {done} of {count} pieces of the work are kept in {pieces.folder}: the same command goes on with '
                'them; remove that folder to begin anew.'
            ) from error
        raise
