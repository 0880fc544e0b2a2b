"""Damages option files in the ways that people, editors and disks do, and in worse ones."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

_ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.7, -0.5, 1e-300, 1e300, float('inf'), float('nan'), 10**30, -(10**18), 2**31, 10**400,
    '', ' ', 'text', '~', 'true', '1', '../..', '/', '/dev/null', 'a\0b', 'x' * 5000, 'ünïcödé', '{}', '{}{}', '{0.__class__}',
    '%s', '$HOME', '~root', [], {}, [[]], [1, 'a'], [None], [-1, -2], [1e999], {'a': 1}, {'type': 'Adam'}, {1: 2}, [{}],
    ['a'] * 300, {'type': None}, {'type': []}, 'EDSR', 'PairedImageDataset', 'L1Loss', 'calculate_psnr', 'MultiStepLR',
]  # fmt: skip
_OPTIMIZERS = (
    'SGD', 'AdamW', 'Adagrad', 'RMSprop', 'Adafactor', 'Lamb', 'Lion', 'SOAP', 'Prodigy', 'ScheduleFreeAdamW', 'SparseAdam',
    'AdaHessian', 'SophiaH', 'LBFGS', 'SAM', 'Lookahead', 'Muon', 'AdaMuon', 'AdamMini', 'Optimizer',
)  # fmt: skip
_SCHEDULERS = (
    {'type': 'OneCycleLR', 'max_lr': 1e-3, 'total_steps': 4}, {'type': 'OneCycleLR', 'max_lr': 1e-3, 'total_steps': 2},
    {'type': 'CyclicLR', 'base_lr': 1e-4, 'max_lr': 1e-3}, {'type': 'CosineAnnealingLR', 'T_max': 4},
    {'type': 'CosineAnnealingRestartLR', 'periods': [2, 1], 'restart_weights': [1, 1]}, {'type': 'ReduceLROnPlateau'},
)  # fmt: skip
_ODD_KEYS: list[Any] = [
    1,
    1.5,
    True,
    None,
    '',
    ' ',
    'type',
    'name',
    'a.b',
    'x' * 300,
    '__class__',
    '_base_',
    '_replace_',
    '<<',
    -7,
]
_TAGS = [
    '!!python/object/apply:os.system ', '!!python/name:os.system ', '!!binary ', '!!set ', '!x ', '!!int ', '!!float ',
    '!!str ', '!!null ', '!!bool ', '!!omap ', '&a ', '*a ', '- ', '? ', '| ', '> ', '%', '@', '`', '"', "'", '{', '[', '#',
]  # fmt: skip
Mutation = Callable[[random.Random, dict], str]


def mutate(rng: random.Random, options: dict[str, Any]) -> tuple[str, str]:
    """Damages options once, or, one time in four, several times.

    Args:
        rng: All chance comes from it.
        options: Valid options; not changed.

    Returns:
        The text of an option file, and the name of what was done to it last. Three times in ten it was only nudged, and is
        as often as not still valid.
    """
    options = deepcopy(options)
    if rng.random() < 0.3:
        for _ in range(rng.choice([1, 2, 3])):
            nudge(rng, options)
        return _dump(options), 'nudge'
    for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
        rng.choice(_TREE)(rng, options)
    if rng.random() < 0.65:
        mutation = rng.choice(_TREE)
        mutation(rng, options)
        return _dump(options), mutation.__name__
    lines = _dump(options).splitlines()
    mutation = rng.choice(_TEXT)
    return mutation(rng, lines), mutation.__name__


def _dump(options: dict[str, Any]) -> str:
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True)


# ---- of values -----------------------------------------------------------------------------------------------------------


def _paths(block: Any, path: tuple = ()) -> list[tuple]:
    found = []
    items = block.items() if isinstance(block, dict) else enumerate(block) if isinstance(block, list) else ()
    for key, value in items:
        found += [(*path, key), *_paths(value, (*path, key))]
    return found


def _pick(rng: random.Random, options: dict) -> tuple[Any, Any]:
    """A block (or list) and one of its keys."""
    paths = _paths(options) or [()]
    *above, key = rng.choice(paths) or ('name',)
    block: Any = options
    for part in above:
        block = block[part]
    return block, key


def _pick_named(rng: random.Random, options: dict) -> tuple[dict, Any]:
    for _ in range(100):
        block, key = _pick(rng, options)
        if isinstance(block, dict) and key in block:
            return block, key
    return options, rng.choice(list(options) or ['name'])


def delete(rng: random.Random, options: dict) -> None:
    block, key = _pick_named(rng, options)
    block.pop(key, None)


def rename(rng: random.Random, options: dict) -> None:
    block, key = _pick_named(rng, options)
    block[''.join(rng.choices(string.ascii_lowercase, k=8))] = block.pop(key, None)


def misspell(rng: random.Random, options: dict) -> None:
    block, key = _pick_named(rng, options)
    text = str(key)
    at = rng.randrange(len(text) + 1)
    changed = rng.choice(
        [text[:at] + text[at + 1 :], text[:at] + 'e' + text[at:], text.upper(), text[:at] + text[at:][::-1]]
    )
    block[changed] = block.pop(key, None)


def misspell_text(rng: random.Random, options: dict) -> None:
    for _ in range(50):
        block, key = _pick(rng, options)
        if isinstance(block[key], str) and block[key]:
            at = rng.randrange(len(block[key]))
            block[key] = block[key][:at] + rng.choice(['', 'x', ' ', '/', '.', '\n', '\0']) + block[key][at + 1 :]
            return


def replace(rng: random.Random, options: dict) -> None:
    block, key = _pick(rng, options)
    block[key] = deepcopy(rng.choice(_ODD_VALUES))


def change_number(rng: random.Random, options: dict) -> None:
    for _ in range(50):
        block, key = _pick(rng, options)
        value = block[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            block[key] = rng.choice(
                [-value, 0, value * 10**9, value * 2, value + 0.5, str(value), float(value), value * 10**6, [value]]
            )
            return


def nudge(rng: random.Random, options: dict) -> None:
    for _ in range(50):
        block, key = _pick(rng, options)
        value = block[key]
        if isinstance(value, bool):
            block[key] = not value
            return
        if isinstance(value, (int, float)):
            block[key] = rng.choice([value * 2, value + 1, value // 2, value * 0.9, float(value), value * 1.0])
            return
        if (value is None and isinstance(block, dict)) or rng.random() < 0.1:
            block.pop(key) if isinstance(block, dict) else block.append(value)
            return


def wrap(rng: random.Random, options: dict) -> None:
    block, key = _pick(rng, options)
    value = block[key]
    for _ in range(rng.choice([1, 1, 2, 40])):
        value = rng.choice([[value], {'a': value}, {'type': value}])
    block[key] = value


def unwrap(rng: random.Random, options: dict) -> None:
    for _ in range(50):
        block, key = _pick(rng, options)
        if isinstance(block[key], (dict, list)) and block[key]:
            value = block[key]
            block[key] = next(iter(value.values())) if isinstance(value, dict) else value[0]
            return


def swap(rng: random.Random, options: dict) -> None:
    first, second = _pick(rng, options), _pick(rng, options)
    a, b = first[0][first[1]], second[0][second[1]]
    first[0][first[1]], second[0][second[1]] = deepcopy(b), deepcopy(a)


def move(rng: random.Random, options: dict) -> None:
    block, key = _pick_named(rng, options)
    value = block.pop(key, None)
    other, _ = _pick_named(rng, options) if options else (options, None)
    other[key] = value


def add(rng: random.Random, options: dict) -> None:
    block, _ = _pick_named(rng, options)
    block[rng.choice(_ODD_KEYS)] = deepcopy(rng.choice(_ODD_VALUES))


def other_class(rng: random.Random, options: dict) -> None:
    """Names another optimizer or scheduler, or asks for a logger that may not be installed."""
    train, logger = options.get('train'), options.get('logger')
    if isinstance(train, dict) and rng.random() < 0.9:
        key = rng.choice(['optim_g', 'optim_g', 'optim_d', 'scheduler'])
        if key == 'scheduler':
            train[key] = deepcopy(rng.choice(_SCHEDULERS))
        else:
            train[key] = {'type': rng.choice(_OPTIMIZERS), 'lr': 1e-4}
            if rng.random() < 0.2:
                train[key][rng.choice(['capturable', 'differentiable', 'foreach', 'fused', 'maximize'])] = True
    elif isinstance(logger, dict):
        logger.update(wandb={'project': 'x'}, use_tb_logger=True)


# ---- of text -------------------------------------------------------------------------------------------------------------


def repeat_line(rng: random.Random, lines: list[str]) -> str:
    at = rng.randrange(len(lines))
    return '\n'.join([*lines[: at + 1], *lines[at:]])


def drop_lines(rng: random.Random, lines: list[str]) -> str:
    at = rng.randrange(len(lines))
    return '\n'.join([*lines[:at], *lines[at + rng.choice([1, 1, 2, 10, 1000]) :]])


def cut(rng: random.Random, lines: list[str]) -> str:
    text = '\n'.join(lines)
    return text[: rng.randrange(len(text))]


def junk(rng: random.Random, lines: list[str]) -> str:
    text = '\n'.join(lines)
    for _ in range(rng.choice([1, 2, 20])):
        at = rng.randrange(len(text))
        text = (
            text[:at]
            + chr(rng.choice([0, 7, 9, 27, 58, 123, 91, 38, 42, 33, 127, 133, 160, 0x2028, 0xFEFF, 0xFFFD, 0x1F600]))
            + text[at + 1 :]
        )
    return text


def tag(rng: random.Random, lines: list[str]) -> str:
    at = rng.randrange(len(lines))
    key, colon, value = lines[at].partition(': ')
    lines[at] = rng.choice([f'{key}{colon}{rng.choice(_TAGS)}{value}', f'{rng.choice(_TAGS)}{lines[at]}'])
    return '\n'.join(lines)


def indent(rng: random.Random, lines: list[str]) -> str:
    at = rng.randrange(len(lines))
    lines[at] = rng.choice([f' {lines[at]}', f'\t{lines[at]}', lines[at].lstrip(), f'    {lines[at]}'])
    return '\n'.join(lines)


def reorder(rng: random.Random, lines: list[str]) -> str:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return '\n'.join(lines)


def nest(rng: random.Random, lines: list[str]) -> str:
    return '\n'.join(lines) + '\nextra: ' + rng.choice(['[', '{a: ', '- ', '!!seq [', '"']) * rng.choice([1, 50, 2000])


def alias(rng: random.Random, lines: list[str]) -> str:
    extra = rng.choice([
        'x: &x [*x]', 'x: &x {a: *x}', 'x: {<<: *none}', '<<: {name: other}', '<<: [1]', 'x: &x 1\ny: *x', '_base_: o.yml',
        '_base_: nowhere.yml', '_base_: [[]]', '_replace_: true', '---', '...', '%YAML 9.9', '\n'.join(
            [f'b{i}: &b{i} [{"*b" + str(i - 1) + ", " if i else ""}{"*b" + str(i - 1) if i else 1}]' for i in range(30)]),
    ])  # fmt: skip
    at = rng.choice([0, len(lines)])
    return '\n'.join([*lines[:at], extra, *lines[at:]])


_TREE: list[Callable] = [delete, delete, rename, misspell, misspell, misspell_text, replace, replace, replace, change_number,
                         change_number, wrap, unwrap, swap, move, add, other_class]  # fmt: skip
_TEXT: list[Callable] = [repeat_line, drop_lines, cut, junk, tag, tag, indent, reorder, nest, alias]
