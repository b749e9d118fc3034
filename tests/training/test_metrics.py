"""metrics.jsonl: every update once, whatever happened in between."""

import json

from mira_jax.training.metrics import MetricsWriter, read_metrics


def test_going_on_cuts_the_lines_after_the_restored_update(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in range(1, 6):
        writer.write(step, {"loss": 1 / step, "seconds": float(step)})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    writer = MetricsWriter(tmp_path, step=3)
    assert writer.seconds == 3.0
    writer.write(4, {"loss": 9.0})
    writer.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] == 9.0


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": float("nan")})
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None}
