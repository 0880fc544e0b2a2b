"""The command's help, and what it must not do before it has to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from run_helpers import write_images

from basicsr_ext.cli.main import main

COMMANDS = ('train', 'test', 'check', 'upscale', 'export', 'evaluate', 'options', 'recipe')


def help_of(command: str, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        main([command, '--help'])
    assert end.value.code == 0
    return ' '.join(capsys.readouterr().out.split())


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_says_what_it_does(command, capsys):
    text = help_of(command, capsys)
    assert text.index('Exit status: 0') < text.index('options: -h')


def test_check_says_that_it_reads_one_sample(capsys):
    text = help_of('check', capsys)
    assert 'Reads one sample of each dataset' in text and '"basicsr prepare check" looks at every image' in text


def test_evaluate_shows_how_weights_are_named(capsys):
    assert '"{type: LPIPS, backbone_path: FILE}"' in help_of('evaluate', capsys)


def run(*arguments: object, then: str = '') -> subprocess.CompletedProcess:
    """The command in a process of its own, where importing torch fails."""
    program = (
        'import sys\nsys.modules["torch"] = None\nfrom basicsr_ext.cli.main import main\nstatus = main(sys.argv[1:])\n'
    )
    environment = {'PYTHONPATH': str(Path(__file__).parents[2])}
    command = [sys.executable, '-c', f'{program}{then}\nsys.exit(status)', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize('command', ['options list', 'recipe'])
def test_a_reader_may_leave_before_the_end(command):
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    reading, writing = os.pipe()
    os.close(reading)  # as head does when it has its lines
    try:
        program = [sys.executable, '-m', 'basicsr_ext', *command.split()]
        result = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, '')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('upscale -i nowhere -o out --weights a.pth', 'nowhere: expected an image or a folder of images'),
        ('upscale -i empty -o out --weights a.pth', 'empty: expected images'),
        ('upscale -i images -o out --weights nowhere.pth', 'expected a file at nowhere.pth, found none'),
        ('upscale -i images -o images --weights a.pth', 'is an input, and would be overwritten'),
        ('upscale -i images/a.png -o enlarged --weights a.pth', 'exist already'),
        ('upscale -i images -o a.pth --weights a.pth', 'is a file'),
        ('evaluate --gt images --sr nowhere', 'nowhere: expected a folder of images'),
        ('evaluate --gt images --sr empty', 'empty: expected images'),
        ('evaluate --gt images --sr other', '1 of 1 GT images have no image: "a"'),
        ('evaluate --gt images --sr images -o images', 'metrics.csv exist already'),
        ('test -opt nowhere.yml', 'nowhere.yml'),
        ('test -opt options.yml --weights nowhere.pth', 'nowhere.pth, found none'),
    ],
)
def test_errors_that_need_no_torch(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    image = np.zeros((8, 8, 3), np.uint8)
    write_images(tmp_path / 'images', {'a': image})
    write_images(tmp_path / 'enlarged', {'a': image})
    write_images(tmp_path / 'other', {'b': image})
    (tmp_path / 'empty').mkdir()
    for file in ('a.pth', 'images/metrics.csv'):
        (tmp_path / file).touch()
    (tmp_path / 'options.yml').write_text('name: x\n')
    done = run(*arguments.split())
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()


def test_opencv_warns_of_nothing(tmp_path):
    """Our own messages name the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    content = cv2.imencode('.png', pixels)[1]
    content[: len(content) // 2].tofile(tmp_path / 'cut.png')
    then = f'import cv2, numpy\ncv2.imdecode(numpy.fromfile("{tmp_path}/cut.png", numpy.uint8), cv2.IMREAD_COLOR)'
    done = run('evaluate', '--sr', 'nowhere', then=then)
    assert done.returncode == 2 and 'WARN' not in done.stderr


def test_the_user_may_ask_opencv_for_more(monkeypatch):
    monkeypatch.setenv('OPENCV_LOG_LEVEL', 'INFO')
    assert main(['evaluate', '--sr', 'nowhere']) == 2
    assert os.environ['OPENCV_LOG_LEVEL'] == 'INFO'
