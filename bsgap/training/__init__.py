"""Training: one run's update, compiled programs, cohorts, the loop, and what it leaves in the workdir."""
