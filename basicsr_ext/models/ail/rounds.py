"""What is said of a round of AIL: measured on its batches, and written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import torch

from basicsr_ext.distributed import Ranks
from basicsr_ext.errors import writing_failed


class RoundMeans:
    """Means over the batches of a round.

    Attributes:
        sums: Of all batches so far, on this rank, float64: number of values, their importance, those at 1, and the squared
            errors of the student as it was when the round began (NaN in round 0). ``None`` before the first batch.
    """

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None

    def add(self, weights: torch.Tensor, output: torch.Tensor | None, gt: torch.Tensor) -> None:
        """Adds a batch; nothing waits for a GPU.

        Args:
            weights: Importance, of the shape of ``gt``.
            output: Of the student as it was when the round began, if there was one.
            gt: Images in [0, 1].
        """
        errors = weights.new_full((), torch.nan) if output is None else (output.clamp(0, 1) - gt).square().sum()
        values = (
            weights.new_full((), weights.numel(), dtype=torch.float64),
            weights.sum(),
            (weights == 1).sum(),
            errors,
        )
        sums = torch.stack([value.to(torch.float64) for value in values])
        self.sums = sums if self.sums is None else self.sums.to(sums.device) + sums

    def so_far(self) -> dict[str, torch.Tensor | float]:
        """Mean importance, share at 1, and PSNR (dB) of the squared error of all batches, on this rank."""
        return {} if self.sums is None else _means(self.sums)

    def of_all(self, ranks: Ranks) -> dict[str, float]:
        """The same over all ranks, which must call it; nothing trained, as with an importance of 0, is 0."""
        sums = [sums for sums in ranks.gather(None if self.sums is None else self.sums.cpu()) if sums is not None]
        means = _means(torch.stack(sums).sum(0)) if sums else {'mean': 0.0, 'share_at_one': 0.0}
        return {name: float(value) for name, value in means.items() if name != 'psnr' or value == value}


def _means(sums: torch.Tensor) -> dict[str, torch.Tensor | float]:
    count, importance, full, errors = sums
    return {'mean': importance / count, 'share_at_one': full / count, 'psnr': -10 * torch.log10(errors / count)}


def in_words(record: Mapping[str, float]) -> str:
    """What a record says of a round, for the log."""
    text = f'AIL round {record["round"]:.0f}, after iteration {record["iteration"]:.0f}'
    names = {'mean': 'mean importance', 'share_at_one': 'share at 1', 'psnr': 'PSNR of the student on training images'}
    return ', '.join([text, *(f'{name} {record[key]:.4f}' for key, name in names.items() if key in record)])


def write_record(path: Path, record: Mapping[str, float]) -> None:
    """Adds the record of a round to a file, in place of those of this and later rounds, which are done anew.

    Args:
        path: Of the file, ``rounds.json``.
        record: With ``round``, its number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(path.read_text()) if path.is_file() else []
    records = [entry for entry in earlier if entry['round'] < record['round']] + [record]
    partial = path.with_name(path.name + '.partial')
    partial.write_text('[\n' + ',\n'.join(map(json.dumps, records)) + '\n]\n')
    partial.replace(path)


def write_picture(path: Path, importance: torch.Tensor) -> None:
    """Draws importance in grey, 1 in white.

    Args:
        path: Of the PNG file.
        importance: (channels, height, width), in [0, 1]; the mean over the channels is drawn.

    Raises:
        UserError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), (importance.mean(0) * 255).round().byte().cpu().numpy()):
        raise writing_failed(path, OSError('no room, or no permission'))
