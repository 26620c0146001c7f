"""The parts of `gpu.py`: what is measured, each in a process of its own."""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from told import machine, short, spread

from bsgap.files import read_json, write_json

ROOT = Path(__file__).parent.parent
ENV = dict(os.environ)  # of what a part launches; its own may be changed
ACCURACY, LOSS = 0.002, 0.005  # how far the GPU may be from the CPU: 20 of 10,000 test images; nats


class PartError(Exception):
    """What a part has launched did not do its work."""


class Sizes(NamedTuple):
    """How much is measured."""

    tests: tuple[str, ...]
    workers: int  # that share the tests
    throughput: tuple[str, ...]  # what is best known first, as it may be stopped
    beside: tuple[str, ...]
    axes: tuple[tuple[int, int], ...]  # batch size, runs
    memory: tuple[str, ...]
    cost: tuple[tuple[str, int, int], ...]  # model, batch size, runs
    agreement: tuple[str, ...]
    determinism: tuple[str, ...]
    switches: tuple[str, ...]  # values of `deterministic`
    kills: int
    study: tuple[str, ...]


IN_TRAINING = ('step', 'programs', 'restore', 'loop', 'cohort', 'checkpoint', 'memory', 'optimizer', 'trained', 'noise')
FULL = Sizes(
    tests=(*(f'tests/training/test_{name}.py' for name in IN_TRAINING), 'tests/launch/test_resume.py', 'tests/models'),
    workers=min(6, max(1, (os.cpu_count() or 1) // 2)),
    throughput=(
        *('--batch_sizes=64,1024,1,256,4096,16,4', '--cohort_sizes=1,16,256', '--rounds=3', '--seconds=0.15'),
        '--product=8192',
    ),
    beside=('PyTorch', 'torch.compile', 'CUDA graph'),
    axes=((64, 16), (1024, 16), (64, 4), (64, 64), (1, 16)),
    memory=('--runs=1,4,16,64,256', '--rounds=3'),
    cost=tuple(
        (model, size, runs) for model in ('mlp', 'cnn') for size, runs in ((64, 1), (1024, 16), (64, 16), (1024, 1))
    ),
    agreement=('--config.seeds=1', '--config.epochs=3'),
    determinism=(
        *('--config.sweep.model=mlp,cnn', '--config.sweep.batch_size=64,1024', '--config.seeds=2', '--config.epochs=2'),
        '--config.subset=6000',
    ),
    switches=('false', 'true'),
    kills=3,
    study=('--config.seeds=5',),
)
TINY = ('--config.subset=300', '--config.hidden=16,', '--config.segment_seconds=0.05')
REHEARSAL = Sizes(
    tests=('tests/config/test_checks.py',),
    workers=1,
    throughput=(
        '--batch_sizes=64',
        '--cohort_sizes=2',
        '--rounds=1',
        '--seconds=0.01',
        '--product=64',
        '--noevaluation',
    ),
    beside=('PyTorch', 'CUDA graph'),
    axes=((64, 2),),
    memory=('--runs=1', '--rounds=1', '--batch_size=1024'),
    cost=(('mlp', 64, 1),),
    agreement=('--config.seeds=1', '--config.epochs=2', '--config.sweep.batch_size=64,'),
    determinism=('--config.epochs=1', '--config.seeds=1', '--config.sweep.batch_size=64,'),
    switches=('true',),
    kills=1,
    study=('--config.seeds=2', '--config.epochs=2', '--config.sweep.batch_size=64,256'),
)


class Here(NamedTuple):
    """Where a part stands."""

    name: str
    room: Path  # the folder of all parts
    small: bool
    limit: float  # seconds until it is ended
    tests: Sequence[str]  # in place of the chosen ones

    @property
    def sizes(self) -> Sizes:
        return REHEARSAL if self.small else FULL

    def tell(self, says: str, table: Sequence[Sequence[Any]], measured: Any) -> None:
        """What has been measured so far; of the table the first row is the header."""
        write_json(self.room / f'{self.name}.json', {'says': says, 'table': table, 'measured': measured})


def look(here: Here) -> None:
    """What is here: the device as JAX sees it, the driver, PyTorch."""
    import jax

    device, asked = jax.devices()[0], 'name,driver_version,memory.total,clocks.max.sm'

    def answer(*command: str) -> str:
        """The first line that a command says, if there is such a command."""
        try:
            said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20).stdout
        except (OSError, subprocess.SubprocessError):
            return ''
        return said.partition('\n')[0]

    try:
        import torch

        ours = torch.cuda.is_available() or device.platform == 'cpu'
        torch_says = '' if ours else f'PyTorch {torch.__version__} sees no GPU'
    except ImportError:
        torch_says = 'PyTorch is not installed'
    version = jax.local_devices()[0].client.platform_version.replace('\n', ', ')
    cuda = ('jax-cuda12-plugin', 'jax-cuda13-plugin', 'nvidia-cudnn-cu12', 'nvidia-cudnn-cu13')
    packages = 'jax', 'jaxlib', *cuda, 'flax', 'optax', 'torch', 'triton'
    rows: list[list[str]] = [
        ['what', 'as it says itself'],
        ['device', device.device_kind],
        [asked.replace(',', ', '), answer('nvidia-smi', '-i=0', f'--query-gpu={asked}', '--format=csv,noheader')],
        ['platform', version],
        ['machine', machine(*packages)],
        ['revision', answer('git', 'describe', '--always', '--dirty')],
    ]
    measured = {'platform': device.platform, 'version': version, 'kind': device.device_kind, 'torch': torch_says}
    here.tell(torch_says and f'{torch_says}: nothing is compared with it.', [row for row in rows if row[1]], measured)


def suite(here: Here) -> None:
    """The tests of training, on this device."""
    tests = here.tests or here.sizes.tests
    command = [sys.executable, '-m', 'pytest', '-p', 'xdist', '-v', '--tb=short', '-n', str(here.sizes.workers), *tests]
    env = {key: value for key, value in ENV.items() if not key.startswith('PYTEST_')}
    env['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'  # a warning of whatever else is installed would end them
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found: dict[str, list[str]] = {'PASSED': [], 'FAILED': [], 'ERROR': [], 'SKIPPED': []}
    summary = ''
    assert process.stdout
    for line in process.stdout:
        print(line, end='', flush=True)
        if match := re.match(r'\[gw\d+\] \[ *\d+%\] (\w+) (.*\S)', line):
            found.setdefault(match[1], []).append(match[2])
        elif match := re.match(r'=+ (.* in [\d.]+s.*?) =+$', line):
            summary = match[1]
        else:
            continue
        bad = [*found['FAILED'], *found['ERROR']]
        counts = [len(found['PASSED']), len(bad), len(found['SKIPPED'])]
        names = ', '.join(f'`{name}`' for name in bad)
        says = f'{counts[0]} passed, {counts[1]} failed{": " * bool(bad)}{names}.'
        table: list[list[Any]] = [['passed', 'failed', 'skipped'], counts]
        here.tell(f'{says} {summary or "Not all had their turn."}', table, found)
    if process.wait() not in (0, 1):  # 1: some tests failed, which is a result
        raise PartError(f'pytest ended with {process.returncode}')


def script(here: Here, name: str, arguments: Sequence[str], show: Callable[[Any], None]) -> None:
    """Runs another benchmark, and shows what it has written each time that there is more of it."""
    out = here.room / f'{name}-raw.json'
    out.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / 'benchmarks' / name), *arguments, f'--out={out}']
    process, seen = subprocess.Popen(command, cwd=ROOT, env=ENV), 0
    while True:
        ended = process.poll() is not None
        if out.exists() and (now := out.stat().st_mtime_ns) != seen:
            seen = now
            show(json.loads(out.read_text()))
        if ended:
            break
        time.sleep(0.2)
    if process.returncode or not seen:
        raise PartError(f'{name} ended with {process.returncode}{"" if seen else " and wrote nothing"}')


