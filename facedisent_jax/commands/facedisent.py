"""The console script `facedisent`: data_prep, train.py and eval.py under one name, in any working directory."""

import os
import sys

from facedisent_jax.environment import settle_environment, start_command
from facedisent_jax.errors import did_you_mean

USAGE = """usage: facedisent COMMAND [OPTIONS]

  prep         photographs, video frames or drawn faces become a data folder (python -m data_prep)
  train        train a network and write its report (train.py)
  report       evaluate a run on people it never saw (eval.py)
  video        compare decoded paths with real clips
  disentangle  which code holds which factor
  compare      several runs in one table
  table1       the poster's Table 1
  interpolate  move from one face to another, or towards a smile
  swap         give every person the expression of every other
  encode       photographs become a table of latent codes
  decode       a table of latent codes becomes images
  stimuli      images at equal steps of the measured smile
  explore      a page with a slider from neutral to full expression
  export       a model for other programs: safetensors, ONNX and a model card

`facedisent COMMAND --help` lists the options of a command."""


def main() -> None:
    """Carry out the command line of this process."""
    start_command()
    name, *options = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        try:
            print(USAGE, flush=True)
        except BrokenPipeError:  # `facedisent | head -1`; Python would write the rest at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif name == "prep":
        from data_prep import __main__ as prep

        prep.stop_cleanly_on_sigterm()
        prep.main(options, "facedisent prep")
    elif name == "train":
        settle_environment()
        from facedisent_jax.commands import train

        train.run(options, "facedisent train")
    else:
        from facedisent_jax.commands import evaluate

        commands = ["prep", "train", *evaluate.COMMANDS]
        if name not in commands:
            sys.exit(
                f"facedisent: the command must be one of {', '.join(commands)}, got {name!r}."
                f"{did_you_mean(name, commands)}"
            )
        if name == "table1":  # it trains, too
            settle_environment()
        evaluate.run([name, *options], "facedisent")
