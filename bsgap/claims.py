"""Claims: what the source of a study says, as data in the experiment file, held against the runs.

`study.claims` maps an id to a claim, which has the fields
  text        the claim in words
  quantity    what is measured, see below
  of          the recipe that it is measured on: a name, a pattern (`bs*`), or a tuple of them
  minus, over (optional, one of them) another recipe: the quantity is the difference, or the ratio, of the two
  relation    within | at least | at most
  bound       a number; for `within` two, (low, high)
  published   the source's own figure, as text
  source      where it stands
  status      V read in the primary text | S quoted by a secondary source | U unverified
  at          (optional) the row it is read in: 'end' | 'best', by `select` | the number of an epoch
  select      (optional) a column, the higher the better: of several recipes the run with the highest value there is
              taken; with `at` 'best' it is validation_accuracy unless it is given
  group       (optional, for quantities of several runs) a field of the recipes; the runs are those that `select` takes
              among the runs with the same value of it

Quantities of one run
  NAME                   `batch_size` or `learning_rate` as it was typed (else of the first stage), the `updates` or
                         `epochs` made, `seconds` (training and evaluation), a column of metrics.csv, a measurement, or
                         another number among the recipe's fields
  growth Y against X     the exponent p of Y ∝ X^p over the rows of the run in which both columns are above 0
Quantities of several runs
  Y until COLUMN VALUE   a column of metrics.csv, such as `update`, where another one first reaches a value, linear
                         between rows, in the run that needs least; runs that diverged are passed over
  exponent Y against X   the same with one point a run, where Y and X are NAMEs
  spread COLUMN          how far apart the runs are at the largest η·t (column `learning_rate_sum`) that all reached,
                         linear between rows
  relative spread COLUMN that divided by their mean there
Of a search, all runs
  found NAME             a number of the answer, see `answer.numbers`, with its own interval

Every quantity is computed from the runs of one seed alone, selection included: each seed is a replication of the whole
study, so what is compared is paired. Mean and 95 % interval are taken over the seeds. A run that diverged is never
selected; where just that run is needed the seed is left out, and so it is where a run is not finished. A choice by
`group` at an end of the range that was tried may have a better one beyond it: the verdict is then inconclusive.
"""

import contextlib
import csv
import difflib
import fnmatch
import io
import itertools
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bsgap import answer, config, scaling, study
from bsgap.analysis import Interval, at_common_x, interval
from bsgap.metrics import Record, Row

REQUIRED = ('text', 'quantity', 'of', 'relation', 'bound', 'published', 'source', 'status')
OPTIONAL = ('minus', 'over', 'at', 'select', 'group')
SIDES = ('of', 'minus', 'over')
RELATIONS = ('within', 'at least', 'at most')
STATUSES = ('V', 'S', 'U')
HEADINGS = ('claim', 'measured', 'bound', 'published', 'verdict', 'source', 'note')
CSV_COLUMNS = (
    *('id', 'claim', 'quantity', 'value', 'low', 'high', 'n', 'relation', 'bound_low', 'bound_high'),
    *('verdict', 'published', 'source', 'status', 'note'),
)

Outcome = Literal['reproduced', 'not reproduced', 'inconclusive']


class Verdict(NamedTuple):
    """A claim with what the runs say of it."""

    id: str
    text: str
    quantity: str
    value: Interval
    unit: str  # '%' and 'points' for fractions, which are shown times 100; else ''
    relation: str
    low: float  # the bound; infinite where the relation has none
    high: float
    verdict: Outcome
    published: str
    source: str
    status: str
    note: str

    @property
    def measured(self) -> str:
        """The value with its half width, for people."""
        if not self.value.n:
            return '–'
        text = _number(self.value.mean, self.unit)
        if self.value.ends:
            text += ' ({} to {})'.format(*('?' if math.isinf(e) else _number(e, self.unit) for e in self.value.ends))
        elif not math.isnan(self.value.half_width):
            text += f' ± {_number(self.value.half_width, self.unit)}'
        return f'{text} {self.unit}'.rstrip()

    @property
    def expected(self) -> str:
        """The relation and the bound, for people."""
        bounds = ' to '.join(_number(bound, self.unit) for bound in (self.low, self.high) if math.isfinite(bound))
        return f'{self.relation} {bounds} {self.unit}'.rstrip()


class _Quantity(NamedTuple):
    form: Literal['value', 'growth', 'until', 'exponent', 'spread', 'relative spread', 'found']
    y: str
    x: str = ''
    target: float = math.nan

    @property
    def of_one_run(self) -> bool:
        return self.form in ('value', 'growth')


