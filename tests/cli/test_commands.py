"""The commands as a user types them, against a fake daemon."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import PUNA, Puna
from tests.cli.fake_daemon import SMOL, TIMEOUT, FakeDaemon, Json, Reply, answer, refusal

SUCCESS: list[Json] = [{"status": "writing manifest"}, {"status": "success"}]


def test_the_version_is_that_of_the_project(puna: Puna, daemon: FakeDaemon) -> None:
    import tomllib

    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    for spelling in ("--version", "-V"):
        assert puna(spelling).stdout == f"puna {project['version']}\n"
    assert daemon.requests == []


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
    assert json.loads(puna("ps", "b", "--json").stdout)["models"] == models[1:2]


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


def test_run_writes_the_answer_and_nothing_else(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("Hel", "lo 🦙")
    done = puna("run", "smol", "Say", "hello", "--system", "Be kind.", "--keepalive", "10m", "-o", "temperature=0",
                "-o", "stop=a b", "-o", "stop=c", "-o", "seed=7", "-o", "use_mmap=false")  # fmt: skip
    assert (done.stdout, done.stderr) == ("Hello 🦙\n", "")
    assert daemon.asked("POST /api/generate") == [
        {
            "model": "smol",
            "prompt": "Say hello",
            "system": "Be kind.",
            "keep_alive": "10m",
            "options": {"temperature": 0.0, "stop": ["a b", "c"], "seed": 7, "use_mmap": False},
        }
    ]


def test_piped_text_comes_before_the_prompt(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("ok")
    puna("run", "smol", "Summarize.", stdin="\ufeffA long text: ünï\n")
    puna("run", "smol", stdin="only piped\n")
    assert [body["prompt"] for body in daemon.asked("POST /api/generate")] == [
        "A long text: ünï Summarize.",
        "only piped",
    ]


def test_run_without_anything_to_answer_is_wrong_usage(puna: Puna) -> None:
    assert "nothing to answer" in puna("run", "smol", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "temperature"), "temperature=0.2"), (("-o", "temperature=hot"), "temperature must be a number"),
        (("-o", "nonsense=1"), "nonsense"), (("-o", "tfs_z=1"), "no longer"), (("--keepalive", "10"), "unit"),
    ],
)  # fmt: skip
def test_a_bad_option_is_told_before_anything_is_asked(
    puna: Puna, daemon: FakeDaemon, arguments: tuple[str, ...], said: str
) -> None:
    assert said in puna("run", "smol", "hi", *arguments, code=2).stderr
    assert daemon.requests == []


def test_a_missing_model_is_fetched_first(puna: Puna, daemon: FakeDaemon) -> None:
    here = threading.Event()

    def pulled(_: object) -> list[Json]:
        here.set()
        return SUCCESS

    daemon.routes["POST /api/pull"] = pulled
    daemon.routes["POST /api/generate"] = lambda _: (
        answer("hi") if here.is_set() else refusal(404, "model_not_found", "model 'smol' not found")
    )
    done = puna("run", "smol", "hello")
    assert done.stdout == "hi\n"
    assert "success" in done.stderr


def test_verbose_tells_counts_and_rates(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer(
        "hi", total_duration=2_000_000_000, load_duration=50_000_000, prompt_eval_count=30,
        prompt_eval_duration=100_000_000, eval_count=50, eval_duration=1_000_000_000, cached_tokens=10,
    )  # fmt: skip
    done = puna("run", "smol", "x", "--verbose")
    assert done.stderr.splitlines() == [
        "total duration:       2.000s",
        "load duration:        50.0ms",
        "prompt eval count:    30 token(s) (10 cached)",
        "prompt eval duration: 100.0ms",
        "prompt eval rate:     200.00 tokens/s",
        "eval count:           50 token(s)",
        "eval duration:        1.000s",
        "eval rate:            50.00 tokens/s",
    ]


def test_a_shortened_prompt_and_ignored_fields_are_told(puna: Puna, daemon: FakeDaemon) -> None:
    records = answer("hi", truncated={"from": 900, "to": 500, "strategy": "shift"})
    daemon.routes["POST /api/generate"] = lambda _: Reply(records, headers={"X-Puna-Ignored": "options.main_gpu"})
    done = puna("run", "smol", "x")
    assert "from 900 to 500 tokens" in done.stderr
    assert "options.main_gpu" in done.stderr


def test_an_answer_that_breaks_off_says_so(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/generate"] = lambda _: Reply(answer("par")[:1], cut=True)
    done = puna("run", "smol", "x", code=69)
    assert done.stdout == "par\n"
    assert "broke off" in done.stderr
    daemon.routes["POST /api/generate"] = lambda _: answer("par")[:1]
    puna("run", "smol", "x", code=69)
    crashed = {"error": "The engine died.", "code": "engine_crashed", "request_id": "r"}
    daemon.routes["POST /api/generate"] = lambda _: [*answer("par")[:1], crashed]
    assert "The engine died." in puna("run", "smol", "x", code=70).stderr


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_stops_the_answer_with_130(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    started = threading.Event()

    def slow(_: object) -> Iterator[Json]:
        yield {"response": "first"}
        started.set()
        while not daemon.disconnected.wait(0.005):
            yield {"response": "x" * 2000}

    daemon.routes["POST /api/generate"] = slow
    process = subprocess.Popen(
        [*PUNA, "run", "smol", "go"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(5) == b"first"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, error) == (130, b"")
    assert daemon.disconnected.wait(TIMEOUT)


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_reader_that_leaves_ends_it_quietly(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.routes["GET /api/tags"] = lambda _: {"models": [SMOL] * 5000}
    command = f"set -o pipefail; {' '.join(PUNA)} list | head -1"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"NAME")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("list",), ("run", "m", "hi")])
def test_output_that_cannot_be_written_is_told(
    daemon: FakeDaemon, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("Hello.")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PUNA, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    assert done.returncode == 28, done.stderr
    assert done.stderr.startswith("Error: What there is to say cannot be written (No space left on device).")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="made by a shell of Unix")
@pytest.mark.parametrize("arguments", ["--version", "list", "--help"])
def test_closed_output_is_nothing_to_stumble_over(
    daemon: FakeDaemon, environment: dict[str, str], arguments: str
) -> None:
    command = f'exec "$@" {arguments} >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *PUNA], env=environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="arguments are always text there")
def test_arguments_that_are_no_text_are_told(puna: Puna, daemon: FakeDaemon) -> None:
    done = puna("run", "m", os.fsdecode(b"\xff"), code=2)
    assert "not UTF-8" in done.stderr
    assert not daemon.asked("POST /api/generate")


def test_a_model_that_no_source_has_is_not_advised_to_be_pulled(puna: Puna, daemon: FakeDaemon) -> None:
    refused = {"error": "file does not exist (x is not in the catalog)", "code": "model_not_found"}
    daemon.routes["POST /api/pull"] = lambda _: [{"status": "pulling manifest"}, refused]
    done = puna("pull", "x", code=66)
    assert done.stderr.splitlines()[-1] == "Error: file does not exist (x is not in the catalog)."


def test_a_file_that_is_no_gguf_is_not_sent(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
    tmp_path.joinpath("notes.txt").write_text("not a model")
    assert "notes.txt is no GGUF file." in puna("create", "x", "--from", "notes.txt", code=2).stderr
    assert "--from takes" in puna("create", "x", "--from", "", code=2).stderr
    tmp_path.joinpath("Modelfile").write_text("# a comment\nFROM ./absent.gguf\n")
    assert "Error: Modelfile: (line 2): There is no file absent.gguf." in puna("create", "x", code=2).stderr
    assert not any("blobs" in route for route, _ in daemon.requests)


def test_what_a_locale_cannot_show_is_replaced(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.routes["POST /api/generate"] = lambda _: answer("ünï 🦙 ok")
    done = subprocess.run(
        [*PUNA, "run", "smol", "x"], env=environment | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"?n? ? ok\n")


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (507, "disk_full", 28), (404, "model_not_found", 66), (502, "registry_unreachable", 69),
        (503, "server_shutdown", 69), (500, "engine_crashed", 70), (403, "host_forbidden", 77),
        (409, "store_read_only", 77), (400, "invalid_request", 2), (500, "internal", 1), (503, "queue_full", 1),
    ],
)  # fmt: skip
def test_exit_codes_follow_the_error_codes(
    puna: Puna, daemon: FakeDaemon, status: int, code: str, exit_code: int
) -> None:
    daemon.routes["GET /api/tags"] = lambda _: refusal(status, code, "it did not work")
    error = puna("list", code=exit_code).stderr
    assert error.startswith("Error: it did not work.")
    assert len(error.splitlines()) == 1


def test_an_unforeseen_error_goes_into_a_log(puna: Puna, daemon: FakeDaemon, home: Path) -> None:
    daemon.routes["GET /api/tags"] = lambda _: {"models": [{"unexpected": True}]}
    error = puna("list", code=1).stderr
    log = home / "logs" / "puna-crash.log"
    assert str(log) in error
    assert "KeyError" in log.read_text()


def test_a_stranger_at_the_address_is_not_taken_for_the_daemon(puna: Puna, daemon: FakeDaemon) -> None:
    del daemon.routes["GET /api/version"]
    assert "not Puna's daemon" in puna("list", code=69).stderr


def test_a_daemon_of_another_version_is_warned_about_once(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["GET /api/version"] = lambda _: {"version": "9.9.9"}
    error = puna("list").stderr
    assert error.count("Warning") == 1
    assert "9.9.9" in error


def test_a_broken_setting_is_exit_code_78(puna: Puna, environment: dict[str, str]) -> None:
    environment["PUNA_HOST"] = "127.0.0.1:notaport"
    assert "PUNA_HOST" in puna("list", code=78).stderr


class TestCreate:
    def test_a_file_is_sent_once_and_named(self, puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
        (tmp_path / "tiny.gguf").write_bytes(b"GGUF" * 1000)
        digest = "sha256:" + hashlib.sha256(b"GGUF" * 1000).hexdigest()
        daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply(status=404)
        daemon.routes["POST /api/blobs/*"] = lambda _: Reply(status=201)
        daemon.routes["POST /api/create"] = lambda _: SUCCESS
        puna("create", "mine", "--from", "tiny.gguf")
        assert daemon.asked("POST /api/create") == [{"model": "mine", "files": {"tiny.gguf": digest}}]
        assert daemon.asked(f"POST /api/blobs/{digest}") == [b"GGUF" * 1000]
        daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
        puna("create", "mine", "--from", "./tiny.gguf")
        assert len(daemon.asked(f"POST /api/blobs/{digest}")) == 1

    def test_a_modelfile_says_everything(self, puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
        text = (
            'FROM smol\nSYSTEM "Be brief."\nTEMPLATE "{{ prompt }}"\nPARAMETER temperature 0.3\n'
            "PARAMETER stop a\nPARAMETER stop b\nMESSAGE user Hi\nMESSAGE assistant Yo\nLICENSE MIT\n"
        )
        (tmp_path / "Modelfile").write_text(text)
        daemon.routes["POST /api/create"] = lambda _: SUCCESS
        puna("create", "mine")
        puna("create", "mine", "-f", "-", stdin=text)
        wanted = {
            "model": "mine",
            "from": "smol",
            "system": "Be brief.",
            "template": "{{ prompt }}",
            "parameters": {"temperature": 0.3, "stop": ["a", "b"]},
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
            "license": ["MIT"],
        }
        assert daemon.asked("POST /api/create") == [wanted, wanted]

    def test_an_option_that_does_nothing_any_more_is_told_and_not_sent(
        self, puna: Puna, daemon: FakeDaemon, tmp_path: Path
    ) -> None:
        (tmp_path / "Modelfile").write_text("FROM smol\nPARAMETER f16_kv true\n")
        daemon.routes["POST /api/create"] = lambda _: SUCCESS
        assert "parameter f16_kv is deprecated" in puna("create", "mine").stderr
        assert daemon.asked("POST /api/create") == [{"model": "mine", "from": "smol"}]

    def test_a_path_is_relative_to_the_modelfile(self, puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
        folder = tmp_path / "sub"
        folder.mkdir()
        (folder / "a.gguf").write_bytes(b"GGUF")
        (folder / "Modelfile").write_text("FROM ./a.gguf\n")
        daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
        daemon.routes["POST /api/create"] = lambda _: SUCCESS
        puna("create", "mine", "-f", "sub/Modelfile")
        assert list(daemon.asked("POST /api/create")[0]["files"]) == ["a.gguf"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [(None, "cannot be read"), ("FROM ./missing.gguf\n", "no file"), ("FROM smol\nNONSENSE x\n", "2"),
         ("FROM smol\nPARAMETER temperature hot\n", "temperature")],
    )  # fmt: skip
    def test_what_is_wrong_is_told_and_nothing_asked(
        self, puna: Puna, daemon: FakeDaemon, tmp_path: Path, content: str | None, said: str
    ) -> None:
        if content is not None:
            (tmp_path / "Modelfile").write_text(content)
        assert said in puna("create", "mine", code=2).stderr
        assert daemon.requests == []

    def test_every_file_that_a_modelfile_names_is_sent_under_its_heading(
        self, puna: Puna, daemon: FakeDaemon, tmp_path: Path
    ) -> None:
        for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "eyes.gguf", "lora.gguf", "small.gguf"):
            (tmp_path / name).write_bytes(b"GGUF" + name.encode())
        (tmp_path / "Modelfile").write_text(
            "FROM ./m-00001-of-00002.gguf\nFROM ./eyes.gguf\nADAPTER ./lora.gguf\nDRAFT ./small.gguf\nREQUIRES 0.1.0\n"
        )
        daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
        daemon.routes["POST /api/create"] = lambda _: SUCCESS
        puna("create", "mine", "--quantize", "q4_K_M")
        (asked,) = daemon.asked("POST /api/create")
        assert list(asked["files"]) == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "eyes.gguf"]
        assert list(asked["adapters"]) == ["lora.gguf"] and list(asked["draft_files"]) == ["small.gguf"]
        assert asked["quantize"] == "q4_K_M" and asked["requires"] == "0.1.0"

    def test_a_folder_with_a_checkpoint_is_sent_without_what_does_not_belong_to_it(
        self, puna: Puna, daemon: FakeDaemon, tmp_path: Path
    ) -> None:
        folder = tmp_path / "repo"
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "1_Pooling" / "config.json").write_text("{}")
        for name in ("model.safetensors", "consolidated.safetensors", "config.json", "tokenizer.json", "photo.png"):
            (folder / name).write_bytes(name.encode())
        daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
        daemon.routes["POST /api/create"] = lambda _: SUCCESS
        puna("create", "mine", "--from", "./repo")
        (asked,) = daemon.asked("POST /api/create")
        assert set(asked["files"]) == {"model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json"}

    @pytest.mark.skipif(os.name == "nt", reason="links want a privilege there")
    def test_a_link_out_of_a_folder_is_not_followed(self, puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "repo").mkdir()
        (tmp_path / "repo" / "model.safetensors").symlink_to(tmp_path / "secret")
        assert "link to a file outside" in puna("create", "mine", "--from", "./repo", code=2).stderr
        assert daemon.requests == []

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (("a.gguf", "b.gguf"), "more than one GGUF file"),
            ((), "holds no GGUF file and no safetensors"),
            (("m-00001-of-00002.gguf",), "m-00002-of-00002.gguf is not beside it"),
        ],
    )
    def test_a_folder_that_could_mean_anything_is_refused(
        self, puna: Puna, daemon: FakeDaemon, tmp_path: Path, names: tuple[str, ...], said: str
    ) -> None:
        (tmp_path / "repo").mkdir()
        for name in names:
            (tmp_path / "repo" / name).write_bytes(b"GGUF")
        (tmp_path / "Modelfile").write_text("FROM ./repo\n")
        error = puna("create", "mine", code=2).stderr
        assert said in error and "(line 1)" in error

    def test_a_refused_upload_tells_why(self, puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
        (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
        daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply(status=404)
        daemon.routes["POST /api/blobs/*"] = lambda _: refusal(507, "disk_full", "no room")
        assert "no room" in puna("create", "mine", "--from", "tiny.gguf", code=28).stderr

    def test_two_origins_exclude_each_other(self, puna: Puna) -> None:
        assert "exclude" in puna("create", "mine", "-f", "x", "--from", "y", code=2).stderr


def test_a_model_is_shown_with_how_it_fits(puna: Puna, daemon: FakeDaemon) -> None:
    fit = {
        "measured": True, "verdict": "tight", "placement": "All 3 layers on the CPU.", "weights": 2_000_000_000,
        "kv_cache_per_1k_tokens": 23_000_000, "compute_buffers": 18_000_000, "context_length": 4096,
        "needed": 2_100_000_000, "kernel": "Q4_0 has a fast kernel on this CPU.",
    }  # fmt: skip
    daemon.routes["POST /api/show"] = lambda _: {"model_info": {}, "capabilities": ["completion"], "fit": fit}
    shown = puna("show", "m").stdout
    for words in (
        "2 GB",
        "23 MB for 1k tokens",
        "2.1 GB with a window of 4096 tokens",
        "Tight. All 3 layers",
        "Q4_0",
    ):
        assert words in shown
    fit.update(measured=False, kernel="", kv_cache_per_1k_tokens=0)
    shown = puna("show", "m").stdout
    assert "about 18 MB" in shown and "kernel" not in shown and "kv cache" not in shown
