"""train.cuda_graph: when a recorded forward may be replayed. Graphs themselves need a GPU: tests/gpu."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.models import cuda_graphs
from basicsr_ext.models.cuda_graphs import GraphedNetwork

CPU = torch.device('cpu')


class Recorded:
    """Stands for a graph: its output lies in one buffer, and is overwritten by the next replay."""

    def __init__(self, module: nn.Module, sample: torch.Tensor):
        self.module = module
        self.replays = 0
        module(sample)  # a trial run, which moves statistics

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.replays += 1
        self.last = self.module(images)
        return self.last


@pytest.fixture
def recorded(monkeypatch) -> list[Recorded]:
    """The graphs that were recorded."""
    graphs: list[Recorded] = []

    def record(module: nn.Module, samples: tuple, allow_unused_input: bool) -> Recorded:
        graphs.append(Recorded(module, *samples))
        return graphs[-1]

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', record)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda state, device: torch.set_rng_state(state))
    return graphs


def graphed(network: nn.Module) -> GraphedNetwork:
    return GraphedNetwork(network, list(network.parameters()), CPU, 'fp32')


def test_one_forward_between_two_steps_is_replayed(recorded):
    network = nn.Conv2d(3, 3, 1)
    run, images = graphed(network), torch.rand(2, 3, 4, 4)
    outputs = [run(images), run(images)]
    assert [graph.replays for graph in recorded] == [1]  # the second runs without: its activations need their own place
    run.release()
    outputs.append(run(images))
    assert [graph.replays for graph in recorded] == [2]
    assert all(torch.equal(output, network(images)) for output in outputs)
    assert outputs[2].data_ptr() != recorded[0].last.data_ptr()


def test_each_size_has_a_graph_of_its_own_and_there_are_few(recorded):
    run = graphed(nn.Conv2d(3, 3, 1))
    for size in range(4, 12):
        run(torch.rand(1, 3, size, size))
        run.release()
    assert len(recorded) == cuda_graphs.MOST_GRAPHS


def test_what_is_frozen_or_without_gradients_runs_without_a_graph(recorded):
    network = nn.Conv2d(3, 3, 1)
    run = graphed(network)
    with torch.no_grad():
        run(torch.rand(1, 3, 4, 4))
    network.requires_grad_(False)
    run(torch.rand(1, 3, 4, 4, requires_grad=True))
    assert recorded == []


def test_recording_leaves_no_trace(recorded):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    twin = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    twin.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 4, 4)
    torch.manual_seed(0)
    output = graphed(network)(images)
    torch.manual_seed(0)
    assert torch.equal(output, twin(images))
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), twin.buffers(), strict=True))


def test_what_cannot_be_recorded_is_named(monkeypatch, recorded):
    def refuse(*arguments, **further):
        raise RuntimeError('operation not permitted when stream is capturing\nmore')

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', refuse)
    with pytest.raises(UserError, match=r'train.cuda_graph: Conv2d .*Set train.cuda_graph: false'):
        graphed(nn.Conv2d(3, 3, 1))(torch.rand(1, 3, 4, 4))