class _UnreadableError(Exception):
    """Why a quantity can't be read from the runs."""


def claim(*required: Any, **optional: Any) -> dict[str, Any]:
    """Writes a claim as the data that it is: the fields of REQUIRED in their order, others by name."""
    return dict(zip(REQUIRED, required, strict=True), **optional)


def check(id: str, claim: Any, recipes: Sequence[str] = (), known: Sequence[str] = ()) -> None:
    """Checks a claim as it was typed.

    `recipes` are the names in the study, and `known` the names, or patterns of them, of the numbers that its runs have;
    empty where that is not known.

    Raises:
      UserError: it has a missing or unknown field, or a value that is not allowed.
    """

    def refuse(field: str, allowed: str) -> config.UserError:
        given = ' '.join(repr(claim.get(field)).split())
        return config.UserError(f'config.claims.{id}.{field}: {given} is not allowed; it must be {allowed}')

    if not re.fullmatch(r'\w+', id):
        raise config.UserError(f'config.claims: {id!r} is not allowed; an id is letters, digits and "_"')
    if not isinstance(claim, Mapping):
        raise config.UserError(f'config.claims.{id}: {claim!r} is not allowed; it must map {", ".join(REQUIRED)}')
    for field in claim:
        if field not in REQUIRED + OPTIONAL:
            fields = ', '.join(REQUIRED + OPTIONAL)
            raise config.UserError(f'config.claims.{id}.{field}: unknown field; known: {fields}')
    for field in REQUIRED:
        if field not in claim:
            raise config.UserError(f'config.claims.{id}.{field}: missing; a claim has {", ".join(REQUIRED)}')
    for field in ('text', 'published', 'source', *(field for field in ('select', 'group') if field in claim)):
        if not isinstance(claim[field], str) or not claim[field]:
            raise refuse(field, 'a text')
    for field, allowed in (('relation', RELATIONS), ('status', STATUSES)):
        if claim[field] not in allowed:
            raise refuse(field, f'one of {", ".join(allowed)}')
    if claim['relation'] != 'within':
        if not _is_number(claim['bound']):
            raise refuse('bound', f'a number, as the relation is {claim["relation"]!r}')
    elif not (_is_list(claim['bound']) and len(claim['bound']) == 2 and all(map(_is_number, claim['bound']))):
        raise refuse('bound', "two numbers (low, high), as the relation is 'within'")
    elif claim['bound'][0] > claim['bound'][1]:
        raise refuse('bound', 'the lower bound first')
    for side in SIDES:
        if side in claim:
            given = _patterns(claim[side]) if isinstance(claim[side], str) or _is_list(claim[side]) else ()
            if not given or not all(isinstance(pattern, str) and pattern for pattern in given):
                raise refuse(side, "the name of a recipe, a pattern such as 'bs*', or a tuple of them")
    if 'minus' in claim and 'over' in claim:
        raise refuse('over', 'left out, as minus is given')
    try:
        quantity = _parse(claim['quantity'])
    except _UnreadableError as forms:
        raise refuse('quantity', str(forms)) from None
    if quantity.form == 'found':
        config.one_of(answer.NUMBERS)(f'claims.{id}.quantity', quantity.y)
    named = quantity.y, quantity.x, _select(claim), claim.get('group')
    for field, number in zip(('quantity', 'quantity', 'select', 'group'), named, strict=True):
        if known and quantity.form != 'found' and number and not _matches(number, known):
            near = difflib.get_close_matches(number, known, n=1) or known
            raise refuse(field, f'of what runs have, such as {near[0]}; they have no {number}')
    if 'at' in claim:
        if quantity.form not in ('value', 'exponent'):
            raise refuse('at', f'left out, as a {quantity.form} is of many rows')
        if claim['at'] not in ('end', 'best') and not (_is_number(claim['at']) and claim['at'] >= 0):
            raise refuse('at', "'end', 'best', or the number of an epoch")
    if claim.get('select', '').endswith('loss'):
        raise refuse('select', "a column of which the highest value is best, such as 'validation_accuracy'")
    if 'group' in claim and (quantity.of_one_run or not _select(claim)):
        raise refuse('group', 'left out, or given with select and a quantity of several runs')
    if 'select' in claim and claim.get('at') != 'best' and not quantity.of_one_run and 'group' not in claim:
        raise refuse('select', 'left out, or given with group, as the quantity is of several runs')
    if quantity.of_one_run and not _select(claim):
        for side in SIDES:
            names = [name for name in recipes if side in claim and _matches(name, claim[side])]
            if len(names) > 1:
                raise refuse(side, f'one recipe, or select must choose; it matches {", ".join(names)}')


