"""Settings in layers: which source wins, where each value came from, and what a mistake is called."""

from __future__ import annotations

import pytest

from mesh.config import SETTINGS, MeshConfig
from mesh.config_sources import Layers, gather
from mesh.errors import SetupError

SECRET = "open-sesame"


@pytest.fixture
def read(tmp_path):
    """Gather from a mesh.toml of this text, these variables and these flags."""

    def read(toml: str | None = None, *, flags=None, file=None, **variables: str) -> Layers:
        if toml is not None:
            (tmp_path / "mesh.toml").write_text(toml)
            (tmp_path / "mesh.toml").chmod(0o600)
        return gather(flags or {}, variables, folder=tmp_path, file=file)

    return read


def refused(call, *args, **kwargs) -> str:
    with pytest.raises(SetupError) as caught:
        call(*args, **kwargs)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ order


def test_without_any_source_it_is_the_default(read):
    layers = read()
    assert layers.config() == MeshConfig()
    assert layers.file is None
    assert {layers.origin(name) for name in SETTINGS} == {"default"}


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(read):
    toml = "[mesh]\nhandlers = 5\npartitions = 50\nport = 5000\n"
    layers = read(toml, flags={"handlers": 7}, MESH_HANDLERS="6", MESH_PARTITIONS="60")
    config = layers.config()
    assert (config.handlers, config.partitions, config.port, config.ray) == (7, 60, 5000, "local")
    names = ("handlers", "partitions", "port", "ray")
    assert [layers.origin(n) for n in names] == [
        "--handlers",
        "MESH_PARTITIONS",
        "mesh.toml:4",
        "default",
    ]


def test_a_variable_that_is_empty_counts_as_not_set(read):
    assert read(MESH_HANDLERS="", MESH_CONFIG="", MESH_TOKEN_FILE="").config() == MeshConfig()


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("Yes", True), ("on", True), ("FALSE", False), ("0", False)]
)
def test_yes_and_no_are_read_in_the_usual_ways(read, text, value):
    assert read(MESH_DASHBOARD=text).config().dashboard is value


def test_the_log_level_has_a_short_variable(read):
    layers = read(MESH_LOG="debug")
    assert (layers.config().log_level, layers.origin("log_level")) == ("debug", "MESH_LOG")


def test_another_file_is_taken_where_it_is_named_and_by_the_flag_first(read, tmp_path):
    (tmp_path / "one.toml").write_text("[mesh]\nhandlers = 1\n")
    (tmp_path / "two.toml").write_text("[mesh]\nhandlers = 2\n")
    assert read("[mesh]\nhandlers = 3", MESH_CONFIG="one.toml").config().handlers == 1
    layers = read(file="two.toml", MESH_CONFIG="one.toml")
    assert (layers.config().handlers, layers.origin("handlers")) == (2, "two.toml:2")


# ------------------------------------------------------------------------------------------- mesh.toml


def test_lines_are_those_of_the_mesh_table_whatever_stands_around(read):
    layers = read('# port = 1\n\n[ mesh ]  # [x]\n\n  "handlers"=5\n# port = 2\nport = 3\n')
    assert layers.origin("handlers") == "mesh.toml:5"
    assert layers.origin("port") == "mesh.toml:7"


def test_a_key_whose_line_is_not_found_is_told_by_the_file(read):
    assert read("mesh = {handlers = 5}").origin("handlers") == "mesh.toml"


def test_several_applications_are_a_list(read):
    assert read('[mesh]\napp = ["a:B", "c"]').config().app == "a:B;c"


