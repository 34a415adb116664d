"""What is here is listed, shown, copied, removed, unloaded and fetched, as a user types it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import Puna
from tests.cli.fake_daemon import SMOL, SUCCESS, FakeDaemon, Json, Reply, refusal


def test_list_is_a_table_json_and_has_a_short_name(puna: Puna, daemon: FakeDaemon) -> None:
    table = puna("list").stdout
    assert table.splitlines()[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert table.splitlines()[1].split()[:4] == ["smol:latest", "0123456789ab", "98", "MB"]
    assert table.rstrip().endswith("years ago")
    assert puna("ls").stdout == table
    assert json.loads(puna("list", "--json").stdout) == {"models": [SMOL]}
    assert puna("list", "SMO").stdout == table
    assert json.loads(puna("list", "other", "--json").stdout) == {"models": []}


def test_a_damaged_model_is_told_beside_the_list(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/tags"] = lambda _: {"models": [{**SMOL, "damaged": True}]}
    assert "smol:latest are damaged" in puna("list").stderr
    assert json.loads(puna("list", "--json").stdout)["models"][0]["damaged"] is True


def test_ps_tells_where_and_until_when(puna: Puna, daemon: FakeDaemon) -> None:
    def row(name: str, **more: object) -> Json:
        return {**SMOL, "name": name, "size": 311_000_000, "size_vram": 0, "context_length": 8192, **more}

    soon = (datetime.now(UTC) + timedelta(minutes=4, seconds=30)).isoformat()
    models = [
        row("a:1", expires_at=soon, state="ready"),
        row(
            "b:1", expires_at="2400-01-01T00:00:00Z", size_vram=311_000_000, state="ready", largest_context_length=8192
        ),
        row("d:1", expires_at=soon, state="ready", context_length=4096, largest_context_length=8192),
        {key: value for key, value in row("c:1", state="loading").items() if key != "context_length"},
    ]
    daemon.routes["GET /api/ps"] = lambda _: {"models": models}
    rows = [" ".join(line.split()) for line in puna("ps").stdout.splitlines()]
    assert rows == [
        "NAME ID SIZE PROCESSOR CONTEXT UNTIL",
        "a:1 0123456789ab 311 MB 100% CPU 8192 4 minutes from now",
        "b:1 0123456789ab 311 MB 100% GPU 8192 Forever",
        "d:1 0123456789ab 311 MB 100% CPU 4096 of 8192 4 minutes from now",
        "c:1 0123456789ab 311 MB 100% CPU - Loading...",
    ]
    assert json.loads(puna("ps", "B", "--json").stdout)["models"] == models[1:2]


def test_show_has_sections_parts_and_json(puna: Puna, daemon: FakeDaemon) -> None:
    reply: Json = {
        "details": SMOL["details"],
        "model_info": {"general.architecture": "llama", "llama.context_length": 8192, "a.list": list(range(20))},
        "tensors": [{"name": "token_embd.weight", "type": "Q4_1", "shape": [576, 49152]}],
        "capabilities": ["completion", "tools"],
        "parameters": 'stop                           "<|end|>"\ntemperature                    0.2',
        "system": "Be brief.\n\nSecond.\nThird.",
        "license": "MIT",
        "modelfile": "FROM x\n",
    }
    daemon.routes["POST /api/show"] = lambda _: reply
    shown = puna("show", "smol").stdout
    for line in (
        "  Model", "    architecture      llama", "    context length    8192", "    quantization      Q4_1",
        "  Capabilities", "    tools", '    stop           "<|end|>"', "    Second.", "    ...", "    MIT",
    ):  # fmt: skip
        assert f"{line}\n" in shown
    assert "Metadata" not in shown
    verbose = puna("show", "smol", "-v").stdout
    assert "[0 1 2 3 4 5 6 7 ...+12 more]" in verbose
    assert "token_embd.weight    Q4_1    [576, 49152]" in verbose
    assert daemon.asked("POST /api/show")[-1] == {"model": "smol", "verbose": True}
    assert puna("show", "smol", "--modelfile").stdout == "FROM x\n"
    assert puna("show", "smol", "--template").stdout == ""
    assert json.loads(puna("show", "smol", "--json").stdout) == reply
    assert "only one of" in puna("show", "smol", "--license", "--system", code=2).stderr


def test_a_model_is_shown_with_how_it_fits(puna: Puna, daemon: FakeDaemon) -> None:
    fit = {
        "measured": True, "verdict": "tight", "placement": "All 3 layers on the CPU.", "weights": 2_000_000_000,
        "kv_cache_per_1k_tokens": 23_000_000, "compute_buffers": 18_000_000, "context_length": 4096,
        "largest_context_length": 9984,
        "needed": 2_100_000_000, "kernel": "Q4_0 has a fast kernel on this CPU.",
    }  # fmt: skip
    daemon.routes["POST /api/show"] = lambda _: {"model_info": {}, "capabilities": ["completion"], "fit": fit}
    shown = puna("show", "m").stdout
    for words in (
        "2 GB",
        "23 MB for 1k tokens",
        "2.1 GB with a window of 4096 tokens, which can grow to 9984",
        "Tight. All 3 layers",
        "Q4_0",
    ):
        assert words in shown
    fit.update(measured=False, kernel="", kv_cache_per_1k_tokens=0)
    shown = puna("show", "m").stdout
    assert "about 18 MB" in shown and "kernel" not in shown and "kv cache" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_shows_long_values_in_their_column(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    from tests.cli.terminal import terminal

    fit = {"weights": 1, "context_length": 4096, "placement": "All 3 layers on the CPU: no GPU.", "kernel": "x" * 40}
    daemon.routes["POST /api/show"] = lambda _: {"model_info": {}, "fit": fit}
    with terminal(environment, "show", "m", columns=40) as screen:
        assert screen.wait_for_end() == 0
        assert "    here               All 3 layers on\n                       the CPU: no GPU.\n" in screen.text()


def test_copies_and_removals_are_told(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/copy"] = lambda _: Reply()
    assert puna("cp", "a", "b").stdout == "copied 'a' to 'b'\n"
    assert daemon.asked("POST /api/copy") == [{"source": "a", "destination": "b"}]
    daemon.routes["DELETE /api/delete"] = lambda body: (
        Reply() if body["model"] == "a" else refusal(404, "model_not_found", "model 'x' not found")
    )
    done = puna("rm", "a", "x", "never", code=66)
    assert done.stdout == "deleted 'a'\n"
    assert "model 'x' not found" in done.stderr
    assert daemon.asked("DELETE /api/delete") == [{"model": "a"}, {"model": "x"}]
    puna("rm", "--force", "a")
    assert daemon.asked("DELETE /api/delete")[-1] == {"model": "a", "force": True}


def test_stop_unloads_a_model_and_nothing_without_a_name(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: {"done": True, "done_reason": "unload"}
    puna("stop", "smol")
    assert daemon.asked("POST /api/generate") == [{"model": "smol", "stream": False, "keep_alive": 0}]
    assert "--daemon" in puna("stop", code=2).stderr
    assert "--daemon" in puna("stop", "smol", "--daemon", code=2).stderr
    daemon.routes["POST /api/generate"] = lambda _: refusal(404, "model_not_found", "model 'x' not found")
    assert 'couldn\'t find model "x" to stop' in puna("stop", "x", code=66).stderr


def test_a_pull_tells_each_step_on_standard_error(puna: Puna, daemon: FakeDaemon) -> None:
    layer = {"status": "pulling 0123456789ab", "digest": "sha256:0123456789ab", "total": 2_000_000}
    daemon.routes["POST /api/pull"] = lambda _: [
        {"status": "pulling manifest"}, layer, {**layer, "completed": 1_000_000}, {**layer, "completed": 2_000_000},
        *SUCCESS,
    ]  # fmt: skip
    done = puna("pull", "smol")
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "pulling manifest",
        "pulling 0123456789ab: 0 B of 2 MB (0%)",
        "pulling 0123456789ab: 2 MB of 2 MB (100%)",
        "writing manifest",
        "success",
    ]


def test_a_pull_without_its_last_record_has_failed(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/pull"] = lambda _: [{"status": "pulling manifest"}]
    assert "broke off" in puna("pull", "smol", code=69).stderr


def test_a_model_that_no_source_has_is_not_advised_to_be_pulled(puna: Puna, daemon: FakeDaemon) -> None:
    refused = {"error": "file does not exist (x is not in the catalog)", "code": "model_not_found"}
    daemon.routes["POST /api/pull"] = lambda _: [{"status": "pulling manifest"}, refused]
    done = puna("pull", "x", code=66)
    assert done.stderr.splitlines()[-1] == "Error: file does not exist (x is not in the catalog)."