def check_finding(template: str, claims: Mapping[str, Any]) -> None:
    """Checks that all that a template names, see `finding`, is there.

    Raises:
      UserError: it is not.
    """
    finding(template, evaluate(claims, []))


def evaluate(
    claims: Mapping[str, Any], records: Sequence[Record], found: Mapping[str, Any] | None = None
) -> list[Verdict]:
    """Holds each claim, which `check` has passed, against the runs, or against what a search has `found`.

    The verdict is `reproduced` if the whole 95 % interval (Student's t over seeds) lies within the bound,
    `not reproduced` if all of it lies outside, and else, or where there is no interval, `inconclusive`.
    """
    return [_evaluate(id, claim, records, found or {}) for id, claim in claims.items()]


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A verdict's row under HEADINGS."""
    return (
        *(verdict.text, verdict.measured, verdict.expected, verdict.published),
        *(verdict.verdict, verdict.source, verdict.note),
    )


def write(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Writes claims.csv: numbers as they are measured (fractions, not per cent), blanks where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(CSV_COLUMNS)
    for v in verdicts:
        value, *interval, low, high = (
            f'{number:.9g}' if math.isfinite(number) else ''
            for number in (v.value.mean, v.value.low, v.value.high, v.low, v.high)
        )
        writer.writerow(
            (
                *(v.id, v.text, v.quantity, value, *interval, v.value.n, v.relation, low, high),
                *(v.verdict, v.published, v.source, v.status, v.note),
            )
        )
    study.replace(path, text.getvalue())


def finding(template: str, verdicts: Iterable[Verdict]) -> str:
    """Fills a text: {ID} becomes 'value ± half width (verdict)', {ID.value} and {ID.verdict} one of the two.

    Raises:
      UserError: the template names something else in braces.
    """
    words: dict[str, str] = {}
    for v in verdicts:
        words |= {v.id: f'{v.measured} ({v.verdict})', f'{v.id}.value': v.measured, f'{v.id}.verdict': v.verdict}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in words:
            known = ', '.join(f'{{{word}}}' for word in words if '.' not in word) or 'no claims'
            raise config.UserError(f'config.finding: {match[0]!r} is not known; it must be one of {known}')
        return words[match[1]]

    return re.sub(r'\{([^{}]*)\}', fill, template)


def _evaluate(id: str, claim: Mapping[str, Any], records: Sequence[Record], found: Mapping[str, Any]) -> Verdict:
    quantity = _parse(claim['quantity'])
    values, notes, censored = list[float](), list[str](), quantity.form == 'found' and quantity.y not in found
    if censored:
        notes = [f'{quantity.y} is not known']
    elif quantity.form != 'found':
        try:
            values, notes, censored = _by_seed(claim, quantity, records)
        except _UnreadableError as reason:
            values, notes, censored = [], [str(reason)], True
    if (_select(claim) or '').startswith('test_'):
        notes.append('selected on the test split')
    if claim['status'] == 'U':
        notes.append("the source's figure is unverified")
    finite = [value for value in values if math.isfinite(value)]
    value, bound = interval(finite), claim['bound']
    if quantity.form == 'found' and not censored:
        value = _estimated(found[quantity.y])
    if len(finite) < len(values):
        notes.append(f'no finite value for {len(values) - len(finite)} of them, which no mean includes')
        value = value._replace(half_width=math.nan)  # what is left is not the whole
    if quantity.y.endswith('seconds'):
        notes.append('time is measured once for all seeds')
        value = value._replace(half_width=math.nan)
    low, high = {'within': bound, 'at least': (bound, math.inf), 'at most': (-math.inf, bound)}[claim['relation']]
    return Verdict(
        id=id,
        value=value,
        unit=_unit(claim, quantity),
        low=low,
        high=high,
        verdict='inconclusive' if censored else _judge(value, low, high),
        note='; '.join(notes),
        **{field: claim[field] for field in ('text', 'quantity', 'relation', 'published', 'source', 'status')},
    )


def _estimated(estimate: Mapping[str, Any]) -> Interval:
    """An estimate of the answer; an end that is not known, or not bounded, is infinite."""
    low, high = estimate['low'], estimate['high']
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return Interval(estimate['value'], math.nan, 1, ends)


def _judge(value: Interval, low: float, high: float) -> Outcome:
    def reaches(number: float, bound: float) -> bool:
        # The mean of n equal numbers can be off in the last place, which must not decide over an exact quantity.
        return number >= bound or math.isclose(number, bound, rel_tol=1e-12)

    if math.isnan(value.low):
        return 'inconclusive'
    if reaches(value.low, low) and reaches(high, value.high):
        return 'reproduced'
    return 'inconclusive' if reaches(value.high, low) and reaches(high, value.low) else 'not reproduced'


def _by_seed(
    claim: Mapping[str, Any], quantity: _Quantity, records: Sequence[Record]
) -> tuple[list[float], list[str], bool]:
    """The quantity's value for each seed that has all runs, what is to be noted, and whether a choice was cut short."""
    recipes = {record.about['recipe'] for record in records}
    sides = {side: _patterns(claim[side]) for side in SIDES if side in claim}
    patterns = [pattern for side in sides.values() for pattern in side]
    if unmatched := [pattern for pattern in patterns if not any(_matches(recipe, pattern) for recipe in recipes)]:
        raise _UnreadableError(f'no run matches {", ".join(unmatched)}')
    needed = [record for record in records if _matches(record.about['recipe'], patterns)]
    by_seed: dict[int, list[Record]] = {}
    for record in needed:
        by_seed.setdefault(record.about['seed'], []).append(record)
    values, at_an_end = [], []
    for runs in by_seed.values():
        if len(runs) < len({record.about['recipe'] for record in needed}) or any(r.status == 'running' for r in runs):
            continue
        chosen = [
            _chosen(claim, quantity, [run for run in runs if _matches(run.about['recipe'], side)])
            for side in sides.values()
        ]
        if not all(chosen):
            continue
        if 'group' in claim:
            at_an_end += [_at_an_end(claim, quantity.y, run, runs) for side in chosen for run in side]
        value, *other = (_of_runs(claim, quantity, side) for side in chosen)
        if 'minus' in claim:
            value -= other[0]
        elif 'over' in claim:
            value = value / other[0] if other[0] else math.nan
        values.append(value)
    left_out = '' if len(values) == len(by_seed) else f' of {len(by_seed)}'
    notes = [f'{len(values)}{left_out} seed{"s" * (len(by_seed) != 1)}']
    if any(at_an_end):
        notes.append(f'the best is at an end of the range in {sum(at_an_end)} of {len(at_an_end)} choices')
    for status, word in (('diverged', 'diverged'), ('running', 'unfinished')):
        if count := sum(record.status == status for record in needed):
            notes.append(f'{count} run{"s" * (count != 1)} {word}')
    return values, notes, any(at_an_end)


def _at_an_end(claim: Mapping[str, Any], name: str, chosen: Record, runs: Sequence[Record]) -> bool:
    """Whether a choice has the lowest or the highest value that was tried, so that a better one may lie beyond."""

    def value(run: Record, number: str) -> float:
        return _value(run, number, run.rows[-1])

    group = claim['group']
    tried = [value(run, name) for run in runs if value(run, group) == value(chosen, group)]
    return value(chosen, name) in (min(tried), max(tried))


def _chosen(claim: Mapping[str, Any], quantity: _Quantity, runs: Sequence[Record]) -> list[Record]:
    """The runs of one seed that the quantity is of; none if one that is needed diverged."""
    done = [run for run in runs if run.status == 'done']
    if quantity.form == 'until':
        return done
    select = _select(claim)
    if not select or not (quantity.of_one_run or 'group' in claim):
        return done if len(done) == len(runs) else []
    groups: dict[float, list[Record]] = {}
    for run in runs:
        key = _value(run, claim['group'], run.rows[-1]) if 'group' in claim else 0.0
        groups.setdefault(key, []).extend([run] if run.status == 'done' else [])
    if not all(groups.values()):
        return []
    return [max(members, key=lambda run: _score(_row(claim, run), select)) for members in groups.values()]


def _of_runs(claim: Mapping[str, Any], quantity: _Quantity, runs: Sequence[Record]) -> float:
    """The quantity of some runs of one seed."""
    form, y, x, target = quantity
    if form == 'until':
        return min(_until(run, y, x, target) for run in runs)
    if form == 'exponent':
        return _exponent([(_value(run, x, _row(claim, run)), _value(run, y, _row(claim, run))) for run in runs])
    if not quantity.of_one_run:
        return _spread(y, runs, relative=form == 'relative spread')
    if len(runs) > 1:
        raise _UnreadableError(f'select must choose one of {", ".join(run.about["recipe"] for run in runs)}')
    if form == 'growth':
        points = [(_value(runs[0], x, row), _value(runs[0], y, row)) for row in runs[0].rows]
        return _exponent([point for point in points if min(point) > 0])
    return _value(runs[0], y, _row(claim, runs[0]))


def _exponent(points: Sequence[tuple[float, float]]) -> float:
    """The exponent of a power law through points (x, y)."""
    try:
        return scaling.exponent(*np.asarray(points).reshape(-1, 2).T)
    except ValueError:
        raise _UnreadableError('an exponent needs two points and all values above 0') from None


def _until(run: Record, y: str, x: str, target: float) -> float:
    """Column `y` where column `x` first reaches the target; infinite if it does not."""
    for before, row in itertools.pairwise(run.rows):
        low, high = _cell(before, x), _cell(row, x)
        if low < target <= high:
            return _cell(before, y) + (target - low) / (high - low) * (_cell(row, y) - _cell(before, y))
    return math.inf


def _spread(column: str, runs: Sequence[Record], relative: bool) -> float:
    """Maximum − minimum of a column over runs at the largest η·t that all of them reached."""
    curves = [
        ([_cell(row, 'learning_rate_sum') for row in run.rows], [_cell(row, column) for row in run.rows])
        for run in runs
    ]
    if len(curves) < 2:
        raise _UnreadableError('a spread needs two recipes')
    if (found := at_common_x(curves)) is None:
        raise _UnreadableError('evaluated too seldom to compare at the same learning rate × updates')
    values_R = found[1]
    if not relative:
        return float(np.ptp(values_R))
    return float(np.ptp(values_R) / values_R.mean()) if values_R.mean() else math.nan


def _row(claim: Mapping[str, Any], run: Record) -> Row:
    """The row of a run that a claim is about."""
    at, select = claim.get('at', 'end'), _select(claim)
    if at == 'end':
        return run.rows[-1]
    if at == 'best':
        return max(run.rows, key=lambda row: _score(row, select))
    for row in run.rows:
        if math.isclose(row['epoch'], at):
            return row
    raise _UnreadableError(f'not evaluated at epoch {at:g}')


def _score(row: Row, select: str | None) -> float:
    score = _cell(row, select or '')
    return -math.inf if math.isnan(score) else score


def _cell(row: Row, column: str) -> float:
    if column not in row:
        raise _UnreadableError(f'metrics.csv has no column {column}')
    return row[column]


def _value(run: Record, name: str, row: Row) -> float:
    """A number of the recipe, or of the run at `row`."""
    about = run.about
    if name == 'seconds':
        return _cell(row, 'train_seconds') + _cell(row, 'eval_seconds')
    if name in ('updates', 'epochs'):  # columns of results.csv; the fields of these names are 0 where another is given
        return _cell(row, name.removesuffix('s'))
    typed = [about['fields'], about['stages'][0]]
    # The column learning_rate is that of the row's last update, which is not what the recipe is known by.
    for source in typed if name in ('batch_size', 'learning_rate') else [row, run.measured, about['fields']]:
        if isinstance(value := source.get(name), numbers.Real) and not isinstance(value, bool):
            return float(value)
    raise _UnreadableError(f'{about["name"]} has no {name}')


def _parse(text: Any) -> _Quantity:
    match text.split() if isinstance(text, str) else []:
        case [name]:
            return _Quantity('value', name)
        case [('growth' | 'exponent') as form, y, 'against', x]:
            return _Quantity(form, y, x)
        case [y, 'until', x, target]:
            with contextlib.suppress(ValueError):
                return _Quantity('until', y, x, float(target))
        case ['found', name]:
            return _Quantity('found', name)
        case ['spread', column]:
            return _Quantity('spread', column)
        case ['relative', 'spread', column]:
            return _Quantity('relative spread', column)
    raise _UnreadableError(
        'NAME, growth Y against X, Y until COLUMN VALUE, exponent Y against X, spread COLUMN, relative spread COLUMN,'
        ' or found NAME'
    )


def _select(claim: Mapping[str, Any]) -> str | None:
    return claim.get('select', 'validation_accuracy' if claim.get('at') == 'best' else None)


def _patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _matches(recipe: str, given: str | Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(recipe, pattern) for pattern in _patterns(given))


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple | list)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _unit(claim: Mapping[str, Any], quantity: _Quantity) -> str:
    form, name, *_ = quantity
    fraction = name == 'gap' or name.endswith('accuracy')
    if 'over' in claim or form in ('growth', 'exponent') or not (fraction or form == 'relative spread'):
        return ''
    return 'points' if 'minus' in claim or name == 'gap' or form == 'spread' else '%'


def _number(value: float, unit: str) -> str:
    if unit:
        return f'{100 * value:z.2f}'
    return f'{value:,.0f}' if 1e3 <= abs(value) < 1e9 else f'{value:.4g}'
