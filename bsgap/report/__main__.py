"""The figures and the report of a workdir, from its files alone: python -m bsgap.report WORKDIR [--config=FILE]"""

import argparse
from pathlib import Path

from bsgap import output
from bsgap.errors import UserError
from bsgap.report import page

if __name__ == '__main__':
    parser = argparse.ArgumentParser('python -m bsgap.report', description=__doc__)
    parser.add_argument('workdir', help='a folder that launch.py has trained in')
    parser.add_argument('--config', help='the experiment file, for its claims, if it is not below experiments/')
    given = parser.parse_args()
    with output.command():
        if given.config and not Path(given.config.partition(':')[0]).is_file():
            raise UserError(f'--config: {given.config} is not a file')
        page.report(given.workdir, given.config and given.config.partition(':')[0])
