"""What is asked: every field with its check, recipes and schedules; `resolve` makes a frozen `Study` of them."""

from bsgap.config.fields import default, searching, with_variant
from bsgap.config.recipe import Architecture, Kind, Recipe, TrainingSet
from bsgap.config.study import Data, Search, Study, resolve, settings
from bsgap.config.task import Task, task
