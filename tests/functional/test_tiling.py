"""Tiles against whole images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.tiling import tile_spans, tiled_forward

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
    assert torch.equal(tiled_forward(network, image, 1, 12, 4, batch_size=3), image)
    assert shapes == [(3, 1, 12, 11), (1, 1, 12, 11)]


def test_without_tiles_the_network_runs_once():
    calls = []
    tiled_forward(lambda image: calls.append(image.shape) or image, torch.rand(2, 3, 9, 9), 1, None)
    assert calls == [(2, 3, 9, 9)]


@pytest.mark.parametrize('length', [1, 9, 10, 11, 16, 37, 100])
@pytest.mark.parametrize('overlap', [0, 1, 4, 9])
def test_spans_cover_an_axis_once_and_keep_their_margin(length, overlap):
    tile = 10
    spans = tile_spans(length, tile, overlap)
    assert [pixel for span in spans for pixel in range(span.keep_start, span.keep_stop)] == list(range(length))
    for span in spans:
        assert 0 <= span.start <= max(length - tile, 0)
        assert span.keep_start == 0 or span.keep_start - span.start >= overlap // 2
        assert span.keep_stop == length or span.start + tile - span.keep_stop >= overlap // 2


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
