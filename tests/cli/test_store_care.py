"""The commands about the store's health, as a user types them."""

from __future__ import annotations

import json

from tests.cli.conftest import Puna
from tests.cli.fake_daemon import FakeDaemon, Json, refusal

DIGEST = "sha256:" + "ab" * 32
PLAN: Json = {
    "model": "big:1",
    "dry_run": True,
    "files": [
        {
            "title": "big.gguf",
            "type": "application/vnd.ollama.image.model",
            "digest": DIGEST,
            "size": 9_600_000_000,
            "here": 3_100_000_000,
            "to_fetch": 6_500_000_000,
        },
        {
            "title": "LICENSE",
            "type": "application/vnd.ollama.image.license",
            "digest": None,
            "size": None,
            "here": 0,
            "to_fetch": None,
        },
    ],
    "size": 9_600_000_000,
    "to_fetch": 6_500_000_000,
    "disk": {"free": 5_000_000_000, "keep_free": 1_000_000_000, "fits": False},
    "memory": {"weights": 9_600_000_000, "fit": "no"},
}


def verified(*files: Json) -> list[Json]:
    damaged = [file for file in files if file["state"] != "sound"]
    return [
        {"status": "verifying abababababab", "digest": DIGEST, "total": 100, "completed": 100},
        {"status": "verified", "models": ["big:1"], "damaged": len(damaged), "files": list(files)},
    ]


def file(state: str, damaged: int = 0) -> Json:
    return {"digest": DIGEST, "size": 100_000_000, "state": state, "damaged_bytes": damaged, "models": ["big:1"]}


