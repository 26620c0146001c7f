"""A launch from its beginning to its end."""

from pathlib import Path

from ml_collections import ConfigDict

from bsgap import cluster, measure, plan, train


def run(settings: ConfigDict, workdir: str | Path, dry_run: bool = False) -> None:
    """Trains a study, measures and reports, in as many processes as were started; or tells what that would be.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used.
      Interrupted: SIGINT or SIGTERM came; all runs are saved.
    """
    with cluster.together():
        if dry_run:
            plan.plan(settings, workdir)
            cluster.meet()
            return
        train.train(settings, workdir)
        measure.measure(settings, workdir)
        cluster.meet()
        if not cluster.index():
            from bsgap import report  # here, because Matplotlib takes half a second to load

            report.report(workdir)
        cluster.meet()
