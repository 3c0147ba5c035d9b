"""Train a network: `python train.py [PRESET] [--data OUT ...] [--run RUN] [options]`. See `python train.py --help`."""

import sys

from facedisent_jax.commands import train
from facedisent_jax.environment import settle_environment

if __name__ == "__main__":
    settle_environment()
    train.run(sys.argv[1:])
