"""The Execution API runs the command of a setting once, not for each task.

The fault, in Airflow 3.3.2: a setting that comes from a command (`…_CMD`, here `cat` of a mounted secret) is asked of
that command each time it is read. The Execution API reads the key that signs tokens for each task that starts, since
what makes tokens is made anew for each; its event loop, with all other calls, waits until the command has ended.

The work-round: what a command has said is kept for as long as the process lives, as is all else that is made of it:
what checks the tokens is made once.
Measured on 2 cores: 2 ms of CPU a task, of which 1.6 are the command's; a call as in reuse_cadwyn_dependencies.

No upstream issue was found. It can go when the test in `test_cache_config_commands.py` that names upstream fails.
Loaded by the Execution API with the settings of its database (database_config.py).
"""

from __future__ import annotations

import functools

from airflow._shared.configuration import parser


def apply() -> None:
    """Keep what each setting's command has said."""
    parser.run_command = functools.cache(parser.run_command)
