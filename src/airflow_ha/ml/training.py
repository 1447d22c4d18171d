"""Train one candidate model. Each candidate is a task, and the tasks run in parallel."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_ha.ml.artifacts import Document, once, read_arrays, write_model
from airflow_ha.ml.preprocessing import SEED

if TYPE_CHECKING:
    from airflow_ha.ml.artifacts import ArtifactPath

CANDIDATES = ("logistic_regression", "support_vector_machine", "random_forest", "nearest_neighbours")


def train(candidate: str, run_directory: ArtifactPath) -> Document:
    """Fit the candidate on the training part and score it on the validation part.

    Returns:
        `candidate`, `validation_accuracy` (0 to 1) and `fit_seconds`.

    Raises:
        ValueError: the candidate is unknown.
    """
    if candidate not in CANDIDATES:
        raise ValueError(f"cannot train {candidate!r}: the candidates are {', '.join(CANDIDATES)}")

    def work() -> Document:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        model = make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            StandardScaler(),
            _classifier(candidate),
        )
        split = read_arrays(run_directory / "split.npz")
        # The pool limits how many trainings run at the same time; BLAS threads on top would compete for cores.
        with threadpool_limits(limits=1):
            started = monotonic()
            model.fit(split["train"], split["train_labels"])
            fit_seconds = monotonic() - started
            accuracy = float(model.score(split["validation"], split["validation_labels"]))
        write_model(run_directory / "models" / f"{candidate}.joblib", model)
        return {
            "candidate": candidate,
            "validation_accuracy": accuracy,
            "fit_seconds": round(fit_seconds, 3),
        }

    return once(run_directory / "models" / f"{candidate}.json", work)


def _classifier(candidate: str) -> Any:
    """Return the unfitted model, seeded and limited to one core. The imports are local: each is slow."""
    match candidate:
        case "logistic_regression":
            from sklearn.linear_model import LogisticRegression

            return LogisticRegression(max_iter=500, random_state=SEED)
        case "support_vector_machine":
            from sklearn.svm import SVC

            return SVC(C=10.0, random_state=SEED)
        case "random_forest":
            from sklearn.ensemble import RandomForestClassifier

            return RandomForestClassifier(n_estimators=200, n_jobs=1, random_state=SEED)
        case "nearest_neighbours":
            from sklearn.neighbors import KNeighborsClassifier

            return KNeighborsClassifier(n_neighbors=3, n_jobs=1)
