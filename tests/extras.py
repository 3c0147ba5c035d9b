"""Skips tests that need more than `pip install '.[test]'` brings, with a reason that names the extra."""

import importlib.util

import pytest


def needs(extra: str, *modules: str) -> pytest.MarkDecorator:
    """Mark of a test that needs these modules of an extra."""
    missing_modules = [name for name in modules if importlib.util.find_spec(name) is None]
    reason = f"needs {', '.join(missing_modules)}: pip install 'facedisent-jax[{extra}]'"
    return pytest.mark.skipif(bool(missing_modules), reason=reason)
