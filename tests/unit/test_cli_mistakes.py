"""A user's mistake on the command line is one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import tempfile

import pytest

from mesh.cli import COMMANDS, main

SECRET = "open-sesame"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty folder and no variables of a mesh."""
    for variable in [v for v in os.environ if v.startswith("MESH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run `mesh`; its exit code, and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert SECRET not in out + err
        return code, out, err

    return run


@pytest.mark.parametrize("command", [*COMMANDS, "config show"])
def test_every_command_has_help_that_fits_a_terminal(run, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert f"usage: mesh {command}" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_first_help_lists_every_command_and_the_exit_codes(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert "Exit codes: 0 done, 1 failed" in out


def test_help_shows_defaults_with_units_and_names_the_other_sources(run):
    _, out, _ = run("up", "--help")
    words = " ".join(out.split())
    assert "number of handler processes (default: 4)" in words
    assert "(default: 536870912 = 512 MiB)" in words
    assert "seconds that one write waits for the replicas" in words
    assert "MESH_HANDLERS=4" in words
    assert "--store-password " not in words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["nope"], "invalid choice: 'nope'"),
        (["config"], "required: ACTION"),
        (["config", "shew"], "invalid choice: 'shew'"),
        (["up", "--handlers", "many"], "--handlers: must be a whole number, not 'many'"),
        (["up", "--handlers"], "--handlers: expected one argument"),
        (["up", "--hello-s", "soon"], "--hello-s: must be a number of seconds, not 'soon'"),
        (["up", "--handler", "4"], "unrecognized arguments: --handler 4"),
        (["call", "KV.get"], "required: KEY"),
        (["call", "KV.get", "k", "--timeout", "1s"], "must be a number of seconds, not '1s'"),
        (["keys"], "required: ENTITY"),
        (["keys", "KV", "--limit", "some"], "--limit: a whole number from 1 on, not 'some'"),
        (["demo", "--kills", "x"], "invalid int value: 'x'"),
        (["down", "x"], "unrecognized arguments: x"),
        (["up", "--token", SECRET], "--token is refused"),
        (["up", f"--token={SECRET}"], "a file that MESH_TOKEN_FILE or --token-file names"),
        (["up", "--store-password", SECRET], "into MESH_STORE_PASSWORD, or into a file"),
        (["status", "--token", SECRET], "--token is refused"),
    ],
)
def test_arguments_that_are_none_are_a_usage_error(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: mesh")
    assert said in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--handlers", "0"], "--handlers must be 1 to 1000, not 0"),
        (["up", "--handlers", "9", "--partitions", "8"], "lower --handlers or raise --partitions"),
        (
            ["up", "--store-wait-s", "9"],
            "store_reply_s (default) (2 s) must be above --store-wait-s",
        ),
        (["up", "--log-level", "loud"], "--log-level 'loud': choose debug, info, warning or error"),
        (["up", "--durability", "maybe"], "choose auto, replicated, fsynced or process"),
        (["up", "--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (["up", "--ray", "nearby"], "--ray 'nearby': write local, auto or HOST:PORT"),
        (["up", "--ray", "ray://head:10001"], "is Ray Client's address"),
        (["up", "--config", "nowhere"], "nowhere: cannot be read: No such file"),
        (["up", "--token-file", "nowhere"], "--token-file: nowhere cannot be read: No such file"),
        (["up", "--store", f"redis://:{SECRET}@db"], "--store holds a password"),
        (["up", "--log-file", "/proc/x/mesh.log"], "the log /proc/x/mesh.log cannot be written"),
        (["status"], "no mesh named 'default' runs on this machine"),
        (["status", "--name", "x"], "no mesh named 'x' runs on this machine"),
        (["events"], "no mesh named 'default' runs"),
        (["down"], "no mesh named 'default' runs"),
        (["call", "KV.get", "k"], "no mesh named 'default' runs"),
        (["keys", "KV"], "no mesh named 'default' runs"),
        (["call", "KV.get", "k", "--timeout", "0"], "--timeout must be 0.001 to 86400 s, not 0.0"),
        (["down", "--config", "nowhere"], "nowhere: cannot be read"),
        (["config", "show", "--config", "nowhere"], "nowhere: cannot be read"),
        (["demo", "--kills", "0"], "--kills must be 1 or more"),
        (["demo", "--handlers", "1"], "somebody has to survive"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    [line] = err.splitlines()
    assert line.startswith(f"mesh {arguments[0]}: ")
    assert said in line


@pytest.mark.parametrize("command", ["up", "down", "status", "events", "call KV.get k"])
def test_a_mistake_in_mesh_toml_stops_every_command(run, empty, command):
    (empty / "mesh.toml").write_text("[mesh]\nhandler = 4\n")
    code, _, err = run(*command.split())
    assert code == 1
    assert "mesh.toml:2: unknown setting 'handler'; did you mean 'handlers'?" in err


def test_the_name_in_mesh_toml_is_the_mesh_that_other_commands_mean(run, empty, monkeypatch):
    (empty / "mesh.toml").write_text('[mesh]\nname = "shop"\n')
    assert "no mesh named 'shop'" in run("status")[2]
    monkeypatch.setenv("MESH_NAME", "bank")
    assert "no mesh named 'bank'" in run("status")[2]
    assert "no mesh named 'x'" in run("status", "--name", "x")[2]
