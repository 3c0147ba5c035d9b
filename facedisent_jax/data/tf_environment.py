"""TensorFlow only reads and writes files here. These settings keep its notices off the screen."""

import os

TF_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # oneDNN prints at every log level
    "TF_USE_LEGACY_KERAS": "1",  # otherwise TensorFlow imports Keras, which takes seconds and is not used
}


def quiet_tensorflow() -> None:
    """Call before TensorFlow is imported. Does not change what the user has set."""
    for name, value in TF_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
