"""Command lines of ``basicsr options`` and ``basicsr recipe``."""

from __future__ import annotations

import argparse


def add_options_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``basicsr options`` to its parser; the parsed ones carry ``run``."""
    parser.description = (
        'Lists and copies the option files that come with basicsr_ext: the settings of the papers. A file may be built on '
        'one without copying it: "_base_: basicsr_ext:train_vanilla_EDSR_x2.yml". Exit status: 0; 2: an error in the names.'
    )
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    listing = actions.add_parser('list', help='name them all, each with the first line of its head')
    listing.set_defaults(run=_list)
    copying = actions.add_parser('copy', help='copy option files, with those that they are based on')
    copying.add_argument('names', nargs='+', metavar='NAME', help='such as train_vanilla_EDSR_x2')
    copying.add_argument(
        '-o', '--output', default='options', metavar='DIR', help='folder for the copies (default: options)'
    )
    copying.set_defaults(run=_copy)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``basicsr recipe`` to its parser; the parsed ones carry ``run``."""
    parser.description = (
        'Runs a dataset recipe that comes with basicsr_ext: from the images as their authors publish them to the stores that '
        'the option files name, in the working directory. Without a name it lists the recipes; a name alone shows what that '
        'recipe needs. Exit status: 0; 2: an error in the name or the arguments; else the one of what failed in the recipe.'
    )
    parser.add_argument('name', nargs='?', metavar='NAME', help='such as div2k')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='ARGUMENTS', help="the recipe's own")
    parser.set_defaults(run=_run_recipe)


def _list(args: argparse.Namespace) -> None:
    from basicsr_ext.shipped_files import shipped_options

    _print_table(shipped_options())


def _copy(args: argparse.Namespace) -> None:
    from basicsr_ext.shipped_files import copy_options

    for path in copy_options(args.names, args.output):
        print(path)


def _run_recipe(args: argparse.Namespace) -> None:
    from basicsr_ext.shipped_files import run_recipe, shipped_recipes

    if args.name is None:
        _print_table(shipped_recipes())
    else:
        raise SystemExit(run_recipe(args.name, args.arguments))


def _print_table(paths: dict) -> None:
    from basicsr_ext.shipped_files import describe

    width = max(map(len, paths))
    for name, path in paths.items():
        print(f'{name:{width}}  {describe(path)}')
