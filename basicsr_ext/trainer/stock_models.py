"""Methods and functions of BasicSR's models as they must be to run on CPUs and several ranks."""

from __future__ import annotations

import torch
from basicsr.utils.img_process_util import filter2D as basicsr_filter2D
from torch.nn.parallel import DataParallel, DistributedDataParallel


def model_to_device(self, net: torch.nn.Module) -> torch.nn.Module:
    """Moves a network to the model's device and wraps it for the ranks.

    Args:
        net: Any network.

    Returns:
        The network, inside ``DistributedDataParallel`` on several ranks.
    """
    net = net.to(self.device)
    if self.opt['dist']:
        devices = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
        return DistributedDataParallel(
            net, device_ids=devices, find_unused_parameters=self.opt.get('find_unused_parameters', False)
        )
    return DataParallel(net) if self.opt['num_gpu'] > 1 else net


def test(self) -> None:
    """Runs the bare network on ``self.lq``; the EMA network where there is one. Sets ``self.output``."""
    network = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
    training = network.training
    network.eval()
    with torch.no_grad():
        self.output = network(self.lq)
    network.train(training)


def filter2D(img: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """BasicSR's filtering of each image with its kernel, for images of any memory layout.

    Args:
        img: (N, C, H, W).
        kernel: (N or 1, k, k).
    """
    return basicsr_filter2D(img.contiguous(), kernel)
