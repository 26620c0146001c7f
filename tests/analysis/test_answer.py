"""Answers of searches whose runs are made by hand, where the right one is known."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsgap.analysis import answer, trials
from bsgap.errors import UserError
from bsgap.files import write_json
from bsgap.training import rows
from bsgap.training.rows import read_records

N, VALIDATION, TEST = 8000, 2000, 4000
SIZES, RATES, SEEDS = (8, 32, 128), (0.1, 0.2, 0.4), 4
ENDS = {'epochs': {'8': 1000, '32': 250, '128': 63}, 'updates': dict.fromkeys(map(str, SIZES), 100)}
FIELDS = {
    'model': 'mlp', 'hidden': [16], 'channels': [], 'batch_norm': False, 'ghost_batch': 0, 'model_arguments': {},
    'optimizer': 'sgd', 'schedule': 'linear', 'momentum': 0.0, 'weight_decay': 0.0, 'beta2': 0.999,
    'data_seed': 0,
}  # fmt: skip
HEADER = (
    'update', 'examples', 'validation_loss', 'validation_accuracy', 'train_accuracy', 'test_accuracy', 'gap',
    'distance', 'gradient_square', 'gradient_variance', 'train_seconds', 'eval_seconds',
)  # fmt: skip
Accuracy = Callable[[int, float, int], float]  # of a batch size, learning rate and length; NaN where it diverges


def search(**changes: Any) -> dict[str, Any]:
    return {
        'seeds': SEEDS, 'margin': 0.004, 'targets': (), 'budgets': {'epochs': 1.0, 'updates': 100}, 'updates': ENDS,
        'seconds_per_update': {'8': [0.01, 0.012, 0.011], '32': [0.02], '128': [0.04]},
        'bytes': {'8': 1, '32': 2, '128': 3}, 'device': 'cpu', 'fresh': [], 'data_seed': 0, 'settings': {}, **changes,
    }  # fmt: skip


def write(
    workdir: Path, recipe: str, seed: int, accuracy: float, about: Mapping[str, Any], stages: Sequence[Any] = ()
) -> None:
    """A run's files. Every run finds the same examples hard, so that it answers the easiest share of them, and a few
    others by chance of its own."""
    folder = workdir / 'runs' / f'{recipe}-seed{seed}'
    folder.mkdir(parents=True)
    rng, updates = np.random.default_rng(list(f'{recipe}{seed}'.encode())), about['updates']
    fields = {
        **FIELDS,
        **{field: about[field] for field in ('batch_size', 'learning_rate', 'data_seed') if field in about},
    }
    content = {'name': folder.name, 'recipe': recipe, 'seed': seed, 'n': N, 'updates': updates, 'fields': fields}
    size = about.get('batch_size', 8)
    stage = {'batch_size': size, 'learning_rate': 0.1, 'length': updates, 'unit': 'updates'}
    content |= {'examples': updates * size, 'stages': list(stages) or [stage]}
    write_json(folder / 'run.json', content)
    correct = {}
    for split, n in (('validation', VALIDATION), ('test', TEST)):
        of_seed = accuracy + 0.001 * rng.normal() if math.isfinite(accuracy) else 0.0
        correct[split] = np.linspace(0, 1, n) + 0.01 * rng.normal(size=n) < of_seed
    rows.write_answers(folder, correct)
    found = {f'{split}_accuracy': float(right.mean()) for split, right in correct.items()}
    row = {
        'update': updates, 'examples': updates * size, 'validation_loss': 1 - accuracy, **found, 'train_accuracy': 1.0,
        'gap': 1 - found['test_accuracy'], 'distance': 1.0, 'gradient_square': 2.0, 'gradient_variance': 2.0 * size,
        'train_seconds': 3.0, 'eval_seconds': 1.0,
    }  # fmt: skip
    rows.write(folder / 'metrics.csv', [row], HEADER)


def searched(workdir: Path, accuracy: Accuracy, lengths: Sequence[int] = (50, 100, 250, 500, 1000)) -> Path:
    """All trials of a search."""
    for size in SIZES:
        ends = {ends[str(size)] for ends in ENDS.values()}
        for updates in sorted(ends | {length for length in lengths if length < max(ends)}):
            for rate in RATES:
                for seed in range(SEEDS):
                    about = {'batch_size': size, 'learning_rate': rate, 'updates': updates}
                    write(workdir, f'bs{size}-lr{rate}-updates{updates}', seed, accuracy(size, rate, updates), about)
    return workdir


def find(workdir: Path, most_frequent: float = 0.1, **changes: Any) -> dict[str, Any]:
    sizes = {'train': N, 'validation': VALIDATION, 'test': TEST}
    known = {'baseline': dict.fromkeys(sizes, most_frequent), 'sizes': sizes}
    about = {'config': {'dataset': 'mnist', 'search.warm_up': 0.05}, 'training_sets': [known]}
    found = answer.find(about, search(**changes), workdir)
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # plain data
    return found


def curve(size: int, rate: float, updates: int) -> float:
    """Error in proportion to (S_min + E_min/B)/updates at the best rate, 0.2, and more beside it; B_crit is 48."""
    return 1 - 2.86 * (1 + 48 / size) / updates * (1 + math.log2(rate / 0.2) ** 2)


@pytest.fixture(scope='module')
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp('plain'), curve)


def by_size(found: Mapping[str, Any], unit: str) -> dict[int, dict[str, Any]]:
    (budget,) = (budget for budget in found['budgets'] if budget['unit'] == unit)
    return {row['batch_size']: row for row in budget['rows']}


def test_each_budget_has_its_own_winner_at_the_best_learning_rate(plain: Path) -> None:
    found = find(plain)
    for unit in ('epochs', 'updates'):
        rows_ = by_size(found, unit)
        assert {row['learning_rate'] for row in rows_.values()} == {0.2}
        assert {size: row['updates'] for size, row in rows_.items()} == {int(k): v for k, v in ENDS[unit].items()}
        for size, row in rows_.items():
            assert row['test_score']['value'] == pytest.approx(curve(size, 0.2, row['updates']), abs=0.002)
            assert row['test_score']['low'] < row['test_score']['value'] < row['test_score']['high']
            assert row['gap']['value'] == pytest.approx(1 - row['test_score']['value'])
    assert {size: row['verdict'] for size, row in by_size(found, 'updates').items()} == {
        8: 'worse', 32: 'worse', 128: 'best',
    }  # fmt: skip
    assert {size: row['verdict'] for size, row in by_size(found, 'epochs').items()} == {
        8: 'best', 32: 'worse', 128: 'worse',
    }  # fmt: skip
    recommended = {budget['unit']: budget['recommended']['batch_size'] for budget in found['budgets']}
    assert recommended == {'epochs': 8, 'updates': 128}
    assert found['rests_on']['runs'] == len(read_records(plain))


def test_the_interval_of_the_times_is_in_the_bounds_of_a_budget_in_seconds(tmp_path: Path) -> None:
    """Error falls as 1/updates, and an update at batch size 8 took 0.91 to 1.09 times its median."""
    searched(tmp_path, curve, lengths=(500,))
    told = fresh(tmp_path, {'recommended': 0.9, 'smaller': 0.89, 'half the rate': 0.89})
    told += [{**entry, 'unit': 'seconds'} for entry in told]
    budgets = {'epochs': 1.0, 'seconds': 10.0}
    found = find(tmp_path, budgets=budgets, updates=dict.fromkeys(budgets, ENDS['epochs']), fresh=told)
    epochs, seconds = ({row['batch_size']: row for row in budget['rows']} for budget in found['budgets'])
    assert {row['slack'] for row in epochs.values()} == {0}
    slack = seconds[8]['slack']
    assert slack == pytest.approx((1 - seconds[8]['validation_score']['value']) * (0.011 / 0.01 - 1), rel=0.1)
    assert [seconds[size]['slack'] for size in (32, 128)] == [0, 0]
    for size in (32, 128):
        assert epochs[size]['difference']['low'] - seconds[size]['difference']['low'] == pytest.approx(slack)
    lows = [{row['role']: row['difference']['low'] for row in budget['fresh']} for budget in found['budgets']]
    assert lows[0]['smaller'] - lows[1]['smaller'] == pytest.approx(slack)
    assert lows[0]['half the rate'] == lows[1]['half the rate']


def test_of_those_that_are_as_good_one_is_chosen_by_what_is_lacked(tmp_path: Path) -> None:
    """All but 8 are equal; 128 needs 63 × 0.04 s for an epoch, and 32 needs 250 × 0.02."""
    searched(tmp_path, lambda size, rate, updates: 0.9 - 0.05 * (rate != 0.2) - 0.1 * (size == 8), lengths=())
    found = find(tmp_path, margin=0.02)
    for budget in found['budgets']:
        assert {row['verdict'] for row in budget['rows'] if row['batch_size'] > 8} == {'best', 'as good'}
        time = {'epochs': 128, 'updates': 32}[budget['unit']]
        assert budget['choices'] == {'memory': 32, 'updates': 128, 'time': time}
        assert budget['recommended']['batch_size'] == time


def test_what_diverged_or_learned_nothing_is_no_candidate(tmp_path: Path) -> None:
    searched(tmp_path, lambda size, rate, updates: {8: math.nan, 32: 0.1, 128: 0.5}[size], lengths=())
    found = find(tmp_path)
    assert all([row['batch_size'] for row in budget['rows']] == [128] for budget in found['budgets'])
    assert all(budget['missing'] == [8, 32] for budget in found['budgets'])
    assert found['rests_on']['diverged'] == 2 * len(RATES) * SEEDS
    assert {cell['validation_error'] for cell in found['trials'] if cell['batch_size'] == 8} == {None}
    nothing = find(tmp_path, most_frequent=0.5)
    assert all(budget['recommended'] is None and not budget['rows'] for budget in nothing['budgets'])
    assert nothing['curves'] == nothing['targets'] == []


def test_of_learning_rates_that_are_level_the_one_with_the_lower_loss_is_told(tmp_path: Path) -> None:
    """As the search itself chose; on one with a higher loss, nothing beside it was tried."""
    searched(tmp_path, lambda size, rate, updates: 1.5 if rate < 0.3 else 0.5, lengths=())  # all is right twice
    for run in tmp_path.glob('runs/*lr0.1-*'):
        (row,) = rows.read(run / 'metrics.csv')
        rows.write(run / 'metrics.csv', [{**row, 'validation_loss': 9.0}], HEADER)
    for unit in ('epochs', 'updates'):
        assert {row['learning_rate'] for row in by_size(find(tmp_path), unit).values()} == {0.2}


def test_one_run_that_diverged_rules_its_trial_out(tmp_path: Path) -> None:
    searched(tmp_path, lambda size, rate, updates: 0.95 if rate == 0.4 else 0.9, lengths=())
    (file,) = tmp_path.glob('runs/bs8-lr0.4-updates1000-seed2/metrics.csv')
    (row,) = rows.read(file)
    rows.write(file, [{**row, 'validation_loss': math.nan}], HEADER)
    found = find(tmp_path)
    assert by_size(found, 'epochs')[8]['learning_rate'] != 0.4
    assert by_size(found, 'epochs')[32]['learning_rate'] == by_size(found, 'updates')[8]['learning_rate'] == 0.4


def fresh(
    workdir: Path, accuracies: Mapping[str, float], growing: float | None = None, largest: int = 64
) -> list[dict[str, Any]]:
    """Fresh seeds beside batch size 32 and learning rate 0.2 for the epochs; what search.json says of them."""
    settings = {'recommended': (32, 0.2, 250), 'smaller': (8, 0.2, 1000), 'larger': (128, 0.2, 63)}
    settings |= {'half the rate': (32, 0.1, 250), 'twice the rate': (32, 0.4, 250)}
    told = []
    for role, accuracy in accuracies.items():
        size, rate, updates = settings[role]
        about = {'batch_size': size, 'learning_rate': rate, 'updates': updates, 'data_seed': 1}
        recipe = f'bs{size}-lr{rate}-dataseed1-updates{updates}'
        for seed in range(SEEDS, SEEDS + 3):
            write(workdir, recipe, seed, accuracy, about)
        rest = {'momentum': 0.0, 'weight_decay': 0.0, 'beta2': 0.999, 'seeds': list(range(SEEDS, SEEDS + 3))}
        told.append(
            {'unit': 'epochs', 'role': role, 'recipe': recipe, 'batch_size': size, 'learning_rate': rate, **rest}
        )
    if growing is not None:
        stages = [
            {'batch_size': b, 'learning_rate': 0.2, 'length': length, 'unit': 'examples'}
            for b, length in ((32, 4000), (largest, 4000))
        ]
        for seed in range(SEEDS, SEEDS + 3):
            write(workdir, 'grow-bs32', seed, growing, {'updates': 188}, stages)
        told.append({**told[0], 'role': 'growing', 'recipe': 'grow-bs32'})
    return told


def test_fresh_seeds_change_what_they_contradict_and_say_what_was_thought(tmp_path: Path) -> None:
    searched(tmp_path, lambda size, rate, updates: 0.9 - 0.05 * (rate != 0.2) + 0.01 * (size == 32), lengths=())
    told = fresh(tmp_path, {'recommended': 0.88, 'smaller': 0.92, 'larger': 0.85, 'twice the rate': math.nan})
    (budget, other) = find(tmp_path, fresh=told)['budgets']
    assert budget['first_thought']['batch_size'] == 32
    assert (budget['recommended']['batch_size'], budget['recommended']['learning_rate']) == (8, 0.2)
    assert budget['recommended']['test_score']['value'] == pytest.approx(0.92, abs=0.005)
    outcome = {row['role']: (row['verdict'], row['seeds'], row['diverged']) for row in budget['fresh']}
    assert outcome == {
        'recommended': ('worse', 3, 0), 'smaller': ('best', 3, 0), 'larger': ('worse', 3, 0),
        'twice the rate': (None, 0, 3),
    }  # fmt: skip
    assert other['first_thought'] is None
    assert other['fresh'] == []


def test_fresh_seeds_that_agree_or_leave_it_open_change_nothing(tmp_path: Path) -> None:
    searched(tmp_path, lambda size, rate, updates: 0.9 - 0.05 * (rate != 0.2) + 0.01 * (size == 32), lengths=())
    told = fresh(tmp_path, {'recommended': 0.9, 'smaller': 0.901, 'larger': 0.85}, growing=0.93)
    budget, _ = find(tmp_path, fresh=told)['budgets']
    assert budget['first_thought'] is None
    assert budget['recommended']['batch_size'] == 32
    growing = budget['fresh'][-1]
    assert (growing['role'], growing['verdict']) == ('growing', 'best')
    assert growing['difference']['low'] < 0.03 < growing['difference']['high']
    assert growing['difference']['low'] > 0
    # 125 updates of 32, and 63 of 64, whose time lies between those of 32 and 128 on a log scale.
    assert growing['seconds'] == pytest.approx(125 * 0.02 + 63 * math.sqrt(0.02 * 0.04))


def test_more_seeds_than_before_leave_what_was_fresh_apart(tmp_path: Path) -> None:
    """A fresh seed of an earlier launch has the number of one of the search's now, and another validation split."""
    searched(tmp_path, lambda size, rate, updates: 0.9 - 0.05 * (rate != 0.2) + 0.01 * (size == 32), lengths=())
    told = fresh(tmp_path, {'recommended': 0.3, 'smaller': 0.3})
    for seed in range(SEEDS, SEEDS + 2):
        for size, rate, updates in ((32, 0.2, 250), (8, 0.2, 1000), (128, 0.2, 63)):
            about = {'batch_size': size, 'learning_rate': rate, 'updates': updates}
            write(tmp_path, f'bs{size}-lr{rate}-updates{updates}', seed, 0.9, about)
    now = [{**entry, 'seeds': [SEEDS + 2]} for entry in told]
    found = find(tmp_path, seeds=SEEDS + 2, fresh=now)
    epochs = by_size(found, 'epochs')
    assert {row['seeds'] for row in epochs.values()} == {SEEDS + 2}
    assert all(row['validation_score']['value'] > 0.85 for row in epochs.values())
    assert [row['seeds'] for row in found['budgets'][0]['fresh']] == [1, 1]
    assert found['rests_on']['fresh_seeds'] == 1


