"""Tables of known keys."""

from __future__ import annotations

from typing import Literal, NamedTuple

from basicsr_ext.options.kinds import Kind

Need = Literal['never', 'always', 'train', 'test']


class Key(NamedTuple):
    """What is known about an option.

    Attributes:
        kind: Values that it takes.
        need: When it must be given.
    """

    kind: Kind
    need: Need = 'never'

    def is_needed(self, is_train: bool) -> bool:
        """Whether it must be given; for a dataset, ``is_train`` is about its phase."""
        return self.need == 'always' or self.need == ('train' if is_train else 'test')


Table = dict[str, Key]


def need(kind: Kind, when: Need = 'always') -> Key:
    """A key that must be given."""
    return Key(kind, when)


def may(kind: Kind) -> Key:
    """A key that may be given."""
    return Key(kind)
