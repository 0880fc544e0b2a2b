"""``basicsr test``: BasicSR's own test, for one checkpoint or several, with the scores of every image in tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr_ext import __version__
from basicsr_ext.errors import UserError, brief, first_of
from basicsr_ext.evaluation.early import check_weights_exist
from basicsr_ext.options.source import OptionSource, read_source
from basicsr_ext.report.results import Scores, as_text, set_aside, write_results
from basicsr_ext.storage.base import unfit_key
from basicsr_ext.trainer import run


def run_test(
    options: str | os.PathLike | Mapping[str, Any],
    weights: Sequence[str | os.PathLike] = (),
    *,
    launcher: str = 'none',
    debug: bool = False,
    force_yml: Iterable[str] = (),
    root: str | os.PathLike | None = None,
    quiet: bool = False,
) -> list[Scores]:
    """Tests with BasicSR's ``test_pipeline``; prints a table of scores, and writes them as JSON, Markdown and CSV.

    They are written into the folder of the results, ``results/<name>``, when the test is done. With ``weights``, each
    checkpoint has a folder named after it in there, and its scores in it; when all are done, those of all together are in
    ``results/<name>`` too.

    Args:
        options: Path of an option file, or the options as a mapping.
        weights: Files to test instead of ``path.pretrain_network_g``.
        launcher: ``none``, ``pytorch`` (under torchrun) or ``slurm``.
        debug: BasicSR's debug mode.
        force_yml: Assignments such as ``val:save_img=true``.
        root: Where ``results`` is made; default: the option ``path.root``, or the working directory.
        quiet: Leave BasicSR's banner and the networks' layers out of the log.

    Returns:
        Scores of each checkpoint on each set.

    Raises:
        UserError: Options, files or devices are not as they must be.
    """
    source = read_source(options, force_yml)
    settings: dict[str, Any] = {'tool_version': __version__}
    if not weights:
        done = run.test(source, launcher=launcher, debug=debug, root=root, quiet=quiet)
        results = _results(done, Path(done.opt['path'].get('pretrain_network_g') or done.opt['name']).stem)
        _report(results, [(done.folder, results)], done.opt, settings)
        return results

    sources = _check_weights(weights, source)
    each: list[tuple[Path, list[Scores]]] = []
    for (label, of_file), last in zip(sources.items(), [False] * (len(sources) - 1) + [True], strict=True):
        done = run.test(
            of_file,
            launcher=launcher,
            debug=debug,
            root=root,
            subfolder=label,
            leave_ranks=last,
            quiet=quiet,
        )
        each.append((done.folder, _results(done, label)))
        results = [scores for _, of_one in each for scores in of_one]
        _report(results, each, done.opt, settings, is_last=last)
    return results


def _check_weights(weights: Sequence[str | os.PathLike], source: OptionSource) -> dict[str, OptionSource]:
    """Refuses files that are no networks, or another's, before the first test begins; gives each a name.

    Returns:
        Name -> options of its test. The name is the file's, after that of its experiment where two would have one name.
    """
    files = list(dict.fromkeys(Path(os.path.abspath(os.path.expanduser(file))) for file in weights))
    for file in files:
        check_weights_exist(file)
    from basicsr_ext.registration import register

    register()
    sources = [_with_weights(source, file) for file in files]
    for file, of_file in zip(files, sources, strict=True):
        _check_fit(file, of_file)
    stems = [file.stem for file in files]
    for file in files:
        if reason := unfit_key(file.stem):  # results lie in a folder of that name
            raise UserError(
                f'--weights {file}: expected a name that a folder can have, found {reason}. Rename the file.'
            )
    labels = [
        stem if stems.count(stem) == 1 else f'{(file.parents[1] if len(file.parts) > 2 else file.parent).name}_{stem}'
        for stem, file in zip(stems, files, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [f'{place}_{stem}' for place, stem in enumerate(stems, 1)]
    return dict(zip(labels, sources, strict=True))


def _with_weights(source: OptionSource, file: Path) -> OptionSource:
    """Names a file in the options. Its network is the one that the file says it is of, where it is for the same scale.

    A network that was trained on enlarged data (scale 1) is tested as the options describe it.
    """
    from basicsr_ext.prepare.teacher import check_network_file, print_remarks

    record = check_network_file(file)
    values = deepcopy(source.values)
    paths = values.get('path')
    if not isinstance(paths, Mapping) and paths is not None:
        raise UserError(f'path: expected a block of options, found {paths!r}.')
    values['path'] = {**(paths or {}), 'pretrain_network_g': str(file)}
    scale = values.get('scale')
    if record is not None and record['scale'] == (1 if scale is None else scale):
        given = values.get('network_g')
        differences = _network_differences(record['network'], given) if isinstance(given, Mapping) else ['network_g']
        if differences:
            values['network_g'] = dict(record['network'])
            print_remarks(
                file, [f'tested as the network that the file names; network_g differs: {first_of(differences, 5)}']
            )
    return OptionSource(values, source.places, source.file)


def _network_differences(own: Mapping[str, Any], given: Mapping[str, Any], within: str = '') -> list[str]:
    """Says where two network options differ; an argument that one leaves out has its class's default."""
    from basicsr_ext.networks.requirements import argument_of

    differences = []
    for key in dict.fromkeys([*own, *given]):
        first, second = (argument_of(option, key) for option in (own, given))
        name = f'{within}{brief(key, 40)}'
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            differences += _network_differences(first, second, f'{name}.')
        elif first != second:
            differences.append(f'{name} is {brief(second, 40)}, the file has {brief(first, 40)}')
    return differences


def _check_fit(file: Path, source: OptionSource) -> None:
    """Loads a file as a test does; leaves options that are wrong themselves to the test's own check."""
    from basicsr.archs import build_network

    from basicsr_ext.checking.networks import quiet
    from basicsr_ext.networks.weights import fit_weights, read_weights

    paths = source.values.get('path') or {}
    try:
        with quiet():
            network = build_network(dict(source.values['network_g']))
        strict = paths.get('strict_load_g') is not False
        key, leave_out = paths.get('param_key_g') or 'params', paths.get('pretrain_network_g_leave_out') or ()
    except Exception:  # whatever a network makes of wrong arguments
        return
    try:
        fit_weights(network, read_weights(file, key, exact_key=False), file, strict, leave_out)
    except UserError as error:
        raise UserError(f'--weights: {error}') from None


def _results(done: run.TestRun, method: str) -> list[Scores]:
    return [Scores(dataset, method, images) for dataset, images in done.scores.items()]


def _report(
    results: list[Scores],
    each: list[tuple[Path, list[Scores]]],
    opt: Mapping[str, Any],
    settings: dict[str, Any],
    is_last: bool = True,
) -> None:
    """Writes the scores of the newest checkpoint, on the first rank; at the end also those of all, and prints them."""
    if not results or opt['rank'] != 0:
        return
    how = {key: value for key, value in opt['val'].items() if key not in ('save_img', 'suffix', 'pbar')}
    settings.update(name=opt['name'], scale=opt.get('scale', 1), **how)
    folder, newest = each[-1]
    if newest:
        write_results(newest, folder, settings)
    if len(each) == 1 and not is_last:
        set_aside(folder.parent)
    if len(each) > 1 and is_last:
        folder = folder.parent
        write_results(results, folder, settings)
    if is_last:
        print(f'\n{as_text(results)}\n\n{folder}: metrics.json, metrics.md, metrics.csv', flush=True)