BESIDE = (
    "On the right PyTorch's time for a run over bsgap's, median [smallest – largest] of the rounds. PyTorch trains one"
    ' run after the other, so its time for a run is measured with one. The evaluation beside "CUDA graph" is eager.'
)


def throughput(here: Here) -> None:
    """Updates and evaluations beside PyTorch, which trains one run after the other."""
    none = read_json(here.room / 'machine.json')['measured']['torch']
    names = () if none else here.sizes.beside

    def show(content: Any) -> None:
        cases = content['measured']
        header = ['what', 'runs', 'bsgap ms a run', 'examples/s', 'share of the product rate', *names]
        rows = []
        for case in cases:
            ratios = {
                name: [its / own for its, own in zip(case[name], case['bsgap'], strict=True)]
                for name in names
                if {name, 'bsgap'} <= set(case)
            }
            what = f'update, batch {case["batch_size"]}' if case['batch_size'] else 'evaluation of 70,000'
            own = [spread(case['bsgap'], 1e3) if 'bsgap' in case else case['failed']['bsgap'][:60]]
            own += [f'{case["examples_per_second"]:,.0f}', f'{case["share"]:.0%}']
            rows.append([what, case['runs'], *own, *(spread(ratios[n]) if n in ratios else '–' for n in names)])
        failed = {name: why for case in cases for name, why in case['failed'].items()}
        says = [
            f'{len(cases)} of {content["cases"]} cases; a large product of matrices runs at'
            f' {content["product_flops"] / 1e12:.3g} TFLOP/s (float32).',
            f'{none}, so nothing stands beside bsgap.' if none else BESIDE,
            *(f'{name} could not do all ({why}).' for name, why in failed.items()),
        ]
        here.tell(' '.join(says), [header, *rows], content)
        updates = [case for case in cases if case['batch_size'] and 'bsgap' in case]
        lines: dict[str, list[tuple[float, float]]] = {}
        for case in updates:
            own_name = f'bsgap, {case["runs"]} run{"s"[: case["runs"] > 1]}'
            for name, label in [
                ('bsgap', own_name),
                *((n, n) for n in names if n in case and case['runs'] == updates[0]['runs']),
            ]:
                lines.setdefault(label, []).append((case['batch_size'], 1e3 * statistics.median(case[name])))
        draw(here.room / 'throughput.png', lines, 'batch size', 'ms an update of a run', log=True)

    script(here, 'throughput.py', [*here.sizes.throughput, f'--beside={",".join(names)}', '--beside_runs=1'], show)


