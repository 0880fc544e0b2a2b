"""Options of AIL: ``train.ail``."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from basicsr_ext.errors import UserError
from basicsr_ext.models.teacher_options import Teacher
from basicsr_ext.options.config import OptionBlock


class AILOptions(OptionBlock):
    """``train.ail``.

    Attributes:
        form: ``recursive`` (the paper: a map per training image, raised each round), ``direct`` (the published code: no
            maps are stored) or ``distillation`` (the baseline of Eq. 10: no importance, the teacher as second target).
        rounds: Updates of the importance after round 0, so that there are one more trainings (the paper: 10; the published
            code: 9). Training must be longer than so many rounds. 0 for ``distillation``, which has no importance, unless its
            learning rate shall restart like AIL's.
        round_iterations: Length of a round; or
        round_epochs: the same in epochs of the training set, with its ``dataset_enlarge_ratio``: with ``grid: true`` an
            epoch is as long as that of the published generator, 2,897 batches of 128 at x2 with a ratio of 12 (3 flips x 4
            turns), 241 with 1 as before October 2017. Optimizers and schedulers start again with each round, but
            for the momentum; the last round goes on to ``train.total_iter``.
        initialization: Importance of round 0: from the ``teacher``'s errors, ``zeros`` (round 0 then trains nothing),
            ``random`` or ``ones``.
        midpoint: mu0 of Eq. 9, an error of images in [0, 1].
        steepness: alpha0 of Eq. 9.
        step: lambda of Eq. 7.
        error: What d of Eq. 7 is: ``squared`` or ``absolute`` error of the student; default: squared in the recursive form,
            absolute in the direct one.
        error_scale: Factor of d; default: 1 in the recursive form, 10 in the direct one, as published.
        teacher: The stronger network, in the student's colour space; needed by ``initialization: teacher`` and by
            ``distillation``.
        distillation_weight: Of the second term of Eq. 10.
        map_dtype: Of stored maps: ``float16`` or ``uint8``; see :class:`~basicsr_ext.models.ail.map_files.ImportanceMaps`.
        update_tile: Runs networks over whole images in tiles of this size, in LQ pixels, to save memory when maps are made.
        update_overlap: Of the tiles; default: 16, or half of a smaller tile.
        pictures: Keys of training images whose importance is drawn each round; default: of the first three.
    """

    form: Literal['recursive', 'direct', 'distillation'] = 'recursive'
    rounds: int = Field(default=10, ge=0)
    round_iterations: int | None = Field(default=None, ge=1)
    round_epochs: float | None = Field(default=None, gt=0)
    initialization: Literal['teacher', 'zeros', 'random', 'ones'] = 'teacher'
    midpoint: float = Field(default=0.01, ge=0)
    steepness: float = Field(default=100.0, gt=0)
    step: float = Field(default=0.15, gt=0, le=1)
    error: Literal['squared', 'absolute'] | None = None
    error_scale: float | None = Field(default=None, ge=0)
    teacher: Teacher | None = None
    distillation_weight: float = Field(default=0.1, ge=0)
    map_dtype: Literal['float16', 'uint8'] = 'float16'
    update_tile: int | None = Field(default=None, ge=1)
    update_overlap: int | None = Field(default=None, ge=0)
    pictures: list[str] | None = None

    @field_validator('initialization', mode='before')
    @classmethod
    def _no_form(cls, value: Any) -> Any:
        if value in get_args(cls.model_fields['form'].annotation):
            raise ValueError(f'expected teacher, zeros, random or ones; set form: {value} for that')
        return value

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is asked for."""
        return self.form == 'distillation' or self.initialization == 'teacher'

    @property
    def needs_geometry(self) -> bool:
        """Whether samples must say where they come from."""
        return self.form == 'recursive' or (self.form == 'direct' and self.initialization == 'random')

    def check(self) -> None:
        """Refuses options that do not go together.

        Raises:
            UserError: Begins with the key path.
        """
        if self.form == 'distillation' and self.rounds and self.round_iterations is self.round_epochs is None:
            raise UserError(
                f'train.ail.rounds: form: distillation has no importance to raise. Set rounds: 0 for one training of '
                f'train.total_iter iterations; or, to restart the learning rate as {self.rounds} rounds of AIL do, '
                'round_iterations or round_epochs.'
            )
        if self.rounds and (self.round_iterations is None) == (self.round_epochs is None):
            raise UserError(
                'train.ail.round_iterations: expected this or round_epochs, the length of a round, found '
                + ('neither.' if self.round_epochs is None else 'both.')
            )
        if self.form != 'distillation' and self.initialization == 'zeros' and not self.rounds:
            raise UserError(
                'train.ail.rounds: expected at least 1 with initialization: zeros, which trains nothing in round 0.'
            )
        if self.needs_teacher and self.teacher is None:
            needed_by = 'form: distillation' if self.form == 'distillation' else 'initialization: teacher'
            raise UserError(f'train.ail.teacher: {needed_by} needs a network and its weights, found none.')

    def check_length(self, length: int, total: int) -> None:
        """Refuses a training that ends before its last round begins; the last round itself may be of any length.

        Args:
            length: Of a round, in iterations.
            total: ``train.total_iter``.

        Raises:
            UserError: Begins with the key path.
        """
        trained = (total - 1) // length
        if trained < self.rounds:
            raise UserError(
                f'train.total_iter: expected more than {self.rounds * length} iterations, for {self.rounds} updates of the '
                f'importance, one after every {length} (train.ail), found {total}, which leaves out those after the first '
                f'{trained}. Set total_iter: {(self.rounds + 1) * length}, or train.ail.rounds: {trained}.'
            )

    def length_of_round(self, iterations_per_epoch: int) -> int:
        """Returns the length of a round in iterations."""
        if self.round_iterations is not None:
            return self.round_iterations
        return max(1, round((self.round_epochs or 1) * iterations_per_epoch))
