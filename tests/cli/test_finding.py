"""search, outdated and update as a user types them, and what pull takes besides names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.commands.pull import local_path, name_of
from cli.errors import WrongUsage
from tests.cli.conftest import Puna
from tests.cli.fake_daemon import FakeDaemon, Json, Reply, answer, refusal

SUCCESS: list[Json] = [{"status": "success"}]
SEARCH = "GET /api/search?q=tiny+model&limit=20&hub=true"
FOUND: list[Json] = [
    {"name": "smollm2:135m", "size": 98_373_789, "quantizations": ["Q4_1"], "fit": "memory", "license": "Apache-2.0",
     "installed": ["smollm2:135m"]},
    {"name": "hf.co/o/r", "size": 4_400_000_000, "size_is_estimate": True, "fit": "no", "license": "mit", "gated": True,
     "quantizations": ["Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0"]},
    {"name": "hf.co/o/odd"},
]  # fmt: skip


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def verdicts(*models: Json) -> Json:
    return {"models": list(models)}


def test_search_shows_a_table_and_json(puna: Puna, daemon: FakeDaemon) -> None:
    reply: Json = {"models": FOUND, "hub": {"asked": True, "reached": True}}
    daemon.routes[SEARCH] = lambda _: reply
    done = puna("search", "tiny", "model")
    assert rows(done.stdout) == [
        "NAME SIZE QUANTIZATION FITS LICENSE HERE",
        "smollm2:135m 98 MB Q4_1 yes Apache-2.0 yes",
        "hf.co/o/r ~4.4 GB Q4_K_M Q4_K_S Q4_0 Q5_K_M +1 no mit (gated)",
        "hf.co/o/odd - - - -",
    ]
    assert done.stderr.startswith("~ is reckoned")
    assert json.loads(puna("search", "tiny model", "--json").stdout) == reply


def test_search_says_in_one_line_that_the_hub_was_not_reached(puna: Puna, daemon: FakeDaemon) -> None:
    hub = {"asked": True, "reached": False, "error": "huggingface.co cannot be reached (connect error)."}
    daemon.routes[SEARCH] = lambda _: {"models": FOUND[:1], "hub": hub}
    done = puna("search", "tiny", "model")
    assert done.stderr == "Only the catalog was searched: huggingface.co cannot be reached (connect error).\n"


def test_search_offline_asks_for_the_catalog_alone(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/search?q=&limit=3&hub=false"] = lambda _: {"models": [], "hub": {"asked": False}}
    done = puna("search", "--offline", "--limit", "3")
    assert (done.stdout, done.stderr) == ("Nothing was found.\n", "")


def test_outdated_shows_state_and_reason(puna: Puna, daemon: FakeDaemon) -> None:
    told = verdicts(
        {"name": "a:1", "state": "outdated", "reason": "changed at its source: weights", "source": "a:1"},
        {"name": "b:1", "state": "unknown", "reason": "made here"},
        {"name": "c:1", "state": "current", "reason": "", "source": "c:1"},
    )
    daemon.routes["GET /api/outdated"] = lambda _: told
    daemon.routes["GET /api/outdated?model=c%3A1"] = lambda _: verdicts(told["models"][2])
    done = puna("outdated")
    assert rows(done.stdout) == [
        "NAME STATE WHY", "a:1 outdated changed at its source: weights", "b:1 not known made here", "c:1 up to date",
    ]  # fmt: skip
    assert "puna update" in done.stderr
    assert puna("outdated", "c:1").stderr == ""
    assert json.loads(puna("outdated", "--json").stdout) == told


def test_update_all_fetches_what_is_outdated_and_goes_on_after_a_failure(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/outdated"] = lambda _: verdicts(
        {"name": "a:1", "state": "outdated", "reason": "", "source": "gone:1"},
        {"name": "b:1", "state": "outdated", "reason": "", "source": "https://example.com/b.gguf"},
        {"name": "c:1", "state": "current", "reason": "", "source": "c:1"},
        {"name": "d:1", "state": "unknown", "reason": "nobody answers", "source": "d:1"},
        {"name": "e:1", "state": "unknown", "reason": "made here"},
    )
    daemon.routes["POST /api/pull"] = lambda body: (
        refusal(404, "model_not_found", "gone") if body["model"] == "gone:1" else SUCCESS
    )
    done = puna("update", "--all", code=66)
    assert daemon.asked("POST /api/pull") == [
        {"model": "gone:1", "as": "a:1"}, {"model": "https://example.com/b.gguf", "as": "b:1"},
    ]  # fmt: skip
    assert "a:1: gone" in done.stderr and "d:1 is left as it is: nobody answers." in done.stderr
    assert "e:1" not in done.stderr


def test_update_of_one_model(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/outdated?model=a"] = lambda _: verdicts(
        {"name": "a:latest", "state": "unknown", "reason": "no digest", "source": "hf.co/o/r:Q4_0"}
    )
    daemon.routes["GET /api/outdated?model=b"] = lambda _: verdicts(
        {"name": "b:latest", "state": "unknown", "reason": "made here"}
    )
    daemon.routes["GET /api/outdated?model=c"] = lambda _: verdicts({"name": "c:latest", "state": "current"})
    daemon.routes["POST /api/pull"] = lambda _: SUCCESS
    puna("update", "a")
    assert daemon.asked("POST /api/pull") == [{"model": "hf.co/o/r:Q4_0", "as": "a:latest"}]
    assert "b:latest cannot be updated: made here." in puna("update", "b", code=1).stderr
    assert puna("update", "c").stdout == "c:latest is up to date.\n"
    puna("update", code=2)
    puna("update", "a", "--all", code=2)
    assert len(daemon.asked("POST /api/pull")) == 1


def test_pull_takes_an_address_and_a_name(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/pull"] = lambda _: SUCCESS
    puna("pull", "https://example.com/m.gguf", "--as", "mine")
    assert daemon.asked("POST /api/pull") == [{"model": "https://example.com/m.gguf", "as": "mine"}]


def test_run_pulls_an_address_and_runs_what_it_became(puna: Puna, daemon: FakeDaemon) -> None:
    replies: list[Reply | list[Json]] = [
        refusal(404, "model_not_found", "model 'tiny:Q4_0' not found"),
        answer("hello"),
    ]
    daemon.routes["POST /api/generate"] = lambda _: replies.pop(0)
    daemon.routes["POST /api/pull"] = lambda _: SUCCESS
    done = puna("run", "https://example.com/Tiny-Q4_0.gguf", "hi")
    assert done.stdout == "hello\n"
    assert daemon.asked("POST /api/pull") == [{"model": "https://example.com/Tiny-Q4_0.gguf"}]
    assert [body["model"] for body in daemon.asked("POST /api/generate")] == ["tiny:Q4_0", "tiny:Q4_0"]


def test_pull_takes_in_a_file_of_this_machine(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "Tiny Model.Q4_1.gguf"
    file.write_bytes(b"GGUF and so on")
    daemon.routes["HEAD /api/blobs/*"] = lambda _: b""
    daemon.routes["POST /api/create"] = lambda _: SUCCESS
    puna("pull", str(file))
    [recipe] = daemon.asked("POST /api/create")
    assert recipe["model"] == "tiny-model:Q4_1" and list(recipe["files"]) == [file.name]
    assert "There is no file" in puna("pull", str(tmp_path / "absent.gguf"), code=2).stderr


@pytest.mark.parametrize(
    "text", ["smollm2", "hf.co/o/r:m.gguf", "https://example.com/m.gguf", "absent.gguf", "library/m"]
)
def test_names_and_addresses_are_no_files(text: str) -> None:
    assert local_path(text) is None


def test_an_address_is_named_as_the_daemon_names_it() -> None:
    assert name_of("smollm2") == "smollm2"
    assert name_of("https://registry.example.com/ns/m") == "https://registry.example.com/ns/m"
    assert name_of("https://example.com/M-Q4_0.gguf") == "m:Q4_0"
    assert name_of("https://huggingface.co/o/r/blob/main/M-Q4_0.gguf") == "hf.co/o/r:M-Q4_0.gguf"
    with pytest.raises(WrongUsage):
        name_of("ftp://example.com/m.gguf")


def test_a_file_is_not_run_without_a_name(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for text in ("m.gguf", "./m.gguf", str(tmp_path / "m.gguf")):
        assert f"`puna pull {text} --as NAME` makes a model of it" in puna("run", text, "hi", code=2).stderr
    assert "There is no file absent.gguf." in puna("run", "./absent.gguf", "hi", code=2).stderr
    assert daemon.requests == []