def memory(here: Here) -> None:
    """Time and memory against the number of runs."""

    def show(rows: Any) -> None:
        table = [['runs', 's a run-epoch', 'MiB needed', 'MiB at most until then']]
        table += [[row[0], spread(row[3]), *(f'{value / 2**20:,.0f}' for value in row[5:7])] for row in rows]
        one, last = (statistics.median(row[3]) for row in (rows[0], rows[-1]))
        says = f'With {rows[-1][0]} side by side, a run takes {last / one:.3g} times as long as with {rows[0][0]}'
        here.tell(f'{says} (an epoch of a tenth of MNIST).', table, rows)

    figure = f'--plot={here.room / "memory.png"}'
    script(here, 'devices.py', ['--devices=1', '--ways=cohorts', *here.sizes.memory, figure], show)


def side_by_side(cases: Sequence[dict[str, Any]], field: str, values: Sequence[Any], what: str, here: Here) -> None:
    """Times updates with two values of a field, in turn, so that what the machine does besides hits both."""
    import jax

    from bsgap import config, data
    from bsgap.training import programs, step
    from bsgap.training.runs import cross
    from bsgap.training.watcher import Watcher

    programs.TIMED_CALLS, programs.TIMED_SECONDS = 1, 0.1  # a round each
    header = ['model', 'batch size', 'runs', *(f'{field}={value}, ms a run'.lower() for value in values), 'ratio']
    table, measured = [header], list[Any]()
    for case in cases:
        made = []
        for value in values:
            settings = config.default()
            settings.mean, settings.std, settings.seeds = (0.1307,), (0.3081,), 1
            settings.update({key: case[key] for key in ('model', 'batch_size')} | {field: value})
            if here.small:
                settings.hidden, settings.channels, settings.subset = (16,), (4, 4), 300
            study = config.resolve(settings)
            datasets = data.load(study.data, [study.recipes[0].training_set])
            (run,) = cross(study, {key: dataset.n for key, dataset in datasets.items()})
            made.append((programs.Programs(study, datasets, Watcher(), jax.devices()[0]), run))
        times: list[list[float]] = [[], []]
        with step.numerics(study.precision):
            for rounds in range(4):
                for its, (of, run) in zip(times, made, strict=True):
                    seconds = of.seconds_per_update(run, case['runs']) / case['runs']
                    its += [seconds] if rounds else []  # the first compiles
        ratios = [second / first for first, second in zip(*times, strict=True)]
        table.append([*case.values(), *(spread(its, 1e3) for its in times), spread(ratios)])
        measured.append({**case, **dict(zip(map(str, values), times, strict=True))})
        middle = [statistics.median(b / a for a, b in zip(*list(m.values())[-2:], strict=True)) for m in measured]
        says = f'{what} {short(min(middle))} to {short(max(middle))} times as long'
        here.tell(f'{says} ({len(measured)} of {len(cases)} cases).', table, measured)


