"""The steps from download to registry, on the real digits."""

import numpy as np
import pytest

from airflow_ha.ml import model_registry
from airflow_ha.ml.artifacts import read_arrays, read_json, read_model, write_arrays
from airflow_ha.ml.data_source import read
from airflow_ha.ml.download import download
from airflow_ha.ml.evaluation import evaluate
from airflow_ha.ml.preprocessing import preprocess
from airflow_ha.ml.quality_gate import judge
from airflow_ha.ml.training import CANDIDATES, train


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """The directory of a run on the digits with all candidates trained."""
    directory = tmp_path_factory.mktemp("run")
    download("digits", "label", (), directory)
    preprocess(directory)
    for candidate in CANDIDATES:
        train(candidate, directory)
    return directory


def files(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_download_copies_the_data_unchanged(run_directory):
    features, labels = read("digits", "label", ())
    dataset = read_arrays(run_directory / "dataset.npz")

    assert np.array_equal(dataset["features"], features)
    assert np.array_equal(dataset["labels"], labels)
    assert read_json(run_directory / "download.json") == {"source": "digits", "samples": 1797, "features": 64}


def test_split_is_60_20_20_without_overlap(tmp_path):
    labels = np.array([str(row % 4) for row in range(1_000)])
    write_arrays(tmp_path / "dataset.npz", features=np.arange(1_000.0).reshape(-1, 1), labels=labels)

    assert preprocess(tmp_path) == {"train": 600, "validation": 200, "test": 200, "reused": False}

    split = read_arrays(tmp_path / "split.npz")
    everything = np.concatenate([split["train"], split["validation"], split["test"]])
    assert sorted(everything.ravel()) == list(range(1_000))
    for part in ("train", "validation", "test"):
        assert np.array_equal(labels[split[part].ravel().astype(int)], split[f"{part}_labels"])
        assert set(np.unique(split[f"{part}_labels"], return_counts=True)[1]) == {len(split[part]) // 4}


def test_smallest_allowed_class_is_in_every_part(tmp_path):
    labels = np.array(["rare"] * 5 + ["common"] * 995)
    write_arrays(tmp_path / "dataset.npz", features=np.zeros((1_000, 1)), labels=labels)
    preprocess(tmp_path)

    split = read_arrays(tmp_path / "split.npz")
    counts = {part: int((split[f"{part}_labels"] == "rare").sum()) for part in ("train", "validation", "test")}

    assert counts == {"train": 3, "validation": 1, "test": 1}


def test_unlabelled_rows_are_dropped_and_infinities_are_missing(tmp_path):
    features = np.full((1_000, 2), 7.0)
    features[0, 0] = np.inf
    labels = np.array([str(row % 2) for row in range(1_000)])
    labels[900:] = ""
    write_arrays(tmp_path / "dataset.npz", features=features, labels=labels)

    parts = preprocess(tmp_path)

    split = read_arrays(tmp_path / "split.npz")
    everything = np.concatenate([split["train"], split["validation"], split["test"]])
    assert parts["train"] + parts["validation"] + parts["test"] == 900
    assert np.isnan(everything).sum() == 1
    assert not np.isinf(everything).any()


def test_same_data_is_split_the_same_way_each_time(run_directory, tmp_path):
    download("digits", "label", (), tmp_path)
    preprocess(tmp_path)

    first, second = read_arrays(run_directory / "split.npz"), read_arrays(tmp_path / "split.npz")
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_each_candidate_accepts_raw_values_with_gaps(run_directory, candidate):
    model = read_model(run_directory / "models" / f"{candidate}.joblib")
    images, labels = read("digits", "label", ())
    images[:, 20] = np.nan

    assert model.score(images, labels) > 0.9
    assert read_json(run_directory / "models" / f"{candidate}.json")["validation_accuracy"] > 0.93


def test_training_is_deterministic(run_directory, tmp_path):
    (tmp_path / "split.npz").write_bytes((run_directory / "split.npz").read_bytes())
    train("random_forest", tmp_path)

    images, _ = read("digits", "label", ())
    first = read_model(run_directory / "models" / "random_forest.joblib").predict(images)
    second = read_model(tmp_path / "models" / "random_forest.joblib").predict(images)
    assert np.array_equal(first, second)


def test_unknown_candidate_is_refused_with_the_valid_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'oracle'.*logistic_regression, support_vector"):
        train("oracle", tmp_path)


def test_winner_has_best_validation_accuracy_and_95_percent(run_directory):
    evaluation = evaluate(CANDIDATES, run_directory)

    best = max(each["validation_accuracy"] for each in evaluation["candidates"].values())
    winner = evaluation["candidates"][evaluation["winner"]]
    assert set(evaluation["candidates"]) == set(CANDIDATES)
    assert winner["validation_accuracy"] == best
    assert evaluation["accuracy"] == winner["accuracy"] >= 0.95
    assert evaluation["test_samples"] == 359


def test_untrained_candidate_cannot_be_evaluated(run_directory, tmp_path):
    (tmp_path / "split.npz").write_bytes((run_directory / "split.npz").read_bytes())

    with pytest.raises(FileNotFoundError, match="'random_forest'"):
        evaluate(["random_forest"], tmp_path)


def test_empty_candidate_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="candidates"):
        evaluate([], tmp_path)


def test_second_pass_reuses_everything_and_writes_nothing(run_directory, tmp_path):
    evaluation = evaluate(CANDIDATES, run_directory)
    verdict = judge(evaluation, 0.95)
    model_registry.register("v1", evaluation, verdict, run_directory, tmp_path)
    before = files(run_directory) | files(tmp_path)

    again = [
        download("digits", "label", (), run_directory),
        preprocess(run_directory),
        *(train(candidate, run_directory) for candidate in CANDIDATES),
        evaluate(CANDIDATES, run_directory),
        model_registry.register("v1", evaluation, verdict, run_directory, tmp_path),
    ]

    assert all(step["reused"] for step in again)
    assert files(run_directory) | files(tmp_path) == before


def test_winner_is_registered_with_its_metrics_and_model(run_directory, tmp_path):
    evaluation = evaluate(CANDIDATES, run_directory)
    document = model_registry.register("v1", evaluation, judge(evaluation, 0.95), run_directory, tmp_path)

    images, labels = read("digits", "label", ())
    assert document["outcome"] == "registered"
    assert document["model"] == evaluation["winner"]
    assert document["accuracy"] == evaluation["accuracy"]
    assert document["model_path"] == str(tmp_path / "v1.joblib")
    assert read_model(tmp_path / "v1.joblib").score(images, labels) > 0.95
    assert model_registry.decision("v1", tmp_path)["candidates"] == evaluation["candidates"]


def test_rejection_is_recorded_with_its_reason_and_no_model(run_directory, tmp_path):
    evaluation = evaluate(CANDIDATES, run_directory)
    document = model_registry.reject("v1", evaluation, judge(evaluation, 1.0), tmp_path)

    assert document["outcome"] == "rejected"
    assert document["model_path"] is None
    assert "1.0000" in document["reason"]
    assert model_registry.reject("v1", evaluation, judge(evaluation, 1.0), tmp_path)["reused"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["v1.json"]


def test_changed_gate_makes_a_new_decision_in_both_directions(run_directory, tmp_path):
    evaluation = evaluate(CANDIDATES, run_directory)
    model_registry.reject("v1", evaluation, judge(evaluation, 1.0), tmp_path)

    registered = model_registry.register("v1", evaluation, judge(evaluation, 0.9), run_directory, tmp_path)
    assert registered["reused"] is False
    assert model_registry.decision("v1", tmp_path)["outcome"] == "registered"

    model_registry.reject("v1", evaluation, judge(evaluation, 1.0), tmp_path)
    assert model_registry.decision("v1", tmp_path)["outcome"] == "rejected"


def test_version_without_a_decision_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="v9"):
        model_registry.decision("v9", tmp_path)