def test_paths_in_the_file_are_seen_from_the_file(read, tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "m.toml").write_text('[mesh]\ndata_dir = "d"\nlog_file = "/l"\ntoken_file = "t"\n')
    (folder / "t").write_text(f"{SECRET}\n")
    config = read(file="etc/m.toml").config()
    assert (config.data_dir, config.log_file) == (str(folder / "d"), "/l")
    assert config.token == SECRET


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            "[mesh]\n\nhandler = 4",
            "mesh.toml:3: unknown setting 'handler'; did you mean 'handlers'?",
        ),
        ("[mesh]\ntokn_file = 'x'", "did you mean 'token_file'?"),
        (
            "[mesh]\nzzz = 4",
            "mesh.toml:2: unknown setting 'zzz'; `mesh config show` lists them all",
        ),
        ("handlers = 4", "mesh.toml:1: 'handlers' stands outside of the table: put [mesh]"),
        ("zzz = 4", "mesh.toml:1: unknown setting 'zzz'; every setting stands in the table [mesh]"),
        ("[mesh]\n[store]\na = 1", "mesh.toml:2: unknown table 'store'"),
        ("mesh = 4", "mesh must be a table"),
        ("[[mesh]]\nhandlers = 4", "mesh must be a table"),
        ("[mesh]\nhandlers == 4", "is not TOML: Invalid value (at line 2, column 11)"),
    ],
)
def test_what_no_setting_is_called_is_told_by_file_line_and_the_nearest_name(read, toml, said):
    assert said in refused(read, toml)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("handlers = '4'", "handlers (mesh.toml:2) must be a whole number, not '4'"),
        ("handlers = 0", "handlers (mesh.toml:2) must be 1 to 1000, not 0"),
        (
            "handlers = 2020-01-01",
            "handlers (mesh.toml:2) must be a whole number, not datetime.date",
        ),
        ("dashboard = 'no'", "dashboard (mesh.toml:2) must be true or false"),
        ("timeout = true", "timeout (mesh.toml:2) must be a number of seconds, not True"),
        ("app = [1]", "app (mesh.toml:2) must be a text, not [1]"),
        ("data_dir = 4", "data_dir (mesh.toml:2) must be a text, not 4"),
        ("name = 'a/b'", "mesh name 'a/b': use 1 to 64"),
        ("partitions = 3", "lower handlers (default) or raise partitions (mesh.toml:2)"),
        (f"token = ['{SECRET}']", "token (mesh.toml:2) must be a text, not list"),
    ],
)
def test_a_wrong_value_in_the_file_is_told_by_its_line(read, toml, said):
    assert said in refused(read(f"[mesh]\n{toml}").config)


def test_a_named_file_that_cannot_be_read_is_an_error(read, tmp_path):
    assert "nowhere.toml: cannot be read: No such file" in refused(read, file="nowhere.toml")
    assert "nowhere.toml: cannot be read: No such" in refused(read, MESH_CONFIG="nowhere.toml")
    assert "cannot be read: Is a directory" in refused(read, file=str(tmp_path))
    (tmp_path / "binary").write_bytes(b"[mesh]\n\xff")
    assert "binary: is not UTF-8 at byte 7" in refused(read, file="binary")


# ----------------------------------------------------------------------------------------- environment


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MESH_HANDLERS": "many"}, "MESH_HANDLERS must be a whole number, not 'many'"),
        ({"MESH_TIMEOUT": "1s"}, "MESH_TIMEOUT must be a number of seconds, not '1s'"),
        ({"MESH_DASHBOARD": "maybe"}, "MESH_DASHBOARD must be true or false, not 'maybe'"),
        ({"MESH_PORT": "tcp://10.0.0.1:7400"}, "set enableServiceLinks: false"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(read, variables, said):
    assert said in refused(read, **variables)


def test_a_wrong_value_is_told_by_its_variable_and_what_it_contradicts(read):
    layers = read("[mesh]\npartitions = 8", MESH_HANDLERS="9")
    assert "lower MESH_HANDLERS or raise partitions (mesh.toml:2)" in refused(layers.config)
    assert "MESH_HANDLERS must be 1 to 1000" in refused(read(MESH_HANDLERS="0").config)


def test_a_variable_that_is_nearly_a_setting_is_noted_and_a_strangers_is_not(read):
    layers = read(MESH_HANDLER="3", MESH_SERVICE_HOST="10.0.0.1", MESH_ENDPOINTS="a:1")
    assert layers.notes == (
        "MESH_HANDLER is not a setting and is ignored; did you mean MESH_HANDLERS?",
    )


# --------------------------------------------------------------------------------------------- secrets


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"  {SECRET}\n\n")
    return str(path)


