"""facedisent-jax: the identity and the expression of a face in two separate codes. Start with `load`.

Names are imported on first use, so that `import facedisent_jax` alone loads neither JAX nor TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facedisent_jax.models.codes import Codes
    from facedisent_jax.trained_model import TrainedModel, load

__all__ = ["Codes", "TrainedModel", "load"]

_MODULES = {"Codes": "models.codes", "TrainedModel": "trained_model", "load": "trained_model"}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