def test_a_dry_run_tells_what_would_be_fetched_and_whether_it_fits(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/pull"] = lambda _: PLAN
    shown = puna("pull", "big:1", "--dry-run")
    assert daemon.requests[-1] == ("POST /api/pull", {"model": "big:1", "dry_run": True, "stream": False})
    rows = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert rows == [
        "FILE KIND SIZE HERE TO FETCH",
        "big.gguf weights 9.6 GB 3.1 GB 6.5 GB",
        "LICENSE licence ? - ?",
        "",
        "Download: 6.5 GB to fetch, 3.1 GB are here; the size of some files is told only when they are fetched",
        "Disk: does not fit; 5 GB are free, of which 1 GB stay free",
        "Memory: 9.6 GB of weights, which does not fit into the memory of this machine",
    ]
    assert json.loads(puna("pull", "big:1", "--dry-run", "--json").stdout) == PLAN


def test_a_dry_run_tells_how_fast_a_model_could_be(puna: Puna, daemon: FakeDaemon) -> None:
    memory = {"weights": 9_600_000_000, "fit": "memory", "most_tokens_per_second": 4.16}
    daemon.routes["POST /api/pull"] = lambda _: PLAN | {"memory": memory}
    told = puna("pull", "big:1", "--dry-run").stdout.splitlines()[-1]
    assert told.startswith("Speed: at most 4.2 tokens a second")
    memory["most_tokens_per_second"] = 160.2
    assert "at most 160 tokens" in puna("pull", "big:1", "--dry-run").stdout


def test_a_dry_run_of_a_model_that_is_made_here_tells_so(puna: Puna, daemon: FakeDaemon) -> None:
    file = {"title": "model", "type": "x", "digest": DIGEST, "size": 46_000_000, "here": 0, "to_fetch": 91_000_000}
    plan = PLAN | {"files": [file], "size": 46_000_000, "to_fetch": 91_000_000}
    daemon.routes["POST /api/pull"] = lambda _: plan
    shown = puna("pull", "small", "--dry-run").stdout
    assert "Download: 91 MB to fetch, of which the model is made here\n" in shown


def test_json_of_a_real_pull_is_refused(puna: Puna, daemon: FakeDaemon) -> None:
    refused = puna("pull", "big:1", "--json", code=2)
    assert "--dry-run" in refused.stderr


def test_verify_is_silent_about_what_is_sound_and_fails_on_damage(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/verify"] = lambda _: verified(file("sound"))
    sound = puna("verify", "big:1")
    assert sound.stdout == "big:1: 1 file is sound\n"
    daemon.routes["POST /api/verify"] = lambda _: verified(file("damaged", 16_000_000))
    bad = puna("verify", "--all", code=1)
    assert daemon.requests[-1] == ("POST /api/verify", {"all": True})
    assert bad.stdout == "big:1: abababababab is damaged (16 MB of 100 MB)\n"
    assert "puna repair big:1" in bad.stderr
    assert json.loads(puna("verify", "big:1", "--json", code=1).stdout)["damaged"] == 1


def test_verify_wants_to_know_what(puna: Puna, daemon: FakeDaemon) -> None:
    puna("verify", code=2)
    puna("verify", "big:1", "--all", code=2)
    assert daemon.requests == []


def test_a_verification_that_breaks_off_is_told(puna: Puna, daemon: FakeDaemon) -> None:
    daemon.routes["POST /api/verify"] = lambda _: verified(file("sound"))[:1]
    puna("verify", "big:1", code=69)


def test_repair_tells_whether_there_was_anything_to_do(puna: Puna, daemon: FakeDaemon) -> None:
    success: Json = {"status": "success"}
    daemon.routes["POST /api/repair"] = lambda _: [*verified(file("damaged", 1)), success]
    assert puna("repair", "big:1").stdout == "repaired 'big:1'\n"
    daemon.routes["POST /api/repair"] = lambda _: [*verified(file("sound")), success]
    assert puna("repair", "big:1").stdout == "'big:1' is sound\n"
    daemon.routes["POST /api/repair"] = lambda _: refusal(500, "model_corrupt", "big:1 cannot be repaired.")
    puna("repair", "big:1", code=1)


def test_gc_shows_each_file_and_byte(puna: Puna, daemon: FakeDaemon) -> None:
    reply: Json = {
        "dry_run": True,
        "files": [{"path": "/m/blobs/x", "bytes": 12_345_678, "kind": "blob", "digest": DIGEST}],
        "bytes": 12_345_678,
        "too_young": {"files": 2, "bytes": 1000},
    }
    daemon.routes["POST /api/gc"] = lambda _: reply
    planned = puna("gc", "--dry-run")
    assert daemon.requests[-1] == ("POST /api/gc", {"dry_run": True})
    assert [" ".join(line.split()) for line in planned.stdout.splitlines()] == [
        "BYTES KIND FILE",
        "12345678 blob /m/blobs/x",
        "12345678 bytes (12 MB) would be freed",
    ]
    assert planned.stderr.startswith("Younger than an hour") and "kept: 2 files (1 KB)." in planned.stderr
    assert puna("gc").stdout.splitlines()[-1] == "12345678 bytes (12 MB) were freed"
    assert json.loads(puna("gc", "--json").stdout) == reply


def test_partials_are_listed_and_removed(puna: Puna, daemon: FakeDaemon) -> None:
    entry: Json = {
        "model": "big:1",
        "size": 9_600_000_000,
        "completed": 3_100_000_000,
        "age_seconds": 120,
        "active": False,
        "files": [{"title": "big.gguf", "digest": DIGEST, "size": 9_600_000_000, "completed": 1, "active": False}],
    }
    orphan = {**entry, "model": None, "size": None, "active": True}
    daemon.routes["GET /api/partials"] = lambda _: {"partials": [entry, orphan]}
    daemon.routes["DELETE /api/partials"] = lambda _: entry
    listed = puna("partials")
    assert [" ".join(line.split()) for line in listed.stdout.splitlines()] == [
        "NAME FETCHED SIZE STATE LAST USED",
        "big:1 3.1 GB 9.6 GB kept 2 minutes ago",
        f"{DIGEST} 3.1 GB ? downloading 2 minutes ago",
    ]
    assert "puna pull NAME" in listed.stderr
    assert len(json.loads(puna("partials", "--json").stdout)["partials"]) == 2
    assert puna("partials", "rm", "big:1").stdout == "removed 3.1 GB of 'big:1'\n"
    assert daemon.requests[-1] == ("DELETE /api/partials", {"partial": "big:1"})
    daemon.routes["DELETE /api/partials"] = lambda _: refusal(404, "model_not_found", "nothing is kept")
    puna("partials", "rm", "big:1", code=66)
