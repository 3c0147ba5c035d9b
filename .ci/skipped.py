"""Prints the tests that a run skipped for a missing extra, one a line: `python .ci/skipped.py JUNIT.xml EXTRA ...`."""

import sys
import xml.etree.ElementTree as ET

_, file, *extras = sys.argv
for case in ET.parse(file).iter("testcase"):
    skipped = case.find("skipped")
    reason = "" if skipped is None else skipped.get("message", "")
    if any(f"facedisent-jax[{extra}]" in reason for extra in extras):
        print(f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}")
