"""From rows to findings: the table of runs, statistics, claims and verdicts, scaling fits, the answer."""