def axes(here: Here) -> None:
    """Runs side by side against runs in turn."""
    cases = [{'model': 'mlp', 'batch_size': size, 'runs': runs} for size, runs in here.sizes.axes]
    side_by_side(cases, 'run_axis', ('vmap', 'map'), 'Runs in turn (`map`) take', here)


def cost(here: Here) -> None:
    """What deterministic kernels cost."""
    import bsgap

    if 'deterministic' not in bsgap.default_config():
        here.tell('Left out: this revision has no field `deterministic`.', [], None)
        return
    cases = [dict(zip(('model', 'batch_size', 'runs'), case, strict=True)) for case in here.sizes.cost]
    side_by_side(cases, 'deterministic', (False, True), 'With `deterministic` an update takes', here)


def launch(here: Here, workdir: Path, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, 'launch.py', '--config=experiments/mnist.py', *(TINY if here.small else ()), *arguments]
    return subprocess.Popen([*command, f'--workdir={workdir}'], cwd=ROOT, env={**ENV, **env})


def wait(launched: Sequence[subprocess.Popen[bytes]]) -> None:
    if any(codes := [process.wait() for process in launched]):
        raise PartError(f'the launches ended with {codes}')


def agreement(here: Here) -> None:
    """The main study's first epochs on this device and on the CPU."""
    import bsgap

    folder = emptied(here.room / 'agreement')
    device, cpu = folder / 'device', folder / 'cpu'
    own = launch(here, device, *here.sizes.agreement)
    wait([own, launch(here, cpu, *here.sizes.agreement, JAX_PLATFORMS='cpu')])
    both = bsgap.runs(device).merge(bsgap.runs(cpu), on=['run', 'recipe', 'epoch'], suffixes=('', '_cpu'), how='outer')
    for quantity in ('accuracy', 'loss'):
        both[f'{quantity}_apart'] = (both[f'test_{quantity}'] - both[f'test_{quantity}_cpu']).abs()
    largest = both.groupby(['recipe', 'epoch'], sort=False)[['accuracy_apart', 'loss_apart']].max().reset_index()
    table = [['recipe', 'epoch', 'test accuracy apart (points)', 'test loss apart']]
    table += [
        [r.recipe, f'{r.epoch:g}', f'{100 * r.accuracy_apart:.3f}', f'{r.loss_apart:.2g}'] for r in largest.itertuples()
    ]
    agree = bool((both.accuracy_apart <= ACCURACY).all() and (both.loss_apart <= LOSS).all())  # NaN does not
    says = f'**They {"" if agree else "do not "}agree**: at most {100 * both.accuracy_apart.max():.3f} points and'
    says += f' {both.loss_apart.max():.2g} nats apart; allowed are {100 * ACCURACY:g} points and {LOSS:g} nats.'
    here.tell(says, table, {'agree': agree, 'apart': largest.to_dict('records')})


