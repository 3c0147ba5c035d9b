"""Train a network: `python train.py [PRESET] [--data OUT ...] [--run RUN] [options]`. See `python train.py --help`."""

import sys

from facedisent_jax.commands import train

if __name__ == "__main__":
    train.run(sys.argv[1:])
