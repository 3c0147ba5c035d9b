"""An exported model gives what the API gives, and its card says what is true of this checkpoint and of no other."""

import importlib.util
import json
import re
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from extras import needs
from tiny_run import HARM, ROOT, harmful, person, write_folder, write_run

from facedisent_jax import models
from facedisent_jax.commands import evaluate
from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.errors import UserError
from facedisent_jax.presets import PRESETS
from facedisent_jax.reporting import export_folder, model_card
from facedisent_jax.trained_model import TrainedModel, load

HYBRID = ModelConfig(width=128, blocks=1)
POSTER = PRESETS["poster"].config.model
WARP = ModelConfig(kind="warp", width=128, blocks=1)
CROP = {"detector": "haar", "margin": 0.0}
INFO = {"expressions": ["smile"], "train_subjects": ["Ann", "Ben"], "data": [], "crop": CROP}

exports = needs("export", "safetensors", "onnx", "onnxruntime")


def model_of(config: ModelConfig) -> TrainedModel:
    """An untrained model in which every weight counts, also those that training starts at zero."""
    params = jax.jit(partial(models.init, config))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.02 * rng.standard_normal(p.shape).astype(np.float32), params)
    return TrainedModel(params, Config(model=config), INFO, 7)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(2).random((count, 64, 64, 3), np.float32)


@exports
@pytest.mark.parametrize(
    "config",
    [HYBRID, POSTER, pytest.param(WARP, marks=pytest.mark.slow)],
    ids=["hybrid", "poster", "warp"],
)
def test_onnx_runtime_gives_what_the_model_gives_for_batches_of_any_size(tmp_path, config):
    import onnxruntime

    from facedisent_jax.reporting.onnx_graph import to_onnx

    model = model_of(config)
    sessions = {}
    for part in export_folder.onnx_parts(config, model.params):
        file = tmp_path / part.file
        file.write_bytes(to_onnx(part.function, part.inputs, part.outputs, part.about).SerializeToString())
        sessions[part.file] = onnxruntime.InferenceSession(file)
    for count in (1, 5):
        codes = model.encode(images(count))
        identity, expression = sessions["encoder.onnx"].run(["identity", "expression"], {"images": images(count)})
        assert identity == pytest.approx(np.asarray(codes.identity), abs=1e-4)
        assert expression == pytest.approx(np.asarray(codes.expression), abs=1e-4)
        feed = {"identity": identity, "expression": 1 - expression}
        (decoded,) = sessions["decoder.onnx"].run(["images"], feed)
        assert decoded == pytest.approx(model.decode((identity, 1 - expression)), abs=1e-4)
        assert np.mean((decoded > 0) & (decoded < 1)) > 0.2  # not all is clipped
        if model.uses_source:
            (decoded,) = sessions["source_decoder.onnx"].run(["images"], feed | {"source": images(count)})
            assert decoded == pytest.approx(model.decode((identity, 1 - expression), images(count)), abs=2e-3)


@needs("export", "safetensors")
def test_the_numpy_code_of_the_docs_decodes_the_safetensors(tmp_path):
    from safetensors.numpy import save_file

    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[-1]
    assert len(code.splitlines()) <= 60 and "jax" not in code
    model = model_of(replace(HYBRID, blocks=2))
    save_file(export_folder.flatten(model.params), tmp_path / export_folder.PARAMETERS)
    functions: dict = {}
    exec(code, functions)
    rng = np.random.default_rng(3)
    identity, expression = rng.standard_normal((3, 64)).astype(np.float32), rng.random((3, 64), np.float32)
    decoded = functions["decode"](tmp_path, identity, expression)
    assert decoded == pytest.approx(model.decode((identity, expression)), abs=1e-4)
    assert np.mean((decoded > 0) & (decoded < 1)) > 0.2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    data = write_folder(folder / "secret_place", {"train": [r for k in range(3) for r in person(k)]})
    return write_run(folder / "study", data)


@exports
def test_the_command_writes_all_files_and_no_name_of_anybody(run, tmp_path, capsys):
    out = tmp_path / "out"
    evaluate.run(["export", str(run), "--out", str(out), "--data-licence", "CC BY 4.0"])
    printed = capsys.readouterr().out
    assert "encoder.onnx" in printed and "no metrics" in printed and printed.endswith(f"{out}\n")
    names = {"README.md", "config.json", "model.safetensors", "encoder.onnx", "decoder.onnx"}
    assert {path.name for path in out.iterdir()} == names
    card, config = (out / "README.md").read_text(), json.loads((out / "config.json").read_text())
    assert "| people | 3 |" in card and "| images | 6 |" in card and "| licence of the data | CC BY 4.0 |" in card
    assert "was not evaluated" in card
    assert config["step"] == 0 and config["info"]["train_people"] == 3 and config["info"]["expressions"] == ["smile"]
    for name in names:
        content = (out / name).read_bytes()
        assert b"p000" not in content and b"secret_place" not in content and str(tmp_path).encode() not in content


