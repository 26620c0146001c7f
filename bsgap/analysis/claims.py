"""Claims: what the source of a study says, held against the runs.

An experiment file has a function `claims(variant)` that returns a list of `Claim`, and names it in its config:
`study.claims = 'experiments.mnist:claims'`. A claim measures a number in the table of runs, mostly by `quantities`, and
has the bound that the number must keep for the source to be right.
"""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bsgap import config
from bsgap.analysis.loading import call
from bsgap.analysis.quantities import AbsentError, Reading, UnreadableError, reading
from bsgap.analysis.statistics import LEVEL, TAIL, Estimate, interval, plural, standard_errors
from bsgap.config.fields import FREE_FIELDS
from bsgap.errors import UserError, place_of, said
from bsgap.files import replace

if TYPE_CHECKING:  # pandas takes a fifth of a second to load, which training need not wait for
    import pandas as pd

Planned = Sequence[tuple[str, int, str]]  # (recipe, seed, status) of runs that may have no row yet
VERDICTS = 'not reproduced', 'inconclusive', 'reproduced'  # what failed comes first
PERCENT = '%', 'points'  # units of what is shown times 100
# Fields that a claim leaves open: when there is a row, which examples were drawn, and what changes rounding at most.
OPEN = {'evaluate_epochs', 'evaluate_updates', 'evaluate_at', 'evaluate_on', 'noise_scale', 'data_seed'}
OPEN |= {'max_physical_batch', *FREE_FIELDS}
SIZES = 'batch_size', 'switch_to'  # 1 where an experiment has `whole`
POWER, MOST_SEEDS = 0.8, 100  # how often, and with how many seeds, an inconclusive claim is to be decided


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a source says, and how to measure it; exactly one of `within`, `at_least` and `at_most` is given.

    Raises:
      UserError: a field has a value that is not allowed.
    """

    name: str  # an identifier; {name} in `study.finding` stands for what was measured
    text: str  # the claim in words
    measure: Callable[['pd.DataFrame'], 'pd.Series | Estimate']  # of the table of runs: a value a seed, or an estimate
    _: dataclasses.KW_ONLY
    within: tuple[float, float] | None = None
    at_least: float | None = None
    at_most: float | None = None
    published: str  # the source's own figure
    source: str  # where it stands
    status: str  # V read in the primary text | S quoted by a secondary source | U unverified
    unit: str = ''  # '%' or 'points' for fractions, shown times 100; 'ratio': a mean of logarithms, shown as a factor
    bound_first: bool = True  # whether the bound was written down before the runs

    def __post_init__(self) -> None:
        bounds = self.within or [bound for bound in (self.at_least, self.at_most) if bound is not None]
        in_order = all(map(math.isfinite, bounds)) and [*bounds] == sorted(bounds)
        for ok, needs in (
            (self.name.isidentifier(), 'a name of letters, digits and "_"'),
            ((self.within, self.at_least, self.at_most).count(None) == 2, 'one of within, at_least and at_most'),
            (in_order, 'bounds that are numbers, the lower first'),
            (self.status in ('V', 'S', 'U'), 'a status: V, S or U'),
            (self.unit in ('', 'ratio', *PERCENT), "a unit: '', '%', 'points' or 'ratio'"),
        ):
            if not ok:
                raise UserError(f'claim {self.name}: needs {needs}')

    @property
    def bound(self) -> tuple[str, float, float]:
        """The relation, and between which two numbers the value must lie for it."""
        if self.within:
            return 'within', *self.within
        if self.at_least is not None:
            return 'at least', self.at_least, math.inf
        assert self.at_most is not None
        return 'at most', -math.inf, self.at_most


class Verdict(NamedTuple):
    """A claim with what the runs say of it: a row of claims.csv. Numbers are as they were measured, not per cent."""

    id: str
    claim: str
    unit: str
    value: float
    low: float  # of its 95 % interval; NaN or infinite where there is no such end
    high: float
    n: int  # how many seeds it is the mean of; 1 for an estimate with an interval of its own
    relation: str
    bound_low: float  # infinite where the relation has none
    bound_high: float
    verdict: str  # reproduced | not reproduced | inconclusive
    published: str
    source: str
    status: str
    bound_first: bool
    note: str

    @property
    def measured(self) -> str:
        """The value with its half width, or with the ends of its own interval, for people."""
        if not self.n:
            return '–'
        ends = self.low, self.high
        widths = [abs(end - self.value) for end in ends if math.isfinite(end)]
        is_ratio, widest = self.unit == 'ratio', max(widths, default=0.0)
        if is_ratio:  # one more digit than two, of each number, for an interval within a tenth of it
            known = [end for end in ends if all(0 < x < math.inf for x in (self.value, end))]
            widest = max((abs(math.log(end / self.value)) for end in known), default=1.0)
            widest = widest and 10.0 ** min(0, 1 + math.floor(math.log10(widest)))
        numbers = (self.value, *ends, *widths)
        text, *others = (_number(x, self.unit, abs(x) * widest if is_ratio else widest) for x in numbers)
        if self.n > 1 and widths and not is_ratio:
            text += f' ± {others[-1]}'
        elif not all(map(math.isnan, ends)):
            text += ' ({} to {})'.format(*others[:2])
        return f'{text} {self.unit}' if self.unit in PERCENT else text

    @property
    def expected(self) -> str:
        """The relation and the bound, for people."""
        finite = filter(math.isfinite, (self.bound_low, self.bound_high))
        text = f'{self.relation} {" to ".join(_number(bound, self.unit) for bound in finite)}'
        return f'{text} {self.unit}' if self.unit in PERCENT else text


def verdicts(
    workdir: Path, settings: Mapping[str, Any], runs: 'pd.DataFrame', experiment: Path | None = None
) -> tuple[list[Verdict], list[str]]:
    """The verdicts on a study's claims, and lines that say what there is to be said of them.

    `settings` are those of study.json; `runs.attrs['answer']` has the numbers of a search's answer. Left out are claims
    about another dataset, network or training, and those about recipes that the experiment has and this study, with
    other values on its command line, has not. Where the experiment can't be had, see `loading.call`, they are those of
    claims.csv.

    Raises:
      UserError: claims.csv would be needed and is damaged.
    """
    if not settings.get('claims'):
        return [], []
    try:
        made, own = call(settings['claims'], settings.get('variant', ''), experiment)
        if len({claim.name for claim in made if isinstance(claim, Claim)}) < len(made):
            raise UserError(f'{settings["claims"]} does not return a list of Claim, each with a name of its own')
    except UserError as error:
        kept = read(workdir / 'claims.csv')
        return kept, [f'claims {"as claims.csv has them" if kept else "left out"}: {error}']
    dataset = own.data.dataset
    if dataset != settings['dataset']:
        return [], [f'{plural(len(made), "claim")} left out: about {dataset}, not {settings["dataset"]}']
    if changed := _changed(config.settings(own), settings):
        return [], [f'{plural(len(made), "claim")} left out: about other values of {", ".join(changed)}']
    planned = [(recipe, seed, 'running') for recipe in settings['recipes'] for seed in range(settings['seeds'])]
    planned += [(recipe.name, 0, 'absent') for recipe in own.recipes if recipe.name not in settings['recipes']]
    judged = evaluate(made, runs, planned)
    left_out = len(made) - len(judged)
    return judged, [f'{plural(left_out, "claim")} left out: about runs that this study has not'] if left_out else []


def _changed(own: Mapping[str, Any], these: Mapping[str, Any]) -> list[str]:
    """The fields with other values than the experiment's: of the study, and of recipes of the same name, or where a
    search has none, whose names have sizes and rates, of the first ones."""
    mine, its = ({name: made['fields'] for name, made in of['recipes'].items()} for of in (own, these))
    pairs = [(mine[name], its[name]) for name in mine.keys() & its.keys()]
    if not pairs and 'search.rungs' in own:
        a, b = next(iter(mine.values())), next(iter(its.values()))
        pairs = [(a, b | {key: a[key] for key in ('batch_size', 'learning_rate') if key in a})]
    changed = {
        key
        for a, b in [(own, these), *pairs]
        for key in a.keys() & b.keys()
        if (a[key] or None) != (b[key] or None)  # what is off was None in earlier versions
    }
    whole = {key for a, _ in pairs for key in SIZES if 1 in np.ravel(a.get(key, 0))}  # whose number is not known here
    return sorted(changed - OPEN - whole)


def evaluate(claims: Iterable[Claim], runs: 'pd.DataFrame', planned: Planned = ()) -> list[Verdict]:
    """Holds each claim against the rows in which all splits were evaluated.

    The verdict is `reproduced` if one-sided tests at 5 % (Student's t over seeds) show that the mean lies within the
    bound, two of them where that has two ends (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657), `not reproduced`
    if one shows that it lies outside, and else `inconclusive`. An estimate's own 95 % interval must do in their place.
    A claim about an 'absent' run has no verdict.
    """
    table = _table(runs, planned)
    return [verdict for claim in claims if (verdict := _evaluate(claim, table))]


def _table(runs: 'pd.DataFrame', planned: Planned) -> 'pd.DataFrame':
    """The table that claims see: the full rows, and of a run that has none the first, or one with its name alone."""
    import pandas as pd

    full = runs.filter(regex='^(train|test)_(?!loss|seconds)').notna().all(axis=1)  # the task's scores
    table = runs.copy()
    at_the_end = [*runs.columns[runs.columns.get_loc('eval_seconds') + 1 :]]
    table[at_the_end] = runs.groupby('run')[at_the_end].bfill()  # the last row may not be full
    table = table[full | ~(runs['run'].isin(runs.loc[full, 'run']) | runs.duplicated('run'))]
    known = set(runs['run'])
    missing = [(run, *about) for about in planned if (run := f'{about[0]}-seed{about[1]}') not in known]
    if missing:
        named = pd.DataFrame(missing, columns=['run', 'recipe', 'seed', 'status'])
        table = pd.concat([table, named], ignore_index=True)
        table.attrs = runs.attrs
    return table


def _evaluate(claim: Claim, runs: 'pd.DataFrame') -> Verdict | None:
    import pandas as pd

    measured = tested = interval([])
    n, notes, needed = 0, list[str](), ''
    with reading() as known:
        try:
            found = claim.measure(runs)
            if isinstance(found, Estimate):
                measured, tested, n = found, found, 1
            else:
                is_ratio = claim.unit == 'ratio'
                scale, back, least = (np.log, np.exp, 0) if is_ratio else (np.positive, np.positive, -math.inf)
                with np.errstate(divide='ignore', invalid='ignore'):  # there is no logarithm of 0
                    values, bounds = scale(pd.Series(found, dtype=float)), scale(np.maximum(claim.bound[1:], least))
                values, notes = _of_seeds(values, runs, known)
                measured, tested = (Estimate(*map(float, back(interval(values, tail)))) for tail in (TAIL, LEVEL))
                n, needed = len(values), _seeds_needed(values.mean(), values.std(), bounds)
        except AbsentError:
            return None
        except UnreadableError as error:
            notes = [str(error)]
        except Exception as error:
            notes = [f'cannot be computed: {f"{Path(place_of(error)).name}: {said(error)}".removeprefix(": ")}']
    notes += dict.fromkeys(known.notes)
    of = runs[runs['recipe'].isin(known.recipes)].drop_duplicates('run')['status']
    for status, word in (('diverged', 'diverged'), ('running', 'unfinished')):
        if number := int((of == status).sum()):
            notes.append(f'{plural(number, "run")} {word}')
    if number := len({*runs.attrs.get('near_chance', ())} & {*runs.loc[runs['recipe'].isin(known.recipes), 'run']}):
        notes.append(f'{plural(number, "run")} near chance')
    if claim.status == 'U':
        notes.append("the source's figure is unverified")
    if not known.has_interval:
        measured = tested = Estimate(measured.value, math.nan, math.nan)
    measured = Estimate(*(float(f'{end:.9g}') for end in measured))  # as claims.csv has it, which is told elsewhere
    verdict = _judge(tested, *claim.bound[1:]) if known.conclusive else 'inconclusive'
    if verdict == 'inconclusive' and known.conclusive and known.has_interval and needed:
        notes.append(needed)
    return Verdict(
        *(claim.name, claim.text, claim.unit, *measured, n, *claim.bound, verdict),
        *(claim.published, claim.source, claim.status, claim.bound_first, '; '.join(notes)),
    )


def _of_seeds(values: 'pd.Series', runs: 'pd.DataFrame', known: Reading) -> tuple['pd.Series', list[str]]:
    """The values that count, and a note of how many were left out; a seed whose runs are all done is not left out."""
    done = runs[runs['recipe'].isin(known.recipes) & (runs['status'] == 'done')]
    recipes = done.groupby('seed')['recipe'].nunique().reindex(values.index, fill_value=0)
    counted, finite = values[values.notna() | (recipes == len(known.recipes))], values[np.isfinite(values)]
    left_out = f'{len(counted)} of ' * (len(counted) < len(values))
    notes = [left_out + plural(len(values), 'seed')]
    if len(finite) < len(counted):  # what is left is not the whole
        notes.append(f'no finite value for {len(counted) - len(finite)} of them, which no mean includes')
        known.has_interval = False
    return finite, notes


def _seeds_needed(mean: float, deviation: float, bounds: Iterable[float]) -> str:
    """How many seeds would decide in four of five repetitions, if these were the true mean and standard deviation."""
    n_P = np.arange(2, MOST_SEEDS + 1)
    errors_P = (standard_errors(n_P, LEVEL) + standard_errors(n_P, 1 - POWER)) * deviation / np.sqrt(n_P)
    decides_P = errors_P <= min(abs(mean - bound) for bound in bounds)
    if math.isnan(deviation):
        return ''
    number = f'about {n_P[decides_P.argmax()]}' if decides_P.any() else f'more than {MOST_SEEDS}'
    return f'{number} seeds would decide'


def _judge(measured: Estimate, low: float, high: float) -> str:
    def reaches(number: float, bound: float) -> bool:
        # The mean of n equal numbers can be off in the last place, which must not decide over an exact quantity.
        return number >= bound or math.isclose(number, bound, rel_tol=1e-12)

    if math.isnan(measured.low):
        return 'inconclusive'
    if reaches(measured.low, low) and reaches(high, measured.high):
        return 'reproduced'
    return 'inconclusive' if reaches(measured.high, low) and reaches(high, measured.low) else 'not reproduced'


def finding(template: str, verdicts: Iterable[Verdict]) -> str:
    """Fills a text: {ID} becomes 'value ± half width (verdict)', {ID.value} and {ID.verdict} one of the two. A sentence
    that names something that has no verdict, or that could not be measured, is left out."""
    words: dict[str, str] = {}
    for v in verdicts:
        if v.n:
            words |= {v.id: f'{v.measured} ({v.verdict})', f'{v.id}.value': v.measured, f'{v.id}.verdict': v.verdict}
    named = re.compile(r'\{([^{}]*)\}')
    sentences = re.split(r'(?<=[.?!]) ', template)
    known = [sentence for sentence in sentences if {*named.findall(sentence)} <= words.keys()]
    return named.sub(lambda match: words[match[1]], ' '.join(known))


def write(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Writes claims.csv; a number that there is not, or that is infinite, is a blank."""
    import pandas as pd

    table = pd.DataFrame(list(verdicts), columns=Verdict._fields).replace([math.inf, -math.inf], math.nan)
    replace(path, table.to_csv(index=False, float_format='%.9g', lineterminator='\n'))


def read(path: Path) -> list[Verdict]:
    """Reads a claims.csv to nine digits, blanks as NaN; no verdicts where there is none.

    One of an earlier version has no units, and does not say which bounds were first.

    Raises:
      UserError: it is damaged.
    """
    made = []
    try:
        for row in csv.DictReader(io.StringIO(path.read_text(encoding='utf-8') if path.exists() else '')):
            cells: dict[str, Any] = {'unit': '', **row, 'n': int(row['n'])}
            cells['bound_first'] = row.get('bound_first') != 'False'
            cells |= {name: float(cells[name] or 'nan') for name in ('value', 'low', 'high', 'bound_low', 'bound_high')}
            made.append(Verdict(*(cells[name] for name in Verdict._fields)))
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(f'workdir: {path} is damaged: {error!r}; remove it') from error
    return made


def _number(value: float, unit: str, width: float = 0.0) -> str:
    """With two digits of the `width` of its interval, if it has one; '?' where there is no number."""
    if not math.isfinite(value):
        return '?'
    value = value if abs(value) > 1e-12 else 0.0  # such is the exponent of equal numbers
    if unit in PERCENT:
        text = f'{100 * value:z.2f}'
    elif width:
        text = f'{value:z,.{max(0, 1 - math.floor(math.log10(width)))}f}'
    else:
        text = f'{value:,.0f}' if 1e3 <= abs(value) < 1e9 else f'{value:.4g}'
    return re.sub('^-', '−', text)
