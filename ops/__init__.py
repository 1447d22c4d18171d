"""The code behind `./ops/stack`, which operates the stack."""

from __future__ import annotations

import sys
from pathlib import Path

# The host reads airflow_ha.patches.registry and airflow_ha.sizes, which do not import Airflow.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
