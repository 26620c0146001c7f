"""All that docs/benchmarks.md needs of a GPU, measured in one go:

    python -m pip install -e '.[cuda,test,bench]' && python benchmarks/gpu.py --out=FOLDER

It ends within `--minutes`. Each part is a process of its own that may take a share of the time left, after which it is
ended, with all that it started; what it measured until then counts. FOLDER holds `report.md`, to be pasted into
docs/benchmarks.md, `measured.json`, and each part's log and figure; the report is written anew after each part. Parts
that time nothing go side by side, the others alone. This process leaves the GPU alone, and no part takes its memory in
advance. `--small` rehearses the same with tiny sizes on whatever device there is.

Exit codes: 0, all parts ended or were stopped in time; 1, one failed; 2, there is no GPU.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gpu_parts
from absl import app, flags
from gpu_parts import ROOT, Here, PartError

from bsgap.files import read_json, replace, write_json

OUT = flags.DEFINE_string('out', None, 'folder for the report and what it is made of', required=True)
MINUTES = flags.DEFINE_float('minutes', 8.5, 'for all parts together', lower_bound=0.05)
SMALL = flags.DEFINE_bool('small', False, 'a rehearsal: tiny sizes, on whatever device there is')
ONLY = flags.DEFINE_list('parts', [], 'only these parts; default: all')
TESTS = flags.DEFINE_list('tests', [], 'files of tests in place of the chosen ones')
PART = flags.DEFINE_string('part', None, 'used by the benchmark itself')
LIMIT = flags.DEFINE_float('limit', 0.0, 'likewise: seconds until the part is ended')

MARGIN = 3.0  # seconds of the whole that are kept for the last words


def room() -> Path:
    return Path(OUT.value).absolute()


class Part(NamedTuple):
    title: str
    work: Callable[[Here], None]
    wave: int  # those of one go side by side
    share: float  # of the time, against the shares of the waves still to come
    on_host: bool = False  # its own process reads files only


PARTS = {
    'machine': Part('The machine', gpu_parts.look, 0, 0.12),
    'tests': Part('Tests of training on the GPU', gpu_parts.suite, 1, 0.3),
    'agreement': Part('The GPU beside the CPU', gpu_parts.agreement, 1, 0.3, on_host=True),
    'determinism': Part('Is training deterministic?', gpu_parts.determinism, 1, 0.3, on_host=True),
    'kills': Part('Killed and started again', gpu_parts.kills, 1, 0.3),
    'throughput': Part('Beside PyTorch', gpu_parts.throughput, 2, 0.36),
    'axes': Part('Side by side or in turn', gpu_parts.axes, 3, 0.07),
    'memory': Part('Time and memory against runs', gpu_parts.memory, 4, 0.09),
    'cost': Part('What `deterministic` costs', gpu_parts.cost, 5, 0.07),
    'study': Part('The main study, five seeds', gpu_parts.study, 6, 0.14, on_host=True),
}


class Running(NamedTuple):
    process: subprocess.Popen[bytes]
    began: float
    limit: float


def work(name: str) -> None:
    """Does a part, in its own process."""
    if PARTS[name].on_host:
        os.environ['JAX_PLATFORMS'] = 'cpu'  # what it launches has ENV
    try:
        PARTS[name].work(Here(name, room(), SMALL.value, LIMIT.value, TESTS.value))
    except PartError as error:
        sys.exit(f'{name}: {error}')


def start(name: str, limit: float, **env: str) -> Running:
    for old in (room() / f'{name}.json', room() / f'{name}.png'):
        old.unlink(missing_ok=True)
    given = [f'--out={room()}', f'--small={SMALL.value}', f'--tests={",".join(TESTS.value)}']
    command = [sys.executable, __file__, f'--part={name}', f'--limit={limit}', *given]
    env = {
        'CUDA_VISIBLE_DEVICES': '0',  # one GPU is measured
        'TORCHINDUCTOR_COMPILE_THREADS': '1',  # its pool of processes would outlive a part that is ended
        'JAX_COMPILATION_CACHE_DIR': str(room() / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        **os.environ,
        'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
        'COLUMNS': '120',
        **env,
    }
    with (room() / f'{name}.log').open('wb') as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    return Running(process, time.monotonic(), limit)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a part with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it for a while
        process.wait(2)


def ended(name: str, part: Running) -> dict[str, Any] | None:
    """What came of a part, once it has ended or its time is over."""
    code, seconds = part.process.poll(), time.monotonic() - part.began
    if code is None and seconds < part.limit:
        return None
    end(part.process)
    how = f'stopped after {seconds:.0f} s' if code is None else f'failed with exit code {code}' if code else 'ended'
    told = room() / f'{name}.json'
    result = {'how': how, 'seconds': seconds, 'says': '', 'table': [], 'measured': None}
    if told.exists():
        result |= read_json(told)
    if how != 'ended':
        result['log'] = (room() / f'{name}.log').read_text(errors='replace').splitlines()[-16:]
    print(f'{name}: {how}, {seconds:.0f} s. {result["says"]}', flush=True)
    return result


def write_report(results: Mapping[str, dict[str, Any]]) -> None:
    rehearsed = ' **A rehearsal: its numbers mean nothing.**' * SMALL.value
    lines = ['## On a GPU', '', f'`python benchmarks/gpu.py`; memory is taken as it is needed.{rehearsed}']
    for name in PARTS:
        lines += ['', f'### {PARTS[name].title}', '']
        if name not in results:
            lines.append('Not measured: it was not asked for, or there was no time left for it.')
            continue
        result = results[name]
        if result['how'] != 'ended':
            lines += [f'**{result["how"].capitalize()}**{"; until then:" * bool(result["says"])}', '']
        lines += [result['says'], '']
        for i, row in enumerate(result['table']):
            cells = [str(cell).replace('|', '\\|').replace('\n', ' ') for cell in row]
            lines += [f'| {" | ".join(cells)} |', *[f'|{"|".join(["---"] * len(row))}|'] * (i == 0)]
        if (room() / f'{name}.png').exists():
            lines += ['', f'![{PARTS[name].title}]({name}.png)']
        if 'log' in result:
            lines += ['', '```', *(line.replace('```', "'''") for line in result['log']), '```']
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(lines)).strip()
    replace(room() / 'report.md', f'{text}\n')
    write_json(room() / 'measured.json', dict(results))


def main(_: list[str]) -> int:
    if PART.value:
        work(PART.value)
        return 0
    if unknown := set(ONLY.value) - set(PARTS):
        raise app.UsageError(f'--parts: {", ".join(unknown)} not known; there are {", ".join(PARTS)}')
    until = time.monotonic() + 60 * MINUTES.value - MARGIN
    room().mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    planned = [name for name in PARTS if name == 'machine' or not ONLY.value or name in ONLY.value]
    kept = room() / 'measured.json'
    results: dict[str, Any] = read_json(kept) if ONLY.value and kept.exists() else {}
    env: dict[str, str] = {}
    if not ONLY.value and kept.exists():
        shutil.rmtree(room() / 'study', ignore_errors=True)  # else it would be gone on with
    for wave in sorted({PARTS[name].wave for name in planned}):
        to_come = {PARTS[name].wave: PARTS[name].share for name in planned if PARTS[name].wave >= wave}
        limit = (until - time.monotonic()) * to_come[wave] / sum(to_come.values())
        if limit < 1:
            break
        running = {name: start(name, limit, **env) for name in planned if PARTS[name].wave == wave}
        try:
            while running:
                time.sleep(0.05)
                for name in list(running):
                    if result := ended(name, running[name]):
                        del running[name]
                        results[name] = result
                        write_report(results)
        finally:
            for part in running.values():
                end(part.process)
        device = results['machine']['measured'] or {'platform': 'no device', 'version': ''}
        if wave == 0 and device['platform'] != 'gpu' and not (SMALL.value and device['version']):
            print(f'gpu.py: no GPU; JAX sees: {device["platform"]}. See {room() / "machine.log"}', file=sys.stderr)
            return 2
        if 'cuda' in device['version'].lower():
            env['JAX_PLATFORMS'] = 'cuda,cpu'  # else JAX takes the CPU, with a warning, where the GPU does not answer
    print(f'\n{room() / "report.md"}')
    return int(any(result['how'].startswith('failed') for result in results.values()))


if __name__ == '__main__':
    app.run(main)
