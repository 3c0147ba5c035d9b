"""Evaluate trained runs, or use one on photographs: `python eval.py COMMAND`. See `python eval.py --help`."""

import sys

from facedisent_jax.commands import evaluate
from facedisent_jax.environment import settle_environment

if __name__ == "__main__":
    if "table1" in sys.argv[1:2]:  # the one command that trains
        settle_environment()
    evaluate.run(sys.argv[1:])