def test_a_secret_comes_from_the_environment_or_from_a_file_that_is_named(read, secret_file):
    for layers in (
        read(MESH_TOKEN=SECRET, MESH_STORE_PASSWORD=SECRET),
        read(MESH_TOKEN_FILE=secret_file, MESH_STORE_PASSWORD_FILE=secret_file),
        read(flags={"token_file": secret_file, "store_password_file": secret_file}),
        read(f"[mesh]\ntoken = '{SECRET}'\nstore_password = '{SECRET}'"),
        read(f"[mesh]\ntoken_file = '{secret_file}'\nstore_password_file = '{secret_file}'"),
    ):
        config = layers.config()
        assert (config.token, config.store_password) == (SECRET, SECRET)
        assert SECRET not in str(layers.shown())


def test_a_higher_source_of_a_secret_wins_in_whatever_form(read, secret_file):
    toml = f"[mesh]\ntoken_file = '{secret_file}'"
    assert read(toml, MESH_TOKEN="other").config().token == "other"
    layers = read(flags={"token_file": secret_file}, MESH_TOKEN="other")
    assert (layers.config().token, layers.origin("token")) == (SECRET, "--token-file")


def test_a_secret_given_twice_in_one_place_is_refused(read, secret_file):
    said = refused(read, MESH_TOKEN=SECRET, MESH_TOKEN_FILE=secret_file)
    assert said == "MESH_TOKEN and MESH_TOKEN_FILE both give the token: keep one of them"
    said = refused(read, f"[mesh]\ntoken = '{SECRET}'\ntoken_file = '{secret_file}'")
    assert "mesh.toml:2 and mesh.toml:3 both give the token" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b" \n", "is empty"),
        (f"{SECRET}\n{SECRET}".encode(), "holds more than one line"),
        (b"\xff" + SECRET.encode(), "is not text"),
    ],
)
def test_a_secrets_file_that_holds_none_is_told_by_where_it_was_named(
    read, tmp_path, content, said
):
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    layers = read(MESH_TOKEN_FILE=str(tmp_path / "s"))
    told = refused(layers.config)
    assert told.startswith(f"MESH_TOKEN_FILE: {tmp_path / 's'} ")
    assert said in told


def test_a_secrets_file_is_not_opened_by_who_does_not_need_it(read):
    layers = read(MESH_TOKEN_FILE="/nowhere", MESH_NAME="shop")
    assert layers.value("name") == "shop"
    assert {s.name: s.value for s in layers.shown()}["token"] == "set (MESH_TOKEN_FILE)"


@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@db", f"redis+sentinel://a/m?sentinel_password={SECRET}"]
)
def test_a_password_in_the_store_is_refused_as_a_flag_and_taken_from_elsewhere(read, url):
    said = refused(read, flags={"store": url})
    assert "--store holds a password" in said
    assert "MESH_STORE" in said and "MESH_STORE_PASSWORD_FILE" in said
    for layers in (read(MESH_STORE=url), read(f"[mesh]\nstore = '{url}'")):
        assert layers.config().store == url
        assert SECRET not in str(layers.shown())
    assert read(flags={"store": "redis://me@db"}).config().store == "redis://me@db"


@pytest.mark.parametrize("line", [f"token = '{SECRET}'", f"store = 'redis://:{SECRET}@db'"])
def test_a_secret_in_a_file_that_others_read_is_noted(read, tmp_path, line):
    assert read(f"[mesh]\n{line}").notes == ()
    (tmp_path / "mesh.toml").chmod(0o644)
    [note] = read().notes
    assert note.startswith("mesh.toml:2 holds a secret")
    assert "chmod 600" in note


def test_who_overrides_the_file_is_told_from_the_file(read):
    assert read(MESH_TOKEN=SECRET).overrides("token")
    assert not read(f"[mesh]\ntoken = '{SECRET}'").overrides("token")
    assert not read("").overrides("token")
