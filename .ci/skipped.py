"""Prints the tests that a run skipped for a missing extra, one a line: `python .ci/skipped.py JUNIT.xml`."""

import sys
import xml.etree.ElementTree as ET

for case in ET.parse(sys.argv[1]).iter("testcase"):
    skipped = case.find("skipped")
    if skipped is not None and "facedisent-jax[" in skipped.get("message", ""):
        print(f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}")
