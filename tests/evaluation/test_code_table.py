"""Tables of codes are read as they were written, and what is no table of codes is refused in a sentence."""

import numpy as np
import pytest

from facedisent_jax.config import Config, ModelConfig
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import code_table
from facedisent_jax.evaluation.code_table import CodeTable
from facedisent_jax.models import Codes
from facedisent_jax.trained_model import TrainedModel

CODES = Codes(*np.random.default_rng(0).normal(size=(2, 3, 64)).astype(np.float32))
MODEL = TrainedModel({"w": np.ones(3)}, Config(), {}, 7)
TABLE = CodeTable(
    ["a, b.jpg", "José.png", '"c".png'],
    ["p1", "", "p2"],
    ["smile", "", "neutral"],
    np.float32([1, np.nan, 0]),
    CODES,
    {"smile": CODES[0][:, 0]},
    MODEL.checksum,
)


@pytest.mark.parametrize("name", ["codes.csv", "codes.npz"])
def test_codes_are_read_exactly_as_they_were_written(tmp_path, name):
    code_table.write(TABLE, tmp_path / name)
    codes = code_table.read(tmp_path / name, MODEL)
    assert np.array_equal(codes.identity, CODES.identity) and np.array_equal(codes.expression, CODES.expression)


@pytest.mark.parametrize("name", ["codes.csv", "codes.npz"])
def test_codes_of_other_weights_are_refused(tmp_path, name):
    code_table.write(TABLE, tmp_path / name)
    trained_anew = TrainedModel({"w": np.zeros(3)}, Config(), {}, 7)
    with pytest.raises(UserError, match=f"must hold codes of these weights .*got codes of others .{MODEL.checksum}"):
        code_table.read(tmp_path / name, trained_anew)


def test_the_columns_are_labels_readings_and_codes(tmp_path):
    code_table.write(TABLE, tmp_path / "codes.csv")
    header, _, second, _ = (tmp_path / "codes.csv").read_text(encoding="utf-8").splitlines()
    columns = header.split(",")
    assert columns[:6] == ["path", "subject", "expression", "intensity", "reading_smile", "id_00"]
    assert columns[-2:] == ["ex_63", "checksum"] and len(columns) == 5 + 2 * 64 + 1
    assert second.startswith("José.png,,,,")  # what is unknown is empty


class MeanModel(TrainedModel):
    """Every number of a code is the mean of the image."""

    def __init__(self):
        super().__init__({}, Config(), {"expressions": []}, 7)

    def encode(self, images):
        assert len(images) <= code_table.CHUNK
        return Codes._make(2 * [np.repeat(images.reshape(len(images), 64 * 64 * 3).mean(1, keepdims=True), 64, 1)])


def test_rows_are_in_the_order_of_the_names_in_whatever_order_the_crops_come(monkeypatch):
    monkeypatch.setattr(code_table, "CHUNK", 2)
    crops = [(k, np.full((64, 64, 3), 10 * k, np.uint8)) for k in (3, 0, 4, 1)]  # 2 could not be read
    table = code_table.encode(MeanModel(), list("abcde"), crops)
    assert table.path == list("abde")
    assert np.asarray(table.codes.identity)[:, 0].tolist() == [0, 10, 30, 40]


def test_no_image_at_all_is_refused():
    with pytest.raises(UserError, match="must be an image to encode, got none"):
        code_table.encode(MeanModel(), ["a"], [])


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "cannot be read as a table of codes"),
        ("path,id_00,ex_00\na.png,1\n", "a row has 2 cells and the first line 3"),
        ("path,id_00,ex_00\na.png,1,x\n", "could not convert string to float"),
        ("path,id_00,ex_00\na.png,1,2\n", "must be rows of 2 numbers, got [1, 1]"),
        ("id_00,id_01,ex_00,ex_01\n1,2,3,nan\n", "expression codes .* must be numbers, got nan"),
        ("id_00,id_01,ex_00,ex_01\n", "it has no rows"),
    ],
)
def test_what_is_no_table_of_codes_is_refused(tmp_path, text, reason):
    (tmp_path / "codes.csv").write_text(text)
    with pytest.raises(UserError, match=reason.replace("[", r"\[")):
        code_table.read(tmp_path / "codes.csv", TrainedModel({}, Config(model=ModelConfig(code_dims=2)), {}, 7))


def test_another_file_in_the_place_of_a_table_is_refused(tmp_path):
    (tmp_path / "codes.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read as a table of codes"):
        code_table.read(tmp_path / "codes.npz", MODEL)
    with pytest.raises(UserError, match="must be one of .csv, .npz"):
        code_table.read(tmp_path / "codes.txt", MODEL)
