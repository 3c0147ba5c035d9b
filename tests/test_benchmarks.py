"""The benchmarks run and report what they measure. The comparison with PyTorch is in torch_checks.py."""

import importlib.util
import json
import subprocess
import sys

import pytest
from tiny_run import ROOT


def run(*arguments: str) -> str:
    result = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.long
def test_the_pytorch_twins_are_the_same_functions():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch: pip install 'facedisent-jax[bench]'")
    assert " passed" in run("-m", "pytest", "-q", "-n", "0", "tests/torch_checks.py")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "options", "names"),
    [
        ("prep", ["--pictures", "40"], ["decoding", "cropping", "command"]),
        ("input_pipeline", ["--records", "440"], ["load_average", "rates"]),
    ],
)
def test_a_benchmark_prints_its_rates_and_writes_them_as_json(tmp_path, script, options, names):
    out = tmp_path / "result.json"
    output = run(f"benchmarks/{script}.py", *options, "--json", str(out))
    result = json.loads(out.read_text())
    assert set(names) <= set(result)
    assert "a second" in output or "pictures/s" in output
    rates = result.get("rates") or {name: result[name] for name in names}
    assert all(rate > 0 for rate in rates.values())
