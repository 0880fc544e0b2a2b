"""A trained network that another one learns from."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY

from basicsr_ext.errors import UserError, brief
from basicsr_ext.networks.weights import Match, load_weights
from basicsr_ext.options.closest import closest_name


def build_teacher(
    network: Mapping[str, Any], weights: str | PathLike, param_key: str | None, device: torch.device
) -> torch.nn.Module:
    """Builds a network as :func:`load_teacher` does; the log of the run says what was loaded."""
    teacher, match = load_teacher(network, weights, param_key, device)
    get_root_logger().info(f'Loading {network["type"]} from {weights}: {match}.')
    return teacher


def load_teacher(
    network: Mapping[str, Any], weights: str | PathLike, param_key: str | None, device: torch.device
) -> tuple[torch.nn.Module, Match]:
    """Builds a registered network in evaluation mode, with trained weights.

    Args:
        network: Network option: ``type`` and the arguments of that class.
        weights: File of weights.
        param_key: Entry of that file; ``None`` chooses.
        device: Where the network shall run.

    Returns:
        The network, and what was loaded.

    Raises:
        UserError: The type is unknown, its arguments are wrong, or the weights cannot be read or do not fit.
    """
    teacher = _build(network)
    match = load_weights(teacher, weights, param_key)
    return teacher.to(device).eval().requires_grad_(False), match


def _build(network: Mapping[str, Any]) -> torch.nn.Module:
    name = network['type']
    known = sorted(ARCH_REGISTRY.keys())
    if name not in ARCH_REGISTRY and f'{name}_basicsr' not in ARCH_REGISTRY:
        close = closest_name(name, known)
        hint = f'did you mean "{close}"?' if close else f'known networks: {", ".join(known)}.'
        raise UserError(f'network.type: unknown network "{brief(name)}"; {hint}')
    try:
        return build_network(dict(network))
    except Exception as error:  # whatever the constructor makes of a wrong argument
        arguments = {key: value for key, value in network.items() if key != 'type'}
        raise UserError(
            f'network: {name} cannot be built with {brief(arguments, 200)} ({type(error).__name__}: {brief(error, 200)}).'
        ) from error


def check_alike(teacher: torch.nn.Module, student: torch.nn.Module, scale: int, side: int, where: str) -> None:
    """Refuses a teacher of another colour space or scale than the student's, found out by trying both.

    Args:
        teacher: Trained network.
        student: Network in training.
        scale: HR pixels per LQ pixel.
        side: Of the image that they are tried on, in LQ pixels; a multiple of their windows.
        where: Key path of the teacher's block, for messages.

    Raises:
        UserError: Names what differs. Nothing is refused where the student itself takes no image that is tried.
    """
    channels, _ = _tried(student, side)
    of_teacher, size = _tried(teacher, side)
    if channels is None:
        return
    if channels != of_teacher:
        raise UserError(
            f'{where}: expected a network for {channels} channels, as the student, found one for '
            f'{of_teacher or "other input"}: both must work on luminance, or both on colour images.'
        )
    if size != (side * scale, side * scale):
        raise UserError(
            f'{where}: expected a network that enlarges {scale} times, as the student, but it turns {side}x{side} pixels '
            f'into {"x".join(map(str, size))}: change its upscale.'
        )


@torch.no_grad()
def _tried(network: torch.nn.Module, side: int) -> tuple[int | None, tuple[int, ...]]:
    """Finds out by trying how many channels a network takes (``None``: neither 3 nor 1), and how large its output is."""
    device = next((parameter.device for parameter in network.parameters()), None)
    training = network.training
    network.eval()
    try:
        for channels in (3, 1):
            try:
                output = network(torch.zeros(1, channels, side, side, device=device))
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # whatever a network makes of an image that it was not made for
                continue
            if isinstance(output, torch.Tensor):
                return channels, tuple(output.shape[-2:])
    finally:
        network.train(training)
    return None, ()
