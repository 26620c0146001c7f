"""What is learned from: examples as arrays, one file a format."""

from bsgap.data.dataset import Dataset, load, title
from bsgap.data.examples import Split
