"""The Execution API runs the command of a setting once, not for each task.

Problem: a setting that comes from a command (`…_CMD`, here `cat` of a mounted secret) runs that command each time it is
read. The Execution API reads the key that signs tokens for each task that starts; its event loop, with all other calls,
waits until the command has ended.
Patch: the output of a command is kept for as long as the process lives. Measured on 2 cores: 2 ms of CPU a task.
Applies to: Airflow 3.3.2, `airflow._shared.configuration.parser`.
Upstream issue: none found.
Remove when: the test in `test_cache_config_commands.py` that names upstream fails.
"""

from __future__ import annotations

import functools

from airflow._shared.configuration import parser


def apply() -> None:
    """Keep what each setting's command has said."""
    parser.run_command = functools.cache(parser.run_command)
