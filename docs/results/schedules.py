"""How much less noise a falling learning rate leaves: python docs/results/schedules.py LINEAR CONSTANT

Of two searches that differ in their schedule alone: the settings that both trained to the same length with all seeds,
and on the test split. A table in Markdown: mean test accuracy, its standard deviation over seeds, their ratio.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bsgap.analysis import table

SETTING = ['recipe.batch_size', 'update', 'recipe.learning_rate']


def ends(workdir: Path) -> pd.DataFrame:
    """Mean and standard deviation of the test accuracy of each setting of the search itself, without fresh seeds."""
    runs = table.runs(workdir)
    last = runs.groupby('run').tail(1)
    last = last[(last['recipe.data_seed'] == 0) & (last['status'] == 'done')].dropna(subset=['test_accuracy'])
    found = 100 * last.groupby(SETTING)['test_accuracy'].agg(['mean', 'std'])
    return found[last.groupby(SETTING).size() >= last['seed'].nunique()]


def main() -> None:
    linear, constant = map(ends, map(Path, sys.argv[1:]))
    both = linear.add_suffix('_linear').join(constant.add_suffix('_constant'), how='inner').reset_index()
    print('| batch size | updates | ε | linear to zero: test accuracy | constant | ratio of the standard deviations |')
    print('|--:|--:|--:|--:|--:|--:|')
    for _, row in both.iterrows():
        each = (f'{row[f"mean_{name}"]:.2f} ± {row[f"std_{name}"]:.2f} %' for name in ('linear', 'constant'))
        size, updates, rate = (row[name] for name in SETTING)
        ratio = row['std_constant'] / row['std_linear']
        print(f'| {size:.0f} | {updates:,.0f} | {rate:g} | {" | ".join(each)} | {ratio:.1f} |')
    ratios = both['std_constant'] / both['std_linear']
    print(f'\nGeometric mean of the ratios: {np.exp(np.log(ratios).mean()):.2f} (n = {len(ratios)} settings).')


if __name__ == '__main__':
    main()
