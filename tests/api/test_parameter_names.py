"""Errors of the API name the parameters of Python; commands to run stay as they are."""

from pathlib import Path

import pytest

import lookalike
from lookalike.api.parameter_names import replace_options
from lookalike.schema.errors import BadSettings, EncoderUnavailable


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("more than --max-removals 20%: --max-removals 6", "more than max_removals 20%: max_removals 6"),
        ("--uri 'x' is wrong", "uri 'x' is wrong"),
        ("pass --allow-private-urls, or send the file", "pass allow_private_urls=True, or send the file"),
        (
            "run it: lookalike reindex --uri ./x.db --encoder clip",
            "run it: lookalike reindex --uri ./x.db --encoder clip",
        ),
        (
            "lookalike reindex --encoder clip, or another --collection",
            "lookalike reindex --encoder clip, or another collection",
        ),
        (
            "ingest with --prune --prune-unreadable, or without --prune",
            "ingest with --prune --prune-unreadable, or without prune",
        ),
        ("start it with --num-cpus", "start it with --num-cpus"),
        ("a--uri and --uri-x and x-- stay", "a--uri and --uri-x and x-- stay"),
    ],
)
def test_options_become_parameters(message: str, expected: str) -> None:
    assert replace_options(message) == expected


def test_an_invalid_setting_is_named_as_a_parameter(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"^collection 'a b' "):
        lookalike.connect(tmp_path / "x.db", collection="a b")
    with lookalike.connect(tmp_path / "x.db", encoder="pixels") as shop, pytest.raises(BadSettings, match=r"^layout "):
        shop.ingest(tmp_path, layout="{oops}")
    with pytest.raises(EncoderUnavailable, match=r"(?<!-)device auto or cpu"):
        lookalike.load_encoder(device="warp")
