"""How the stack is operated: the code behind `./ops/stack`."""

from __future__ import annotations

import sys
from pathlib import Path

# airflow_ha.patches.registry needs nothing of Airflow, and is read by the host too.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