def test_a_growing_batch_beyond_those_that_were_timed_has_no_seconds(tmp_path: Path) -> None:
    searched(tmp_path, lambda size, rate, updates: 0.9, lengths=())
    found = find(tmp_path, fresh=fresh(tmp_path, {'recommended': 0.9}, growing=0.9, largest=256))
    assert found['budgets'][0]['fresh'][-1]['seconds'] is None


def test_curves_targets_and_learning_rates_come_from_the_ladder(plain: Path) -> None:
    found = find(plain)
    for line in found['curves']:
        for point in line['points']:
            expected = 1 - curve(line['batch_size'], 0.2, point['updates'])
            assert point['error']['value'] == pytest.approx(expected, rel=0.05, abs=0.002)
            assert point['seconds'] == pytest.approx(
                point['updates'] * {8: 0.011, 32: 0.02, 128: 0.04}[line['batch_size']]
            )
    assert len(found['targets']) > 2
    assert all(target['found'] for target in found['targets'])
    for row in found['learning_rates']['rows']:
        assert row['value'] == pytest.approx(0.2, rel=0.15)
    for target in found['targets']:
        assert target['curve']['b_crit']['low'] < 48 < target['curve']['b_crit']['high']
        assert target['curve']['b_crit']['value'] == pytest.approx(48, rel=0.1)
    given = find(plain, targets=(0.05, 0.04))
    assert [target['error'] for target in given['targets']] == [0.05, 0.04]
    assert not any(target['found'] for target in given['targets'])


