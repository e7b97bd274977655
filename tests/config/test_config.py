"""`lookalike config` shows what is in force, and from where."""

import json
from pathlib import Path
from typing import Any

from command import fails, lookalike


def read_config(folder: Path, *arguments: str, **environment: Any) -> dict[str, dict[str, Any]]:
    """The settings that a call prints, by name; of several with one name, the last."""
    done = lookalike("config", *arguments, "--format", "json", cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    return {setting["name"]: setting for setting in json.loads(done.stdout)["settings"]}


def test_each_setting_names_its_source(tmp_path: Path) -> None:
    (tmp_path / "lookalike.toml").write_text('collection = "shop"\n[serve]\nport = 8001\nuploads = "up"\n')
    (tmp_path / ".env").write_text("LOOKALIKE_HOST=::1\nMILVUS_URI=http://a:1\n")
    settings = read_config(tmp_path, "serve", LOOKALIKE_DEADLINE="5", LOOKALIKE_FETCH_URLS="1")
    assert {name: (row["value"], row["source"]) for name, row in settings.items() if row["source"] != "default"} == {
        "collection": ("shop", "lookalike.toml"),
        "deadline": (5.0, "environment LOOKALIKE_DEADLINE"),
        "fetch-urls": (True, "environment LOOKALIKE_FETCH_URLS"),
        "host": ("::1", ".env LOOKALIKE_HOST"),
        "port": (8001, "lookalike.toml [serve]"),
        "uploads": ("up", "lookalike.toml [serve]"),
        "uri": ("http://a:1", ".env MILVUS_URI"),
    }
    assert settings["max-body"]["value"] == 25
    assert settings["batch-size"] == {
        "name": "batch-size",
        "value": None,
        "source": "default",
        "variables": ["LOOKALIKE_BATCH_SIZE"],
        "default_text": "16; measured once on a GPU",
        "commands": ["serve"],
    }


def test_what_is_shown_is_what_the_commands_use(tmp_path: Path) -> None:
    (tmp_path / "lookalike.toml").write_text('collection = "top"\n[info]\ncollection = "table"\n')
    environments: list[dict[str, Any]] = [{}, {"LOOKALIKE_COLLECTION": "variable"}, {"LOOKALIKE_COLLECTION": ""}]
    for environment in environments:
        for command in ("info", "versions"):
            value = read_config(tmp_path, command, **environment)["collection"]["value"]
            assert f"no collection {value!r}" in fails(2, command, cwd=tmp_path, **environment)


def test_without_a_command_it_shows_shared_settings_and_what_is_not_at_its_default(tmp_path: Path) -> None:
    settings = read_config(tmp_path)
    assert {"collection", "uri", "token", "device", "cache"} <= set(settings)
    assert not {"host", "layout", "every"} & set(settings)
    assert read_config(tmp_path, LOOKALIKE_HOST="::1")["host"]["commands"] == ["serve"]
    (tmp_path / "lookalike.toml").write_text('[up]\ncollection = "mine"\n')
    store_commands = settings["collection"]["commands"]
    table = lookalike("config", cwd=tmp_path).stdout.decode()
    rows = [line.split() for line in table.splitlines() if line.startswith("collection")]
    assert rows == [
        ["collection", "products", "default", str(len(store_commands) - 1), "commands"],  # `up` has its own
        ["collection", "mine", "lookalike.toml", "[up]", "up"],
    ]


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    (tmp_path / "lookalike.toml").write_text('api-keys = "SECRET-1"\n[info]\ntoken = "SECRET-2"\n')
    (tmp_path / ".env").write_text("LOOKALIKE_TOKEN=SECRET-3\n")
    for arguments in ((), ("info",), ("info", "--format", "json"), ("--format", "json")):
        done = lookalike("config", *arguments, cwd=tmp_path, MILVUS_URI="http://root:SECRET-4@host:1")
        assert done.returncode == 0
        assert b"SECRET" not in done.stdout + done.stderr
        assert b"http://********@host:1" in done.stdout
    assert b"SECRET" not in lookalike("info", "--help", cwd=tmp_path).stdout


def test_a_value_that_cannot_be_used_names_its_variable(tmp_path: Path) -> None:
    message = fails(2, "config", cwd=tmp_path, LOOKALIKE_PORT="abc")
    assert "LOOKALIKE_PORT cannot be used for serve: 'abc' is not a valid" in message


def test_an_unknown_command_is_an_error(tmp_path: Path) -> None:
    assert "there is no command 'serch'; did you mean search?" in fails(2, "config", "serch", cwd=tmp_path)
