"""Which mesh a client means: the order of arguments, environment and this machine; what is refused."""

from __future__ import annotations

import tempfile

import pytest

from mesh.client.endpoints import Target, locate
from mesh.errors import BadRequest, Unavailable
from mesh.rundir import RunDir


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No variable is set, and no mesh runs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for variable in ("MESH_ENDPOINTS", "MESH_NAME", "MESH_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def run():
    """Have a mesh run on this machine."""
    held: list[RunDir] = []

    def start(name: str, **state: object) -> None:
        held.append(RunDir.take(name))
        if state:
            held[-1].write({"name": name, **state})

    yield start
    for folder in held:
        folder.remove()


def test_endpoints_come_one_by_one_or_with_commas_and_each_counts_once():
    target = locate(["a:1, b:2", "a:1", " [::1]:3 "], None, "")
    assert target == Target(("a:1", "b:2", "[::1]:3"))


def test_what_is_given_wins_over_the_environment_and_that_over_this_machine(run, monkeypatch):
    run("default", endpoints=["local:1"], token="left")
    assert locate([], None, "") == Target(("local:1",), "left", "default")
    monkeypatch.setenv("MESH_ENDPOINTS", "variable:1, variable:2")
    assert locate([], None, "") == Target(("variable:1", "variable:2"))
    assert locate(["given:1"], None, "") == Target(("given:1",))


def test_a_token_comes_from_the_argument_the_environment_or_the_local_mesh(run, monkeypatch):
    run("default", endpoints=["local:1"], token="left")
    monkeypatch.setenv("MESH_TOKEN", "variable")
    assert locate([], "given", "").token == "given"
    assert locate([], None, "").token == "variable"
    assert locate(["a:1"], None, "").token == "variable"
    assert locate([], "", "").token == ""


def test_a_token_is_not_shown():
    assert "secret" not in repr(locate(["a:1"], "secret", ""))


def test_the_name_chooses_among_the_meshes_of_this_machine(run, monkeypatch):
    run("default", endpoints=["local:1"])
    run("other", endpoints=["local:2"])
    assert locate([], None, "other") == Target(("local:2",), "", "other")
    monkeypatch.setenv("MESH_NAME", "other")
    assert locate([], None, "") == Target(("local:2",), "", "other")
    assert locate(["given:1"], None, "") == Target(("given:1",))


def test_without_any_mesh_the_error_says_what_to_do():
    with pytest.raises(Unavailable) as caught:
        locate([], None, "")
    says = str(caught.value)
    assert "no mesh named 'default' runs on this machine; start one with: mesh up;" in says
    assert 'such as "127.0.0.1:7400"' in says
    assert "MESH_ENDPOINTS" in says
    with pytest.raises(Unavailable, match="mesh up --name other;"):
        locate([], None, "other")


def test_a_mesh_that_is_still_starting_is_told_from_one_that_is_not_there(run):
    run("default")
    with pytest.raises(Unavailable, match="'default' is still starting; try again"):
        locate([], None, "")


def test_an_endpoint_that_was_given_and_is_empty_does_not_mean_the_local_mesh(run, monkeypatch):
    run("default", endpoints=["local:1"])
    with pytest.raises(BadRequest, match="name at least one endpoint"):
        locate([""], None, "")
    monkeypatch.setenv("MESH_ENDPOINTS", " ")  # set to nothing is not set
    assert locate([], None, "").addresses == ("local:1",)


def test_a_variable_that_is_wrong_is_named(monkeypatch):
    monkeypatch.setenv("MESH_ENDPOINTS", "nowhere")
    with pytest.raises(BadRequest, match="endpoint 'nowhere' in MESH_ENDPOINTS is not"):
        locate([], None, "")
    monkeypatch.setenv("MESH_ENDPOINTS", ",")
    with pytest.raises(BadRequest, match="MESH_ENDPOINTS: name at least one endpoint"):
        locate([], None, "")
