"""Integer images become float32 in [0, 1]; everything else stays."""

from __future__ import annotations

import torch

from basicsr_ext.functional.ranges import to_unit_range


def test_integer_images_by_hand():
    assert to_unit_range(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == torch.tensor([0, 0.2, 1]).tolist()
    assert (
        to_unit_range(torch.tensor([0, 13107, 65535], dtype=torch.uint16)).tolist()
        == torch.tensor([0, 0.2, 1]).tolist()
    )


def test_other_tensors_are_left_alone():
    for tensor in (torch.tensor([0.5, 2.0]), torch.tensor([300]), torch.tensor([0.5], dtype=torch.float16)):
        assert to_unit_range(tensor) is tensor
