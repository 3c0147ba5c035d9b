"""Evaluate trained runs, or use one on photographs: `python eval.py COMMAND`. See `python eval.py --help`."""

import sys

from facedisent_jax.commands import evaluate

if __name__ == "__main__":
    evaluate.run(sys.argv[1:])
