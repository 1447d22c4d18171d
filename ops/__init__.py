"""How the stack is operated: the code behind `./ops/stack`."""

from __future__ import annotations

import sys
from pathlib import Path

# airflow_ha.patches.registry and airflow_ha.sizes need nothing of Airflow, and the host reads them too.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
