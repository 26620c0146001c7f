"""`benchmarks/gpu.py` rehearsed: all parts report, and what one of them does is no harm to the others."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from helpers import ROOT

HANGS = 'import subprocess\n\n\ndef test_hangs() -> None:\n    subprocess.run(["sleep", "{seconds}"])\n'


def gpu(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user gives it, where there is no GPU."""
    return subprocess.run(
        [sys.executable, 'benchmarks/gpu.py', f'--out={folder}', *arguments],
        cwd=ROOT,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu', **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )


def sections(folder: Path) -> dict[str, str]:
    """The report's sections by their titles; all rows of a table have as many cells as its header."""
    text = (folder / 'report.md').read_text()
    for table in re.findall(r'(?:^\|.*\|\n)+', text, re.MULTILINE):
        assert len({len(re.split(r'(?<!\\)\|', row)) for row in table.splitlines()}) == 1
    titles_and_texts = re.split(r'^### (.*)\n', text, flags=re.MULTILINE)[1:]
    return dict(zip(titles_and_texts[::2], titles_and_texts[1::2], strict=True))


def measured(folder: Path) -> dict[str, Any]:
    return json.loads((folder / 'measured.json').read_text())


@pytest.mark.smoke
def test_every_part_reports_its_numbers(tmp_path: Path) -> None:
    done = gpu(tmp_path, '--small', '--minutes=6')
    assert done.returncode == 0, done.stdout + done.stderr
    told, found = sections(tmp_path), measured(tmp_path)
    assert len(told) == len(found) == 10
    assert {part['how'] for part in found.values()} == {'ended'}
    assert all('| ' in text or 'Left out' in text for text in told.values())
    assert all((tmp_path / f'{name}.log').exists() for name in found)

    assert found['tests']['measured']['PASSED']
    assert found['agreement']['measured']['agree']
    assert {row[3] for row in found['determinism']['table'][1:]} == {'0'}
    assert {row[5] for row in found['determinism']['table'][1:]} == {'0'}
    assert found['kills']['measured']['rows lost'] == found['kills']['measured']['values that differ'] == '0'
    case = found['throughput']['measured']['measured'][-1]
    assert case['bsgap'][0] > 0
    if importlib.util.find_spec('torch'):
        assert case['PyTorch'][0] > 0
        assert 'CUDA graph' in case['failed']  # there is no GPU
    (row,) = found['axes']['measured']
    assert len(row['vmap']) == len(row['map']) == 3
    assert found['memory']['measured'][0][5] > 0
    assert found['study']['measured']['done']
    assert [row[1:3] for row in found['study']['table'][1:]] == [[2, '2']] * 2
    for figure in ('throughput', 'memory', 'study'):
        assert plt.imread(tmp_path / f'{figure}.png')[..., :3].std() > 0.01


@pytest.mark.smoke
def test_what_fails_or_hangs_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / 'torch.py').write_text('raise ImportError')
    hangs, seconds = tmp_path / 'test_hangs.py', f'{time.time():.6f}'
    hangs.write_text(HANGS.format(seconds=seconds))
    began = time.monotonic()
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    arguments = '--small', '--minutes=0.6', '--parts=tests,throughput'
    done = gpu(tmp_path, *arguments, f'--tests={hangs}', PYTHONPATH=path)
    assert time.monotonic() - began < 0.6 * 60 + 5
    assert done.returncode == 0, done.stdout + done.stderr
    assert not subprocess.run(['pgrep', '-f', f'sleep {seconds}'], capture_output=True).stdout

    found = measured(tmp_path)
    assert found['tests']['how'].startswith('stopped after')
    assert found['throughput']['how'] == 'ended'
    told = sections(tmp_path)
    assert 'PyTorch is not installed' in told['The machine']
    assert 'PyTorch is not installed' in told['Beside PyTorch']
    assert 'Stopped after' in told['Tests of training on the GPU']
    assert 'Not measured' in told['The main study, five seeds']

    done = gpu(tmp_path, '--small', '--parts=tests', '--tests=tests/none.py')
    assert done.returncode == 1
    told = sections(tmp_path)
    assert 'Failed with exit code 1' in told['Tests of training on the GPU']
    assert 'tests: pytest ended with' in told['Tests of training on the GPU']
    assert '| update, batch 64 |' in told['Beside PyTorch']  # what was measured before is kept


def test_no_gpu_is_told_in_one_line(tmp_path: Path) -> None:
    done = gpu(tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r'gpu\.py: no GPU; JAX sees: cpu\. See \S+machine\.log\n', done.stderr)
