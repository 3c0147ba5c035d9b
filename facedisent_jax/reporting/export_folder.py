"""The folder of `eval.py export`: parameters, config, ONNX models and a model card, for use without this project."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from facedisent_jax import config as configs
from facedisent_jax import models
from facedisent_jax.config import IMAGE_SIZE, ModelConfig
from facedisent_jax.data import reading
from facedisent_jax.errors import UserError
from facedisent_jax.files import PARTIAL
from facedisent_jax.models import Codes, Params
from facedisent_jax.reporting import html, model_card
from facedisent_jax.trained_model import TrainedModel

PARAMETERS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
IMAGE = (IMAGE_SIZE, IMAGE_SIZE, 3)


class OnnxPart(NamedTuple):
    """A function of the model that becomes an ONNX file.

    function:        of the inputs, float32; returns the outputs.
    inputs, outputs: names, and shapes without the batch axis.
    tolerance:       largest difference between ONNX Runtime and JAX.
    """

    file: str
    about: str
    function: Callable[..., Sequence[Any]]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    tolerance: float = 1e-4


def check_installed() -> None:
    """Raises UserError unless the libraries of the extra are there."""
    missing = [name for name in ("safetensors", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}: pip install 'facedisent-jax[export]'.")


def onnx_parts(config: ModelConfig, params: Params) -> list[OnnxPart]:
    """The functions that are exported. Products are in float32, whatever they were in training."""
    config, params = replace(config, dtype="float32"), jax.tree.map(jnp.asarray, params)
    codes: dict[str, tuple[int, ...]] = {"identity": (config.code_dims,), "expression": (config.code_dims,)}

    def encode(images):
        return tuple(models.encode(config, params, images))

    def decode(identity, expression):
        return (jnp.clip(models.decode(config, params, Codes(identity, expression)), 0, 1),)

    def decode_with_source(identity, expression, source):
        encoded = models.encode_source(config, params, source)
        decoded = models.decode_from_sources(config, params, Codes(identity, expression), encoded, refined=True)
        return (jnp.clip(decoded.images, 0, 1),)

    parts = [
        OnnxPart("encoder.onnx", "images -> identity, expression", encode, {"images": IMAGE}, tuple(codes)),
        OnnxPart("decoder.onnx", "identity, expression -> images, from the codes alone", decode, codes, ("images",)),
    ]
    if models.KINDS[config.kind].uses_source:
        about = "identity, expression, source -> images, from an image of each person"
        inputs = codes | {"source": IMAGE}
        # The head motion is estimated in rounds, which make more of a rounding error.
        parts.append(OnnxPart("source_decoder.onnx", about, decode_with_source, inputs, ("images",), tolerance=2e-3))
    return parts


def write(folder: Path, model: TrainedModel, run: Path, licence: str | None, progress: Callable = iter) -> list[str]:
    """Write a new folder with all files, or none. Returns a sentence on each ONNX file.

    licence: of the training data, for the card.

    An ONNX file whose operations are not translated is left out. Raises UserError.
    """
    from safetensors.numpy import save

    from facedisent_jax.reporting import onnx_graph

    params, name = model.params, run.resolve().name
    written: list[OnnxPart] = []
    sentences: list[str] = []
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as temporary:
            partial_folder = Path(temporary) / folder.name
            partial_folder.mkdir()
            (partial_folder / PARAMETERS).write_bytes(save(flatten(params), {"format": "facedisent-jax"}))
            config = json.dumps(describe(model, run), indent=1, allow_nan=False)
            (partial_folder / CONFIG).write_text(config + "\n", encoding="utf-8")
            for part in progress(onnx_parts(model.config.model, params)):
                try:
                    proto = onnx_graph.to_onnx(part.function, part.inputs, part.outputs, f"{name}: {part.about}")
                except NotImplementedError as error:  # another JAX may trace a network as other operations
                    sentences.append(f"{part.file} was left out, with JAX {jax.__version__}: {error}")
                    continue
                (partial_folder / part.file).write_bytes(proto.SerializeToString())
                difference = difference_to_jax(partial_folder / part.file, part)
                if not difference <= part.tolerance:
                    raise UserError(
                        f"{part.file} must give what JAX gives to {part.tolerance:g}, got a difference of "
                        f"{difference:.1g}. Nothing was written; please report this."
                    )
                written.append(part)
                sentences.append(f"{part.file}: ONNX Runtime gives what JAX gives, to {difference:.0e}.")
            (partial_folder / CARD).write_text(card(model, run, licence, written, sentences), encoding="utf-8")
            partial_folder.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): give another --out.") from error
    return sentences


def flatten(params: Params) -> dict[str, Float[np.ndarray, "..."]]:
    """Arrays by their path in the tree, such as decoder.DenseBlock_0.Dense_1.kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(key.key) for key in path): np.ascontiguousarray(np.asarray(leaf)) for path, leaf in leaves}


def describe(model: TrainedModel, run: Path) -> dict:
    """Config, step and training data, without names of people and folders."""
    config = replace(model.config, run=run.resolve().name, data=(), init_from="")
    info = {name: value for name, value in model.info.items() if name not in ("data", "train_subjects")}
    info["train_people"] = len(model.info["train_subjects"])
    return configs.to_dict(config) | {"step": model.step, "info": info}


def difference_to_jax(file: Path, part: OnnxPart, batch: int = 3) -> float:
    """The largest difference between ONNX Runtime and JAX, on inputs in [0, 1] drawn by seed."""
    import onnxruntime

    rng = np.random.default_rng(0)
    inputs = {name: rng.random((batch, *shape), np.float32) for name, shape in part.inputs.items()}
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs = session.run(list(part.outputs), inputs)
    expected = jax.jit(part.function)(*inputs.values())
    return max(float(np.abs(a - np.asarray(b)).max()) for a, b in zip(outputs, expected, strict=True))


def card(
    model: TrainedModel, run: Path, licence: str | None, parts: Sequence[OnnxPart], sentences: Sequence[str]
) -> str:
    """The model card. parts: the ONNX files that are there. sentences: on all of them."""
    files = [
        (PARAMETERS, "the parameters, float32"),
        (CONFIG, "the settings, the expressions, the mean codes and the code intensity of each full expression"),
        *((part.file, f"ONNX, batches of any size: {part.about}") for part in parts),
    ]
    remarks = ["Images are RGB, [batch, 64, 64, 3], float32 in [0, 1].", *sentences]
    if model.config.model.dtype != "float32":
        remarks.append("The model was trained with bfloat16 products; the ONNX files compute in float32.")
    folders = [_read_info(Path(folder)) for folder in model.info["data"]]
    return model_card.render(model, run.resolve().name, folders, report_metrics(model, run), licence, files, remarks)


def report_metrics(model: TrainedModel, run: Path) -> dict | None:
    """metrics.json of the run's report, None unless it is of this checkpoint."""
    try:
        metrics = json.loads((run / "report" / html.METRICS).read_text(encoding="utf-8"))
        return metrics if metrics["data"]["step"] == model.step else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_info(folder: Path) -> dict | None:
    try:
        return reading.read_info(folder)
    except UserError:
        return None
