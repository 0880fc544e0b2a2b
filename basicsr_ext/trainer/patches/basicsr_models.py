"""Methods and functions of BasicSR's models as they must be to run on CPUs and several ranks."""

from __future__ import annotations

from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.img_process_util import filter2D as basicsr_filter2D
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr_ext.models.inference_options import infer, store_luminance
from basicsr_ext.models.optimizers import build_scheduler
from basicsr_ext.models.players import names_without_gradient, tell_unreached
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.weights import fit_weights, read_weights


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


def watch_gradients(model: Any) -> None:
    """Tells parameters that no loss reaches, before the first step of each optimizer; our models do it themselves.

    Args:
        model: Any model; its networks are attributes, inside ``DistributedDataParallel`` or not.
    """
    if isinstance(model, TrainingModel):
        return
    networks = {name: value for name, value in vars(model).items() if isinstance(value, torch.nn.Module)}

    def check(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if optimizer in seen:
            return
        seen.append(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
        for name, network in networks.items():
            tell_unreached(names_without_gradient(network, parameters), network, name)

    seen: list[torch.optim.Optimizer] = []
    for optimizer in model.optimizers:
        optimizer.register_step_pre_hook(check)


def load_network(self, net: torch.nn.Module, load_path: str, strict: bool = True, param_key: str = 'params') -> None:
    """Loads weights from a file, and says which share of the network's tensors they matched.

    ``path.pretrain_network_<name>_leave_out`` lists beginnings of names to leave out, such as ``[upsample]``.

    Args:
        net: Network, inside ``DistributedDataParallel`` or not.
        load_path: A checkpoint of BasicSR's or ours, a bare state dict, or a ``.safetensors`` file.
        strict: Whether every tensor must fit.
        param_key: Which weights to take where the file has several; what is there is taken where it has not.

    Raises:
        UserError: The file cannot be read or does not fit.
    """
    net = self.get_bare_model(net)
    paths = self.opt['path']
    names = [key for key in paths if key.startswith('pretrain_network_') and paths[key] == load_path]
    leave_out = next((paths[f'{name}_leave_out'] for name in names if paths.get(f'{name}_leave_out')), ())
    start_of = names[0].removeprefix('pretrain_') if names else None
    weights = read_weights(load_path, param_key, exact_key=False)
    matched = fit_weights(net, weights, load_path, strict, leave_out, start_of)
    get_root_logger().info(f'Loading {type(net).__name__} from {load_path}: {matched}.')


def test(self) -> None:
    """Runs the bare network on ``self.lq``; the EMA network where there is one. Sets ``self.output``.

    Options: :class:`~basicsr_ext.models.inference_options.InferenceOptions`.
    """
    network = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
    self.output, self.output_luminance = infer(network, self.lq, self.opt)
    store_luminance(self)


_log_validation_metric_values = SRModel._log_validation_metric_values


def log_validation_metric_values(self, current_iter: Any, dataset_name: str, tb_logger: Any) -> None:
    """Logs the means of a validation; of a test without the best so far, since there is one value only.

    Args:
        current_iter: Iteration.
        dataset_name: Name of the set.
        tb_logger: TensorBoard's writer, or ``None``.
    """
    if not self.opt['is_train']:
        vars(self).pop('best_metric_results', None)
    _log_validation_metric_values(self, current_iter, dataset_name, tb_logger)


def setup_schedulers(self) -> None:
    """Builds a scheduler of any library for each optimizer, from ``train.scheduler``."""
    for optimizer in self.optimizers:
        self.schedulers.append(build_scheduler(optimizer, self.opt['train']['scheduler']))


def filter2D(img: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """BasicSR's filtering of each image with its kernel, for images of any memory layout.

    Args:
        img: (N, C, H, W).
        kernel: (N or 1, k, k).
    """
    return basicsr_filter2D(img.contiguous(), kernel)


def print_network(self, net: torch.nn.Module) -> None:
    """Logs the kind of a network and the number of its parameters, without its layers."""
    bare = self.get_bare_model(net)
    size = sum(parameter.numel() for parameter in bare.parameters())
    get_root_logger().info(f'Network: {type(bare).__name__}, with parameters: {size:,d}')
