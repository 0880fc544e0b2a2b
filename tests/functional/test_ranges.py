"""Integer images become float32 in [0, 1]; everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from basicsr_ext.functional.pixels import to_unit_range


def test_integer_images_by_hand():
    assert to_unit_range(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == torch.tensor([0, 0.2, 1]).tolist()
    assert (
        to_unit_range(torch.tensor([0, 13107, 65535], dtype=torch.uint16)).tolist()
        == torch.tensor([0, 0.2, 1]).tolist()
    )


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
@pytest.mark.parametrize('largest', [255, 65535])
def test_every_value_is_the_float32_quotient(largest, device):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')
    values = np.arange(largest + 1, dtype=np.uint8 if largest == 255 else np.uint16)
    expected = torch.from_numpy(values.astype(np.float32) / np.float32(largest))
    images = torch.from_numpy(values).to(device)
    assert torch.equal(to_unit_range(images).cpu(), expected)
    channels_last = images.view(1, 4, -1, 2).permute(0, 3, 1, 2)
    found = to_unit_range(channels_last)
    assert torch.equal(found.cpu(), expected.view(1, 4, -1, 2).permute(0, 3, 1, 2))
    assert found.stride() == channels_last.stride()
    assert to_unit_range(images[51]).item() == expected[51].item()


def test_other_tensors_are_left_alone():
    for tensor in (torch.tensor([0.5, 2.0]), torch.tensor([300]), torch.tensor([0.5], dtype=torch.float16)):
        assert to_unit_range(tensor) is tensor
