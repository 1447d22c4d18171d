"""A DAG processor without a database that parses each file of a folder once, for test_report_parser_exit.py.

Run it as a program: the arguments are the folder, and `upstream` to leave the patch out. It prints a line of JSON: the
stored result by file.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.dag_processing import manager as upstream
from airflow.dag_processing.manager import DagFileInfo, DagFileProcessorManager

SECONDS = 60.0
TIMEOUT = 6.0


def main() -> None:
    folder = Path(sys.argv[1])
    results: dict[str, Any] = {}

    def persist(_: Any, *, parsing_result: Any, relative_fileloc: str, **__: Any) -> None:
        dags = [dag.dag_id for dag in parsing_result.serialized_dags]
        if "refused" in dags:
            raise ValueError("A string literal cannot contain NUL (0x00) characters.\0")
        results[relative_fileloc] = {"dags": dags, "errors": parsing_result.import_errors}

    upstream._make_execution_api = lambda: None
    DagFileProcessorManager.persist_parsing_result = persist
    DagFileProcessorManager.client = None
    if "upstream" not in sys.argv:
        from airflow_ha.patches import dag_import_signals
        from airflow_ha.patches import report_parser_exit as patch

        dag_import_signals.apply()
        patch.apply()
        patch.STARVED_SECONDS = 0.0  # the test machine may be starved itself
    manager = DagFileProcessorManager(max_runs=-1, processor_timeout=TIMEOUT)
    manager._api_server = None
    manager.selector = selectors.DefaultSelector()
    manager._dag_bundles = [SimpleNamespace(name="b", path=folder)]
    manager._bundle_versions = {"b": None}
    files = [DagFileInfo(Path(file.name), "b", folder) for file in sorted(folder.glob("*.py"))]
    manager._add_files_to_queue(files, mode="back")
    deadline = time.monotonic() + SECONDS
    while (manager._file_queue or manager._processors) and time.monotonic() < deadline:
        manager._kill_timed_out_processors()
        manager._start_new_processes()
        manager._service_processor_sockets(timeout=0.2)
        manager._collect_results()
    print("RESULT", json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
