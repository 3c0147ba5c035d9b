"""metrics.jsonl: what a crash or a full disk leaves of it is mended."""

from dataclasses import replace

import pytest
from killed import TINY

from facedisent_jax.errors import UserError
from facedisent_jax.training.log import MetricsLog


def test_a_continued_log_drops_later_lines_and_half_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 3}\n{"st')
    log = MetricsLog(replace(TINY, run=str(tmp_path)))
    log.rewind(2)
    assert path.read_text() == '{"step": 2}\n'
    log.validation(3, {"validation/swap_psnr": 20.0})
    assert path.read_text() == '{"step": 2}\n{"step": 3, "validation/swap_psnr": 20.0}\n'
    log.close()


def test_a_log_that_cannot_be_written_is_a_sentence(tmp_path):
    log = MetricsLog(replace(TINY, run=str(tmp_path)))
    log.rewind(0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics.jsonl cannot be written"):
        log.validation(1, {"validation/swap_psnr": 20.0})
    log.close()