@exports
def test_the_card_has_the_metrics_of_this_checkpoint_only(run):
    model = load(run)
    (run / "report").mkdir()
    for step, is_there in ((0, True), (5, False)):
        (run / "report" / "metrics.json").write_text(json.dumps({"data": {"step": step}}))
        assert (export_folder.report_metrics(model, run) is not None) == is_there
    (run / "report" / "metrics.json").write_text("[")
    assert export_folder.report_metrics(model, run) is None
    (run / "report" / "metrics.json").unlink()
    (run / "report").rmdir()


METRICS = {
    "reconstruction": {"psnr": 26.6, "psnr_ci95": [25.7, 27.3]},
    "swap": {"psnr": 22.6, "psnr_ci95": [21.5, 23.6], "unswapped_psnr": 23.1, "targets": 16},
    "intensity": {"spearman": 0.54},
    "one_picture": {"people": 8, "rise": 0.9, "gain": -0.5, "gain_ci95": [-1.0, None], "sharpness": 0.5},
    "judged_swaps": {"swaps": 80, "identity": {"distance": 0.61, "real_distance": 0.21, "same_person": 0.4625}},
    "probes": {"subject_from_expression": {"accuracy": 0.5, "chance": 0.125}},
    "data": {"pictures": 16, "subjects": 8, "split": "test", "sources": ["folder"], "written": "2026-11-28 12:51"},
}


def card(metrics: dict | None, licence: str | None = None, name: str = "run") -> str:
    folder = {"source": "folder", "splits": {"train": 132}}
    return model_card.render(TrainedModel({}, Config(), INFO, 7), name, [folder], metrics, licence, [], [])


def test_the_card_has_metrics_with_interval_and_n_and_the_failures_that_they_show():
    text = card(METRICS)
    assert "| reconstruction, PSNR in dB | 26.60 | 25.70 to 27.30 | 16 images |" in text
    assert "dB | -0.50 |  | 8 people |" in text  # an interval without a bound is none
    assert "On 16 images of 8 people never seen in training (split test of a folder of images)" in text
    for failure in ("22.6 dB) than the image with the expression left as it was (23.1 dB)", "53.8 % of the swaps"):
        assert failure in text
    assert "50.0 % of the images (chance 12.5 %)" in text and "not stated" in text
    better = METRICS | {"swap": METRICS["swap"] | {"psnr": 24.0}, "judged_swaps": {"swaps": 80, "identity": None}}
    assert "A swap is further" not in card(better) and "of the swaps" not in card(better)


def test_no_text_becomes_a_tag_or_a_cell():
    text = card(harmful(METRICS), HARM + "| x", HARM)
    assert "<script" not in text and "<img" not in text and text.count("&lt;script&gt;") > 3
    assert all(line.count(" | ") - line.count("\\| ") <= 3 for line in text.splitlines() if line.startswith("|"))


def test_mistakes_are_sentences_and_nothing_is_lost(run, tmp_path, monkeypatch):
    def mistake(*arguments: object) -> str:
        with pytest.raises(SystemExit) as system_exit:
            evaluate.run(["export", *map(str, arguments)])
        return str(system_exit.value.code)

    (tmp_path / "mine.txt").write_text("mine")
    assert "--out must be a new folder" in mistake(run, "--out", tmp_path)
    assert "--out must be in an existing folder" in mistake(run, "--out", tmp_path / "no" / "out")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert mistake(run, "--out", tmp_path / "out").endswith(
        "export needs safetensors, onnx, onnxruntime: pip install 'facedisent-jax[export]'."
    )


@exports
def test_without_a_run_or_with_another_result_than_jax_nothing_is_written(run, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no run folder"):
        evaluate.run(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    monkeypatch.setattr(export_folder, "difference_to_jax", lambda *_: float("nan"))
    with pytest.raises(UserError, match="must give what JAX gives to 0.0001, got a difference of nan"):
        export_folder.write(tmp_path / "out", load(run), run, None)
    assert not list(tmp_path.iterdir())


@exports
def test_an_onnx_file_whose_operations_are_not_translated_is_left_out_and_that_is_said(run, tmp_path, monkeypatch):
    from facedisent_jax.reporting import onnx_graph

    def refuse(*_):
        raise NotImplementedError("ONNX export knows no operation sort.")

    monkeypatch.setattr(onnx_graph, "to_onnx", refuse)
    sentences = export_folder.write(tmp_path / "out", load(run), run, None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert sentences[1].startswith("decoder.onnx was left out") and sentences[1].endswith("no operation sort.")
    card = (tmp_path / "out" / "README.md").read_text()
    assert sentences[1] in card and "| `decoder.onnx`" not in card