def determinism(here: Here) -> None:
    """The same study trained again, with the same programs and with programs compiled anew."""
    from kill import final_leaves, rows, rows_that_differ, values_that_differ

    import bsgap

    known = 'deterministic' in bsgap.default_config()
    switches = [f'--config.deterministic={value}' for value in here.sizes.switches] if known else ['']
    header = ['switch', 'trained again with', 'rows', 'rows that differ', 'saved values', 'values that differ']
    table, folder = [header], emptied(here.room / 'determinism')

    def train(compiled: Mapping[str, str]) -> None:
        """Trains by these names, with every switch, each with the programs that one of these names compiled."""
        launched = []
        for name, of in compiled.items():
            for i, switch in enumerate(switches):
                arguments = filter(None, [*here.sizes.determinism, switch])
                cache = str(folder / f'compiled-{of}-{i}')
                launched.append(launch(here, folder / f'{name}-{i}', *arguments, JAX_COMPILATION_CACHE_DIR=cache))
        wait(launched)

    for compiled, other, how in (
        ({'first': 'first', 'anew': 'anew'}, 'anew', 'programs compiled anew'),
        ({'again': 'first'}, 'again', 'the same programs'),
    ):
        train(compiled)
        for i, switch in enumerate(switches):
            first, second = folder / f'first-{i}', folder / f'{other}-{i}'
            leaves, count = final_leaves(first), sum(map(len, rows(first).values()))
            values = sum(leaf.size for of_run in leaves.values() for leaf in of_run.values())
            differ = rows_that_differ(second, first), values_that_differ(final_leaves(second), leaves)
            named = f'`{switch.removeprefix("--config.")}`' if switch else 'none'
            table.append([named, how, *map(str, (count, differ[0], values, differ[1]))])
        alike = [f'{row[0]}, {row[1]}' for row in table[1:] if row[3] == row[5] == '0']
        says = f'The same bits in {len(alike)} of {len(table) - 1} cases{": " * bool(alike)}{"; ".join(alike)}.'
        here.tell(f'{says} Trained is `experiments/mnist.py` with `{" ".join(here.sizes.determinism)}`.', table, table)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def kills(here: Here) -> None:
    """Is anything lost when training is killed?"""
    from kill import finish, start

    if not here.small:  # else most launches end before they are killed, as those that follow need not compile
        finish(start(emptied(here.room / 'kills')))
    command = [sys.executable, 'benchmarks/kill.py', f'--kills={here.sizes.kills}', '--processes=1']
    output = subprocess.run(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(output)
    header, _, row = [[cell.strip() for cell in line.split('|')[1:-1]] for line in output.splitlines() if '|' in line]
    says = f'{row[1]} kills at random moments, each started again: {row[4]} rows lost, {row[5]} values that differ.'
    here.tell(says, [header, row], dict(zip(header, row, strict=True)))


def study(here: Here) -> None:
    """The main study with five seeds."""
    import bsgap

    workdir, began = here.room / 'study', time.monotonic()
    gone_on = ', gone on with' * workdir.exists()
    process = launch(here, workdir, *here.sizes.study)
    try:
        process.wait(max(1.0, here.limit - (time.monotonic() - began) - 12))
    except subprocess.TimeoutExpired:
        process.terminate()  # all runs are saved
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(6)
    seconds, runs = time.monotonic() - began, bsgap.runs(workdir)
    last = runs.groupby('run', sort=False).tail(1)
    table: list[list[Any]] = [['recipe', 'seeds', 'epochs', 'test accuracy, %', 'sd', 'gap, points']]
    for recipe, of in last.groupby('recipe', sort=False):
        percent = [100 * value for value in (of.test_accuracy.mean(), of.test_accuracy.std(), of.gap.mean())]
        table.append([recipe, len(of), f'{of.epoch.min():g}', *(f'{value:.2f}' for value in percent)])
    how = 'until it was stopped; the same command with `--parts=study` goes on with it'
    if done := process.returncode == 0:
        how = 'from start to end, compilation and report included'
    measured = {'seconds': seconds, 'done': done, 'table': table}
    here.tell(f'{len(last)} runs{gone_on}, in {seconds:.0f} s {how}.', table, measured)
    curves = runs.groupby(['recipe', 'epoch'], sort=False).test_accuracy.mean().mul(100)
    lines = {str(name): list(of.droplevel('recipe').items()) for name, of in curves.groupby('recipe', sort=False)}
    draw(here.room / 'study.png', lines, 'epoch', 'test accuracy, %')
    if process.returncode not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
        raise PartError(f'the launch ended with {process.returncode}')


def draw(path: Path, lines: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, log: bool = False) -> None:
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6), layout='constrained')
    for label, points in lines.items():
        style = '-' if label.startswith('bs') else '--'
        axis.plot(*zip(*sorted(points), strict=True), style, marker='o', ms=3, label=label)
    axis.set(xlabel=x, ylabel=y)
    if log:
        axis.loglog(base=2)
        axis.set_yscale('log')
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
