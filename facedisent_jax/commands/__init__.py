"""The command lines of train.py and eval.py. They read options and print; the work is done by the other folders."""
