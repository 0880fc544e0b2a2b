"""What all steps that make images from images share: processes, stopping and going on, an output that is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from basicsr_ext.errors import Interrupted, UserError
from basicsr_ext.prepare.assembling import Encoded, assemble, begin, image_folder
from basicsr_ext.prepare.jobs import run_jobs
from basicsr_ext.prepare.keeping import kept
from basicsr_ext.prepare.output import Output
from basicsr_ext.prepare.pieces import Pieces
from basicsr_ext.prepare.png import write_png

Images = Mapping[str, np.ndarray]


class Part(NamedTuple):
    """Makes one piece, in whichever process: calls the function for a job, and keeps its images."""

    function: Callable[[Any], Mapping[str, Images]]
    pieces: Pieces
    outputs: Mapping[str, Output]

    def __call__(self, numbered: tuple[int, Any]) -> None:
        index, job = numbered
        arrays = {}
        for kind, images in self._images(job).items():
            output = self.outputs[kind]
            for key, image in images.items():
                if not output.is_store:
                    with self.pieces.reporting():
                        folder = image_folder(self.pieces, kind)
                        write_png(folder, key, image, output.compress_level, scratch=self.pieces.folder)
                elif output.layout == 'basicsr':
                    arrays[f'{kind} {key}'] = Encoded.pack(image, output.compress_level)
                else:
                    arrays[f'{kind} {key}'] = image
        self.pieces.save(index, arrays)

    def _images(self, job: Any) -> Mapping[str, Images]:
        try:
            return self.function(job)
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # it could not be read: nothing says that the image is damaged
                raise Interrupted(str(error)) from error
            raise


def make_images(
    function: Callable[[Any], Mapping[str, Images]],
    jobs: Sequence[Any],
    outputs: Mapping[str, Output],
    *,
    settings: Mapping[str, Any],
    num_workers: int,
    description: str,
) -> None:
    """Makes stores or folders of images from what a function gives for each job.

    The outputs appear when all is done. A run that was stopped, even killed or by a full disk, leaves its work beside the
    last output, in ``<output>.parts``; the same call goes on with it, and what it makes equals, to the bit, what an
    undisturbed run makes. A mistake of the user's leaves nothing.

    Args:
        function: Gives kind -> name -> image for a job; can be pickled.
        jobs: Its arguments; in this order images get into a store.
        outputs: Kind -> where its images go.
        settings: All that the images depend on.
        num_workers: Processes.
        description: Of the step, for the user.

    Raises:
        UserError: An output exists, the settings are not those of the stopped run, a job fails, or writing does.
    """
    for output in outputs.values():
        output.check()
    *_, last = outputs.values()
    forms = [[kind, output.layout, output.compress_level, str(output.dtype)] for kind, output in outputs.items()]
    pieces = Pieces(last.path, {**settings, 'outputs': forms})
    finished_before = begin(pieces, outputs)
    with kept(pieces, len(jobs)):
        if not finished_before:
            missing = [(index, job) for index, job in enumerate(jobs) if not pieces.has(index)]
            part = Part(function, pieces, outputs)
            done = len(jobs) - len(missing)
            for _ in run_jobs(part, missing, num_workers=num_workers, description=description, done=done):
                pass
            assemble(pieces, len(jobs), outputs)
    pieces.remove()
