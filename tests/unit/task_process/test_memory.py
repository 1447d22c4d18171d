"""A text is overwritten wherever a process has it."""

from __future__ import annotations

import subprocess
import sys

OVERWRITE = """
import re, sys
from airflow_ha.task_process import memory

text = sys.stdin.read()
held = {"string": text, "in a url": f"redis://u:{text}@h", "bytes": bytearray(text.encode()), "other": text[::-1]}
pattern = re.compile(f"before|{re.escape(text)}|after")
wide = text.encode("utf-32-le") + b"!"
assert pattern.search(text)
number = memory.overwrite([text])
copy = sys.argv[1][::-1]
print(number >= 4, held, pattern.search(copy), pattern.search("after") is not None, copy.encode("utf-32-le") in wide)
"""
SEARCH = """
import re, sys
from airflow_ha.task_process import memory

pattern = re.compile(f"before|{sys.argv[1][::-1]}|{sys.argv[1][::-1]}tail|after")
memory.overwrite([sys.argv[1][::-1]])
again = sys.argv[1][::-1]
for line in ("x before", again + "tail " + again, again[0] + "after"):
    match = pattern.search(line)
    print(match and match[0])
"""
TEXT = "Xk29fMq7Tz81LbVw"


def test_each_form_of_a_text_is_overwritten():
    program = [sys.executable, "-c", OVERWRITE, TEXT[::-1]]
    output = subprocess.run(program, input=TEXT, check=True, capture_output=True, text=True, timeout=60).stdout
    gone = "x" * len(TEXT)
    held = {"string": gone, "in a url": f"redis://u:{gone}@h", "bytes": bytearray(gone.encode()), "other": TEXT[::-1]}
    assert output.strip() == f"True {held} None True False"


def test_a_pattern_with_the_text_works_on():
    """The secrets masker searches each log line with it."""
    program = [sys.executable, "-c", SEARCH, TEXT[::-1]]
    output = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout
    assert output.split() == ["before", "None", "after"]
