"""Settings from `lookalike.toml` and `pyproject.toml`."""

import os
from pathlib import Path
from typing import Any

import pytest
from command import LAYOUT, fails, lookalike, lookalike_process
from PIL import Image

NO_SHOP = "no collection 'shop'"


def write(folder: Path, text: str, name: str = "lookalike.toml") -> None:
    (folder / name).write_text(text)


def test_a_settings_file_gives_the_options_of_a_run(tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "mug" / "m1"
    photos.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(photos / "1.png")
    layout = LAYOUT[1].replace("category", "kind")
    write(tmp_path, f'collection = "shop"\n[ingest]\nlayout = "{layout}"\nencoder = "pixels"\nno_progress = true\n')
    assert lookalike("ingest", "photos", cwd=tmp_path).returncode == 0
    info = lookalike("info", cwd=tmp_path).stdout
    assert b"shop at ./lookalike.db: 1 images" in info
    assert b"kind" in info
    assert b"encoder pixels" in info


def test_the_command_line_beats_the_environment_beats_env_files_beats_the_settings_file(tmp_path: Path) -> None:
    write(tmp_path, 'collection = "top"\n')
    assert "no collection 'top'" in fails(2, "info", cwd=tmp_path)
    write(tmp_path, 'collection = "top"\n[info]\ncollection = "table"\n')
    assert "no collection 'table'" in fails(2, "info", cwd=tmp_path)
    assert "no collection 'top'" in fails(2, "versions", cwd=tmp_path)
    write(tmp_path, "LOOKALIKE_COLLECTION=env_file", ".env")
    assert "no collection 'env_file'" in fails(2, "info", cwd=tmp_path)
    environment: dict[str, Any] = {"LOOKALIKE_COLLECTION": "environment"}
    assert "no collection 'environment'" in fails(2, "info", cwd=tmp_path, **environment)
    assert "no collection 'option'" in fails(2, "info", "-c", "option", cwd=tmp_path, **environment)


def test_settings_may_be_in_pyproject(tmp_path: Path) -> None:
    write(tmp_path, '[project]\nname = "x"\n[tool.lookalike.info]\ncollection = "shop"\n', "pyproject.toml")
    assert NO_SHOP in fails(2, "info", cwd=tmp_path)
    write(tmp_path, '[tool.lookalike.info]\nport = "x"\n', "pyproject.toml")
    assert "pyproject.toml [tool.lookalike.info]: 'port' is not a setting of info" in fails(2, "info", cwd=tmp_path)
    write(tmp_path, "")
    assert "both have settings; keep one" in fails(2, "info", cwd=tmp_path)


@pytest.mark.parametrize("text", ["[tool.other]\nx = 1\n", "not TOML at all", '[project]\nname = "lookalike-shop"\n'])
def test_a_pyproject_of_something_else_does_not_matter(tmp_path: Path, text: str) -> None:
    write(tmp_path, text, "pyproject.toml")
    assert lookalike("config", cwd=tmp_path).stdout.startswith(b"settings file: none")


def test_another_file_is_named_by_an_option_or_a_variable(tmp_path: Path) -> None:
    write(tmp_path, 'collection = "shop"', "other.toml")
    assert NO_SHOP in fails(2, "--config", "other.toml", "info", cwd=tmp_path)
    assert NO_SHOP in fails(2, "info", cwd=tmp_path, LOOKALIKE_CONFIG="other.toml")
    write(tmp_path, "LOOKALIKE_CONFIG=other.toml", ".env")
    assert NO_SHOP in fails(2, "info", cwd=tmp_path)
    assert "'no.toml' cannot be read" in fails(2, "--config", "no.toml", "info", cwd=tmp_path)
    write(tmp_path, "", "pyproject.toml")
    assert "no table [tool.lookalike]" in fails(2, "--config", "pyproject.toml", "info", cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('colection = "a"', "lookalike.toml: there is no setting 'colection'; did you mean collection?"),
        ("xyzzy = 1", "there is no setting 'xyzzy'; there are allow-private-urls, api, api-keys,"),
        ("[serch]", "lookalike.toml [serch]: there is no command 'serch'; did you mean search?"),
        ("[tool.lookalike]", "no command 'tool'; name a table for a command, such as [ingest]"),
        ("[ingest]\nport = 1", "lookalike.toml [ingest]: 'port' is not a setting of ingest, but of serve, up"),
        ("[ingest]\nlayuot = 'a'", "there is no setting 'layuot' of ingest; did you mean layout?"),
        ("[sample]\nxyzzy = 1", "no setting 'xyzzy' of sample; it has none"),
        ("[search]\nlimit = 3", "limit cannot be set in a file, since each call is about something else"),
        ("[ingest]\nsource = 'a'", "source cannot be set in a file"),
        ("[reindex]\nencoder = 'clip'", "encoder cannot be set in a file"),
        ("[ingest]\nprune = true", "prune cannot be set in a file"),
        ("dry_run = true", "dry-run cannot be set in a file"),
        ("max-pixels = 1\nmax_pixels = 2", "max-pixels is set twice"),
        ("ingest = 'a'", "ingest is a command; write its settings below a line [ingest]"),
        ("[serve]\napi-keys = 'a'", "api-keys is for all commands; write it at the top"),
        ("[serve]\nport = 'a'", "lookalike.toml [serve]: port has to be a whole number, not 'a'"),
        ("[serve]\nport = 8000.5", "port has to be a whole number, not 8000.5"),
        ("[serve]\nport = true", "port has to be a whole number, not True"),
        ("[serve]\nport = 70000", "port cannot be used for serve: 70000 is not in the range"),
        ("[serve]\nport = {a = 1}", "port has to be a whole number, not {'a': 1}"),
        ("[serve]\ndeadline = '3'", "deadline has to be a number, not '3'"),
        ("[serve]\nfetch-urls = 'yes'", "fetch-urls has to be true or false, not 'yes'"),
        ("[serve]\nfetch-urls = 1", "fetch-urls has to be true or false, not 1"),
        ("[ingest]\nfield = 'a:float'", "field has to be a list of texts, not 'a:float'"),
        ("[ingest]\nfield = [1]", "field has to be a list of texts, not [1]"),
        ("collection = ['a']", "collection has to be text in quotes, not ['a']"),
        ("token = 1.5", "token has to be text in quotes, not this value"),
        ("cache = 3", "cache has to be text in quotes"),
        ('api-keys = "\\u0000"', "api-keys has to be text in quotes"),
        (
            "engine = 'ray'",
            "not one of 'auto', 'torch', 'onnx', 'compile'; correct it, or write it below the [command]",
        ),
        ("collection = [a]", "the settings file 'lookalike.toml' is not valid TOML: Invalid value (at line 1"),
        ("collection = " + "[" * 100_000, "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_settings_file_is_an_error_whichever_command_runs(
    tmp_path: Path, text: str, message: str
) -> None:
    write(tmp_path, text)
    assert message in fails(2, "encoders", cwd=tmp_path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lookalike.toml").symlink_to("nowhere")
    assert "'lookalike.toml' cannot be read: No such file" in fails(2, "encoders", cwd=tmp_path)
    (tmp_path / "lookalike.toml").unlink()
    (tmp_path / "lookalike.toml").write_bytes(b'collection = "\xff"')
    assert "'lookalike.toml' is not UTF-8" in fails(2, "encoders", cwd=tmp_path)
    (tmp_path / "lookalike.toml").write_bytes(b'\xef\xbb\xbfcollection = "shop"')
    assert NO_SHOP in fails(2, "info", cwd=tmp_path)


def test_help_works_with_a_settings_file_that_has_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, "xyzzy = 1")
    done = lookalike("info", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert b"--collection" in done.stdout
    assert b"Warning: lookalike.toml: there is no setting 'xyzzy'" in done.stderr
    assert lookalike("info", "--collection", "-h", cwd=tmp_path).stdout == done.stdout


def test_api_keys_of_the_settings_file_protect_the_service(tmp_path: Path) -> None:
    write(tmp_path, 'api-keys = "short"')
    message = fails(2, "serve", "--host", "0.0.0.0", cwd=tmp_path, run=lookalike_process)
    assert "a key of 5 characters" in message
    assert "a key of 9 characters" in fails(2, "serve", cwd=tmp_path, LOOKALIKE_API_KEYS="even_less")
    assert "LOOKALIKE_API_KEYS" not in os.environ