def test_the_noise_scale_is_that_of_the_trials(plain: Path) -> None:
    for line in find(plain)['noise_scale']:
        assert all(p['noise_scale']['value'] == pytest.approx(line['batch_size']) for p in line['points'])


def test_the_machine(plain: Path) -> None:
    first, *_ = find(plain)['machine']
    assert first == {
        'batch_size': 8, 'seconds': {'value': 0.011, 'low': 0.01, 'high': 0.012}, 'measurements': 3, 'bytes': 1,
        'parts': 1,
        'examples_per_second': pytest.approx(8 / 0.011),
    }  # fmt: skip


def test_the_table_of_trials(plain: Path) -> None:
    table = trials.table(read_records(plain), search(), 'accuracy')
    assert len(table) == len(read_records(plain))
    row = table[table['run'] == 'bs8-lr0.4-updates1000-seed2'].iloc[0]
    assert (row['batch_size'], row['learning_rate'], row['updates'], row['examples']) == (8, 0.4, 1000, 8000)
    assert row['seconds'] == pytest.approx(11.0)
    (record,) = (record for record in read_records(plain) if record.name == row['run'])
    assert row['validation_error'] == pytest.approx(1 - record.rows[-1]['validation_accuracy'])
    assert not row['fresh']
    assert not row['diverged']


def test_answers_that_are_gone_are_named(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'answers.json is damaged'):
        trials.answers(tmp_path, ['bs8-lr0.4-updates1000-seed2'], 'test')
    with pytest.raises(UserError, match=r"answers.json is damaged: \['train'\] missing"):
        trials.answers(plain, ['bs8-lr0.4-updates1000-seed2'], 'train')


def test_a_search_that_has_no_run_yet_has_an_answer(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert [budget['recommended'] for budget in found['budgets']] == [None, None]
    assert found['trials'] == found['curves'] == found['targets'] == []


def test_no_target_is_below_what_the_validation_split_can_show(tmp_path: Path) -> None:
    """All trials but the shortest answer everything: of 2000 examples half of one counts as wrong."""
    searched(tmp_path, lambda size, rate, updates: 0.99 if updates == 50 else 1.1)
    found = find(tmp_path)
    assert all(target['error'] > 1 / VALIDATION for target in found['targets'])
    assert {p['error']['value'] for line in found['curves'] for p in line['points'][1:]} == {0.5 / VALIDATION}
