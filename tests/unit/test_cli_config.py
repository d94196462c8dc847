"""`mesh config show`: every setting, where it comes from, and no secret."""

from __future__ import annotations

import json
import os

import pytest

from mesh.cli import main
from mesh.config import SETTINGS

SECRET = "open-sesame"


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    for variable in [v for v in os.environ if v.startswith("MESH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)

    def show(*flags: str, code: int = 0) -> tuple[str, str]:
        assert main(["config", "show", *flags]) == code
        return capsys.readouterr()

    return show


def rows(out: str) -> dict[str, list[str]]:
    """Cells by setting; they are two blanks apart."""
    lines = [line.split("  ") for line in out.splitlines() if line]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_every_setting_is_a_row_with_value_origin_and_default(show, tmp_path, monkeypatch):
    (tmp_path / "mesh.toml").write_text("[mesh]\n# ours\nhandlers = 8\n")
    monkeypatch.setenv("MESH_PORT", "7500")
    out, err = show("--cache-bytes", "1048576", "--no-dashboard")
    table = rows(out)
    assert table.keys() >= SETTINGS.keys()
    assert table["handlers"] == ["8", "mesh.toml:3", "4"]
    assert table["port"] == ["7500", "MESH_PORT", "7400"]
    assert table["cache_bytes"] == ["1048576 = 1 MiB", "--cache-bytes", "536870912 = 512 MiB"]
    assert table["dashboard"] == ["no", "--dashboard", "yes"]
    assert table["partitions"] == ["unset", "default", "unset"]
    assert f"settings file: {tmp_path}/mesh.toml" in out
    assert "mesh.log" in out.splitlines()[-1]
    assert err == ""


def test_columns_stand_below_each_other(show):
    lines = [line for line in show()[0].splitlines() if "  default" in line and line[:4] != "name"]
    assert len(lines) > 20
    assert len({line.index("  default") for line in lines}) == 1


def test_json_has_the_same(show, tmp_path, monkeypatch):
    monkeypatch.setenv("MESH_LOG", "debug")
    told = json.loads(show("--json", "--handlers", "3")[0])
    assert told["file"] is None
    assert told["settings"].keys() == SETTINGS.keys()
    handlers = told["settings"]["handlers"]
    assert (handlers["value"], handlers["default"], handlers["from"]) == (3, 4, "--handlers")
    assert told["settings"]["log_level"]["from"] == "MESH_LOG"
    assert told["settings"]["timeout"]["about"].startswith("seconds")


def test_a_secret_only_tells_whether_and_where_it_is_set(show, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("MESH_TOKEN", SECRET)
    monkeypatch.setenv("MESH_STORE", f"redis://me:{SECRET}@db?password={SECRET}")
    for flags in ([], ["--json"]):
        out, err = show(*flags, "--store-password-file", "secret")
        assert SECRET not in out + err
        assert "set (MESH_TOKEN)" in out
        assert "set (--store-password-file)" in out
        assert "redis://***@db?password=***" in out
    assert rows(show()[0])["store_password"] == ["not set", "default", "not set"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_settings_that_cannot_stand_together_are_shown_and_then_refused(show, flags):
    out, err = show(*flags, "--handlers", "9", "--partitions", "8", code=1)
    assert "--partitions" in out
    assert err == (
        "mesh config: 9 handlers cannot share 8 partitions: lower --handlers or raise --partitions\n"
    )


def test_a_value_that_json_does_not_know_is_shown_and_then_refused(show, tmp_path):
    (tmp_path / "mesh.toml").write_text("[mesh]\nhandlers = 2020-01-01\n")
    out, err = show("--json", code=1)
    assert json.loads(out)["settings"]["handlers"]["value"] == "2020-01-01"
    assert "must be a whole number" in err


def test_what_is_seldom_meant_is_noted(show, monkeypatch):
    monkeypatch.setenv("MESH_HANDLER", "3")
    out, err = show()
    assert "did you mean MESH_HANDLERS?" in err
    assert "note" not in out
