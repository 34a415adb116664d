"""The benchmark: its numbers come out right, and every row still runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from registry.gguf_metadata import read_gguf
from tests.scripts.conftest import script, script_environment
from tests.tiny_model import write_tiny_model

FAKE = Path(__file__).with_name("fake_llama.py")
START = "import sys; from benchmark.program import main; sys.exit(main())"
TIMEOUT = 250


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, *arguments],
        env=script_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", context_length=8192)


def test_every_row_runs_beside_each_setting_and_the_limit(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench(
        "--quick", "--model", str(model), "--llama-server", str(FAKE), "--batched-bench", str(FAKE), "--json",
        str(file), "--weights", "F32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text("utf-8"))
    rows = {row["row"]: row for row in told["rows"]}
    assert len(rows) == 16 and {row["weights"] for row in rows.values()} == {"F32", ""}
    assert rows["one stream"]["others"].keys() == {
        "llama-server",
        "llama-server, one cache",
        "llama-server, slot caches",
        "llama-batched-bench",
    }
    assert rows["one stream, of the raw limit"]["others"]["llama-batched-bench"] == 1e9
    assert rows["one stream, of the raw limit"]["reached"] is False
    assert rows["resumed after a restart, of cold"]["ratio"] > 0
    assert rows["peak memory"]["puna"] > 50
    assert rows["puna list, of python"]["ratio"] > 0
    assert all(row["values"] == 1 for row in rows.values())
    short = [len(figure["values"]) for figure in told["figures"] if figure["figure"] == "one_stream"]
    assert sorted(short) == [1, 2, 2, 2, 2]  # the limit is one run of all its figures
    # Whether guesses change a text of random weights by a bit of a sum is not for this test to tell.
    assert [name for name, row in rows.items() if row["ratio"] is None] in ([], ["share of the same text"])
    for row in rows:
        assert row in done.stdout
    assert (
        "--kv-unified" in done.stdout
        and "--no-kv-unified" in done.stdout
        and "microseconds" not in done.stdout
        and "µs" in done.stdout
    )
    assert "engine: llama-cpp-python " in done.stdout and told["versions"]["engine"] in done.stdout
    assert f"{FAKE}: version: 1.2.3 (build 7, commit 0123abc): NOT the engine's" in done.stdout


def test_a_few_rows_can_be_measured_of_both_kinds_of_weights_without_anybody_to_compare_with(model: Path) -> None:
    done = bench("--quick", "--alone", "--model", str(model), "--only", "one", "commands")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\none stream  ") == 2 and done.stdout.count("puna --version") == 1
    assert "\nF32 " in done.stdout and "\nQ4_0 " in done.stdout
    assert "clients" not in done.stdout and "No llama-server was found" not in done.stdout


def test_options_of_ones_own_are_one_more_setting(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = bench(
        "--quick", "--model", str(model), "--llama-server", str(FAKE), "--only", "one", "--weights", "F32", "--tuned",
        "--parallel 3", "--json", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text("utf-8"))
    assert told["commands"]["llama-server, --tuned"][-2:] == ["--parallel", "3"]
    assert told["rows"][0]["others"].keys() >= {"llama-server", "llama-server, one cache", "llama-server, --tuned"}
    assert "llama-server  one cache  slot caches    --tuned" in done.stdout


def test_no_row_is_begun_when_the_time_is_up(model: Path) -> None:
    done = bench("--quick", "--alone", "--model", str(model), "--minutes", "0", "--weights", "F32")
    assert done.returncode == 0 and "The time is up" in done.stderr
    assert "one stream" not in done.stdout


@pytest.mark.parametrize(
    ("ours", "theirs", "reached", "ratio"),
    [(120.0, (100.0, 90.0), True, 1.2), (120.0, (100.0, 110.0), False, 120 / 110), (50.0, (100.0, 10.0), False, 0.5)],
)
def test_the_better_of_their_settings_counts(
    ours: float, theirs: tuple[float, float], reached: bool, ratio: float
) -> None:
    goals, results = script("benchmark.goals"), script("benchmark.results").Results()
    results.add("Q4_0", "puna", {"f": ours})
    results.add("Q4_0", "llama-server", {"f": theirs[0]})
    results.add("Q4_0", "llama-server, slot caches", {"f": theirs[1]})
    found = goals.outcome(goals.Line("x", "Q4_0", "f", "tok/s", goal=1.15), results)
    assert found.is_reached is reached and found.ratio == pytest.approx(ratio)


def test_of_times_the_smaller_is_the_better() -> None:
    goals, results = script("benchmark.goals"), script("benchmark.results").Results()
    for value in (1.0, 2.0, 100.0):
        results.add("Q4_0", "puna", {"f": value})
        results.add("Q4_0", "llama-server", {"f": 10 * value})
        results.add("Q4_0", "llama-server, one cache", {"f": 8 * value})
    found = goals.outcome(goals.Line("x", "Q4_0", "f", "s", less_is_better=True, goal=4.0), results)
    assert found.ours == 2.0 and found.ratio == 8.0 and found.is_reached and found.values == 3


def test_what_was_not_measured_has_no_verdict() -> None:
    goals, results = script("benchmark.goals"), script("benchmark.results").Results()
    results.add("Q4_0", "puna", {"f": 1.0})
    found = goals.outcome(goals.Line("x", "Q4_0", "f", "s", goal=4.0), results)
    assert found.ratio is None and found.is_reached is None


def test_gaps_reach_from_the_last_piece_before_to_the_end() -> None:
    rows = script("benchmark.rows")
    gaps = rows.gaps_between([[0.0, 1.0, 3.0, 4.0, 9.0], [2.0]], begin=2.5, end=6.0)
    assert sorted(gaps) == [1.0, 2.0, 2.0, 4.0]
    assert rows.percentile(gaps, 0.99) == 4.0 and rows.percentile(list(range(1, 201)), 0.99) == 198


def test_full_precision_is_written_without_losing_what_the_file_says(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "full.gguf"
    script("benchmark.weights").write_full_precision(model, target)
    before, after = read_gguf(model), read_gguf(target)
    assert after.chat_template == before.chat_template and after.context_length == before.context_length
    assert {tensor.name: tensor.shape for tensor in after.tensors} == {
        tensor.name: tensor.shape for tensor in before.tensors
    }
    assert {tensor.type_name for tensor in after.tensors} == {"F16", "F32"}
