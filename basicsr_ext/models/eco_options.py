"""Options of ECO: ``train.eco``."""

from __future__ import annotations

import bisect
from typing import Annotated, Literal

from pydantic import Field

from basicsr_ext.models.teacher_options import Teacher
from basicsr_ext.options.config import FromTotal, OptionBlock


class AlphaSchedule(OptionBlock):
    """``train.eco.schedule``: how alpha goes from the centroid (0) to the real image (1).

    Attributes:
        type: ``linear`` (the paper's), ``sigmoid`` (the published code's), ``cosine``, ``step`` or ``constant``.
        end: Length in iterations; default: ``train.total_iter`` of the run's beginning.
        shift: Moves the sigmoid (the paper's Fig. 5).
        at: Progress at which the step goes from 0 to 1.
        value: Of the constant.
        hold: Iterations for which alpha stays what it is in the first of them; 1 moves it every iteration, as the paper. (The
            published code holds it for an epoch.)
    """

    type: Literal['linear', 'sigmoid', 'cosine', 'step', 'constant'] = 'linear'
    end: Annotated[int | None, Field(ge=1), FromTotal(int)] = None
    shift: float = Field(default=0.0, allow_inf_nan=False)
    at: float = Field(default=0.5, ge=0, le=1)
    value: float = Field(default=1.0, ge=0, le=1)
    hold: int = Field(default=1, ge=1)

    def alpha(self, iteration: int, total: int) -> float:
        """Returns alpha of an iteration: a pure function, in [0, 1].

        Args:
            iteration: Counted from 1.
            total: ``train.total_iter``.
        """
        from basicsr_ext.functional import centroid  # with torch, which checks of options do without

        first = iteration - (iteration - 1) % self.hold
        p = centroid.progress(first, self.end or total)
        match self.type:
            case 'linear':
                alpha = centroid.linear_alpha(p)
            case 'sigmoid':
                alpha = centroid.sigmoid_alpha(p, self.shift)
            case 'cosine':
                alpha = centroid.cosine_alpha(p)
            case 'step':
                alpha = centroid.step_alpha(p, self.at)
            case 'constant':
                alpha = self.value
        return min(1.0, max(0.0, alpha))

    def last_mixed_iteration(self, total: int) -> int:
        """Returns the last iteration whose alpha is below 1; 0 where there is none.

        No schedule ever falls, so this is found by bisection.

        Args:
            total: ``train.total_iter``.
        """
        return bisect.bisect_left(range(1, total + 1), 1.0, key=lambda iteration: self.alpha(iteration, total))


class ECOOptions(OptionBlock):
    """``train.eco``.

    Attributes:
        objective: ``eco`` (Eq. 14), ``vanilla`` (x, y*), ``kd`` (x, mu; Eq. 9) or ``noise_free`` (down(mu), mu; Eq. 11).
        schedule: Of alpha; used by ``eco``.
        noise_sigma: Standard deviation of Gaussian noise on the network's input, on [0, 1] (the real-world setting: 0.01).
        teacher: Makes centroids online; small experiments only, since ``down(mu)`` is then computed on patches.
    """

    objective: Literal['eco', 'vanilla', 'kd', 'noise_free'] = 'eco'
    schedule: AlphaSchedule = AlphaSchedule()
    noise_sigma: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    teacher: Teacher | None = None
