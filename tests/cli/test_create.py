"""`puna create`: what is sent, from a Modelfile, files and folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Puna
from tests.cli.fake_daemon import SUCCESS, FakeDaemon, Reply, refusal


def test_a_file_is_sent_once_and_named(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
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


def test_a_modelfile_says_everything(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
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
    puna: Puna, daemon: FakeDaemon, tmp_path: Path
) -> None:
    (tmp_path / "Modelfile").write_text("FROM smol\nPARAMETER f16_kv true\n")
    daemon.routes["POST /api/create"] = lambda _: SUCCESS
    assert "parameter f16_kv is deprecated" in puna("create", "mine").stderr
    assert daemon.asked("POST /api/create") == [{"model": "mine", "from": "smol"}]


def test_a_path_is_relative_to_the_modelfile(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
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
    puna: Puna, daemon: FakeDaemon, tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "Modelfile").write_text(content)
    assert said in puna("create", "mine", code=2).stderr
    assert daemon.requests == []


def test_every_file_that_a_modelfile_names_is_sent_under_its_heading(
    puna: Puna, daemon: FakeDaemon, tmp_path: Path
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


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        ({"code": "unsupported", "requires": "99.0.0", "version": "0.1.0"}, "(line 4): "),
        ({"code": "invalid_request", "field": "parser"}, "(line 3): "),
        ({"code": "invalid_request", "field": "adapters"}, ""),
        ({"code": "invalid_request", "field": "quantize"}, ""),
    ],
)
def test_what_the_daemon_finds_wrong_in_a_modelfile_is_told_with_its_line(
    puna: Puna, daemon: FakeDaemon, tmp_path: Path, facts: dict[str, str], place: str
) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    text = "# mine\nFROM smol\nPARSER passthrough\nREQUIRES 99.0.0\nADAPTER ./a.gguf\nADAPTER ./b.gguf\n"
    (tmp_path / "Modelfile").write_text(text)
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
    daemon.routes["POST /api/create"] = lambda _: refusal(400, message="It cannot be.", **facts)
    code = 2 if place or facts["code"] == "invalid_request" else 1
    assert f"Error: {'Modelfile: ' if place else ''}{place}It cannot be." in puna("create", "mine", code=code).stderr


@pytest.mark.parametrize(("option", "field"), [("--imatrix", "imatrix"), ("--calibrate", "calibration")])
def test_a_matrix_or_a_text_for_one_is_sent_with_the_type(
    puna: Puna, daemon: FakeDaemon, tmp_path: Path, option: str, field: str
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "it").write_bytes(b"content")
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
    daemon.routes["POST /api/create"] = lambda _: SUCCESS
    puna("create", "mine", "--from", "./m.gguf", "-q", "iq2_xs", option, "it")
    (asked,) = daemon.asked("POST /api/create")
    assert asked[field] == "sha256:" + hashlib.sha256(b"content").hexdigest() and asked["quantize"] == "iq2_xs"


@pytest.mark.parametrize(
    "options",
    [("--imatrix", "m"), ("--calibrate", "t"), ("-q", "q4_K_M", "--imatrix", "m", "--calibrate", "t")],
)
def test_options_about_a_matrix_that_do_not_go_together_are_refused(puna: Puna, options: tuple[str, ...]) -> None:
    assert "--calibrate" in puna("create", "mine", "--from", "base", *options, code=2).stderr


def test_adapters_in_safetensors_are_sent_with_what_tells_of_them(
    puna: Puna, daemon: FakeDaemon, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "optimizer.pt"):
            (tmp_path / folder / name).write_bytes(f"{folder} {name}".encode())
    (tmp_path / "lora.gguf").write_bytes(b"GGUF")
    (tmp_path / "Modelfile").write_text(
        "FROM base\nADAPTER ./one\nADAPTER ./lora.gguf\nADAPTER two/adapter_model.safetensors\n"
    )
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply()
    daemon.routes["POST /api/create"] = lambda _: SUCCESS
    puna("create", "mine", "--draft-quantize", "q8_0")
    (asked,) = daemon.asked("POST /api/create")
    assert list(asked["adapters"]) == [
        "adapter_model.safetensors",
        "adapter_config.json",
        "lora.gguf",
        "2/adapter_model.safetensors",
        "2/adapter_config.json",
    ]
    assert asked["draft_quantize"] == "q8_0" and "quantize" not in asked
    (tmp_path / "two" / "adapter_config.json").unlink()
    assert "(line 4): There is no file" in puna("create", "mine", code=2).stderr


def test_a_folder_with_a_checkpoint_is_sent_without_what_does_not_belong_to_it(
    puna: Puna, daemon: FakeDaemon, tmp_path: Path
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
def test_a_link_out_of_a_folder_is_not_followed(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
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
    puna: Puna, daemon: FakeDaemon, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    (tmp_path / "repo").mkdir()
    for name in names:
        (tmp_path / "repo" / name).write_bytes(b"GGUF")
    (tmp_path / "Modelfile").write_text("FROM ./repo\n")
    error = puna("create", "mine", code=2).stderr
    assert said in error and "(line 1)" in error


def test_a_refused_upload_tells_why(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    daemon.routes["HEAD /api/blobs/*"] = lambda _: Reply(status=404)
    daemon.routes["POST /api/blobs/*"] = lambda _: refusal(507, "disk_full", "no room")
    assert "no room" in puna("create", "mine", "--from", "tiny.gguf", code=28).stderr


def test_two_origins_exclude_each_other(puna: Puna) -> None:
    assert "exclude" in puna("create", "mine", "-f", "x", "--from", "y", code=2).stderr


def test_a_file_that_is_no_gguf_is_not_sent(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
    tmp_path.joinpath("notes.txt").write_text("not a model")
    assert "notes.txt is no GGUF file." in puna("create", "x", "--from", "notes.txt", code=2).stderr
    assert "--from takes" in puna("create", "x", "--from", "", code=2).stderr
    tmp_path.joinpath("Modelfile").write_text("# a comment\nFROM ./absent.gguf\n")
    assert "Error: Modelfile: (line 2): There is no file absent.gguf." in puna("create", "x", code=2).stderr
    assert not any("blobs" in route for route, _ in daemon.requests)


def test_a_draft_model_may_be_named_instead_of_sent(puna: Puna, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM smol\nDRAFT small:1b\nPARAMETER seed 4\n")
    daemon.routes["POST /api/create"] = lambda _: SUCCESS
    puna("create", "mine")
    assert daemon.asked("POST /api/create") == [
        {"model": "mine", "from": "smol", "parameters": {"seed": 4, "draft_model": "small:1b"}}
    ]
    (tmp_path / "Modelfile").write_text("FROM smol\nDRAFT ./small.gguf\n")
    assert "Error: Modelfile: (line 2): There is no file small.gguf." in puna("create", "mine", code=2).stderr
    (tmp_path / "Modelfile").write_text("FROM smol\nDRAFT small:1b\nPARAMETER draft_model other\n")
    assert "(line 2): DRAFT and PARAMETER draft_model" in puna("create", "mine", code=2).stderr


def test_a_modelfile_that_is_no_text_is_told(puna: Puna, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_bytes(b"FROM \xff")
    assert "Error: Modelfile: The Modelfile is not UTF-8 text (byte 5)." in puna("create", "mine", code=2).stderr
