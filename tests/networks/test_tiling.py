"""Tiles against whole images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.networks.tiling import (
    check_tile,
    lay_tiles,
    overlap_warning,
    pad_to_multiple,
    resolve_overlap,
    tile_weights,
    tiled_forward,
)

RADIUS = 4


@pytest.fixture
def network() -> nn.Module:
    """Two 5x5 convolutions and a pixel shuffle in float64: enlarges by 2, with a receptive field of radius RADIUS."""
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 12, 5, padding=2), nn.PixelShuffle(2))
        .double()
        .requires_grad_(False)
    )


@pytest.mark.parametrize(('height', 'width'), [(40, 40), (33, 57), (16, 23), (7, 50), (5, 6), (1, 17)])
@pytest.mark.parametrize(('tile', 'overlap', 'batch_size'), [(16, 8, 1), (17, 9, 4), (12, 11, 64)])
def test_equals_the_whole_image(network, height, width, tile, overlap, batch_size):
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    tiled = tiled_forward(network, image, 2, tile, overlap, batch_size)
    torch.testing.assert_close(tiled, network(image), rtol=0, atol=1e-10)


def test_differs_where_the_overlap_is_too_small(network):
    image = torch.rand(1, 3, 40, 40, dtype=torch.float64)
    difference = (tiled_forward(network, image, 2, 16, 2) - network(image)).abs()
    assert difference.max() > 1e-6
    assert difference[..., :8, :8].max() < 1e-10  # the corner is far from any cut


def test_several_images_and_batches_across_them(network):
    images = torch.rand(3, 3, 30, 20, dtype=torch.float64)
    torch.testing.assert_close(tiled_forward(network, images, 2, 16, 8, 5), network(images), rtol=0, atol=1e-10)


def test_tiles_are_of_one_size_and_batched():
    shapes = []

    def network(tiles):
        shapes.append(tuple(tiles.shape))
        return tiles

    image = torch.rand(1, 1, 30, 11)
    torch.testing.assert_close(tiled_forward(network, image, 1, 12, 4, batch_size=3), image, rtol=0, atol=1e-6)
    assert shapes == [(3, 1, 12, 11), (1, 1, 12, 11)]


def test_without_tiles_the_network_runs_once():
    calls = []
    tiled_forward(lambda image: calls.append(image.shape) or image, torch.rand(2, 3, 9, 9), 1, None)
    assert calls == [(2, 3, 9, 9)]


@pytest.mark.parametrize('length', [1, 9, 10, 11, 16, 37, 100])
@pytest.mark.parametrize('overlap', [0, 1, 4, 8, 9])
@pytest.mark.parametrize('scale', [1, 3])
def test_weights_sum_to_one_and_keep_their_margin(length, overlap, scale):
    tiles = lay_tiles(length, 10, overlap)
    weights = tile_weights(tiles, scale)
    total = torch.zeros(length * scale, dtype=torch.float64)
    for start, row in zip(tiles.starts, weights, strict=True):
        assert 0 <= start <= max(length - 10, 0)
        assert row.min() >= 0
        total[start * scale : start * scale + len(row)] += row
        margin = overlap // 2 * scale
        assert start == 0 or not row[:margin].any()
        assert start + tiles.size == length or not row[len(row) - margin :].any()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_tiles_fade_into_one_another():
    """A network that gives each tile another brightness: no step, where a cut would make one of 1."""
    brightness = iter([0.0, 1.0])
    result = tiled_forward(lambda tile: torch.full_like(tile, next(brightness)), torch.zeros(1, 1, 8, 76), 1, 48, 16)
    assert result[..., 0].max() == 0 and result[..., -1].min() == 1
    steps = result[0, 0, 0].diff()
    assert steps.min() >= 0 and 0 < steps.max() < 0.5


@pytest.mark.parametrize('window', [4, 8])
@pytest.mark.parametrize(('height', 'width'), [(40, 33), (5, 70), (3, 1)])
def test_windows(window, height, width):
    """A network that takes whole windows only, and treats each by itself, as the whole image would be treated."""

    def network(image):
        assert image.shape[-1] % window == image.shape[-2] % window == 0
        blocks = torch.nn.functional.avg_pool2d(image, window)
        return image * blocks.repeat_interleave(window, -1).repeat_interleave(window, -2)

    image = torch.rand(2, 3, height, width, dtype=torch.float64)
    whole = tiled_forward(network, image, 1, None, window=window)
    assert whole.shape == image.shape
    expected = network(pad_to_multiple(image, window))[..., :height, :width]
    torch.testing.assert_close(whole, expected, rtol=0, atol=0)
    for tile, overlap in ((18, 3), (9, 8), (1, 0)):
        tiled = tiled_forward(network, image, 1, tile, overlap, 3, window)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)


def test_padding_mirrors_as_torch_does_and_images_of_any_size():
    image = torch.rand(1, 2, 9, 13)
    expected = nn.functional.pad(image, (0, 3, 0, 7), mode='reflect')
    assert torch.equal(pad_to_multiple(image, 8), expected)
    assert pad_to_multiple(torch.tensor([[1.0, 2.0, 3.0]]), 8)[0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert torch.equal(pad_to_multiple(torch.ones(1, 1, 1, 1), 4), torch.ones(1, 1, 4, 4))


def test_the_scale_is_found():
    image = torch.rand(1, 3, 20, 24)
    enlarge = nn.Upsample(scale_factor=3)
    for tile in (None, 10):
        torch.testing.assert_close(tiled_forward(enlarge, image, None, tile, 4, window=5), enlarge(image))


def test_half_precision_is_blended_in_float32():
    image = torch.full((1, 1, 40, 40), 0.999, dtype=torch.bfloat16)
    assert torch.equal(tiled_forward(lambda tile: tile, image, 1, 16, 8), image)


def test_a_network_of_another_scale_is_named():
    with pytest.raises(UserError, match=r'8x8 pixels into 16x16, expected 32x32 for scale 4'):
        tiled_forward(lambda image: image.repeat(1, 1, 2, 2), torch.rand(1, 3, 20, 20), 4, 8, 2)


def test_a_network_with_several_outputs_is_refused():
    with pytest.raises(UserError, match='gives list, expected one image tensor'):
        tiled_forward(lambda image: [image, image], torch.rand(1, 3, 20, 20), 1, None)


@pytest.mark.parametrize(('tile', 'overlap', 'message'), [(0, 0, 'tile'), (8, 8, '0 to 7'), (8, -1, '0 to 7')])
def test_sizes_out_of_range(tile, overlap, message):
    with pytest.raises(UserError, match=message):
        tiled_forward(lambda image: image, torch.rand(1, 3, 20, 20), 1, tile, overlap)


def test_a_default_overlap_is_at_most_half_of_a_tile():
    assert [resolve_overlap(tile, None) for tile in (None, 256, 32, 17, 16, 1)] == [16, 16, 16, 8, 8, 0]
    assert resolve_overlap(17, 15) == 15
    for tile in range(1, 64):
        check_tile(tile, None)
        tiles = lay_tiles(1000, tile, resolve_overlap(tile, None))
        assert len(tiles.starts) <= 1000 / max(1, tile // 3)
    assert overlap_warning(17, None) == overlap_warning(None, 16) == overlap_warning(32, 16) == ''
    assert overlap_warning(17, 16).startswith('tiles of 17 pixels that share 16 go on by 1 or fewer')
