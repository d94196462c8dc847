"""A store's address: read from a URL, passed on as plain values, shown without its password."""

from __future__ import annotations

import json

import pytest

from mesh.errors import SetupError
from mesh.store.address import Sentinels, StoreAddress, TlsOptions


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://db", StoreAddress((("db", 6379),))),
        ("redis://db:7000/3", StoreAddress((("db", 7000),), database=3)),
        ("redis://a:1,b:2,c/1", StoreAddress((("a", 1), ("b", 2), ("c", 6379)), database=1)),
        ("redis://:s%40crt@db", StoreAddress((("db", 6379),), password="s@crt")),
        (
            "redis://me:pw@a:1,b:2",
            StoreAddress((("a", 1), ("b", 2)), username="me", password="pw"),
        ),
        ("redis://[::1]:7000", StoreAddress((("::1", 7000),))),
        ("rediss://db", StoreAddress((("db", 6379),), tls=TlsOptions())),
        (
            (
                "rediss://db?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_cert_reqs=none"
                "&ssl_check_hostname=false"
            ),
            StoreAddress(
                (("db", 6379),),
                tls=TlsOptions("/ca", "/c", "/k", "none", check_hostname=False),
            ),
        ),
    ],
)
def test_urls(url, expected):
    assert StoreAddress.from_url(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://u:secret@db",
            "begins with redis://, rediss://, redis+sentinel:// or rediss+sentinel://, not 'http'",
        ),
        ("db:6379", "begins with redis"),
        ("redis://u:secret@db:port", "cannot be read"),
        ("redis://u:secret@db:99999", "cannot be read"),
        ("redis://u:secret@db/zero", "a database's number, not '/zero'"),
    ],
)
def test_what_is_no_store_url_is_refused_without_showing_its_password(url, said):
    with pytest.raises(SetupError) as caught:
        StoreAddress.from_url(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mesh", ["", "a}b", "a{b", "a b", "x" * 65, "é"])
def test_a_mesh_name_keeps_its_keys_in_one_slot(mesh):
    with pytest.raises(SetupError, match="mesh name"):
        StoreAddress((("db", 1),), mesh)


def test_no_node_is_no_address():
    with pytest.raises(SetupError, match="names no node"):
        StoreAddress(())


def test_keys_of_a_mesh_share_a_hash_tag():
    assert StoreAddress((("db", 1),), "shop").prefix == b"raymesh:{shop/0}:"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+sentinel://s/m", StoreAddress((), sentinels=Sentinels((("s", 26379),), "m"))),
        (
            "redis+sentinel://me:p%40w@a:1,[::1]:2/my-master/3",
            StoreAddress(
                (),
                username="me",
                password="p@w",
                database=3,
                sentinels=Sentinels((("a", 1), ("::1", 2)), "my-master"),
            ),
        ),
        (
            "rediss+sentinel://a:1/m?ssl_cert_reqs=none&sentinel_username=s&sentinel_password=q",
            StoreAddress(
                (),
                tls=TlsOptions(verify="none"),
                sentinels=Sentinels((("a", 1),), "m", "s", "q"),
            ),
        ),
    ],
)
def test_urls_that_name_sentinels(url, expected):
    assert StoreAddress.from_url(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://u:secret@a:1", "names the master that is watched"),
        ("redis+sentinel://u:secret@a:1/", "names the master that is watched"),
        ("redis+sentinel://u:secret@a:1/m/zero", "ends with a database's number, not '/m/zero'"),
        ("redis+sentinel://u:secret@a:x/m", "cannot be read"),
        ("sentinel://u:secret@a/m", "begins with redis://"),
        ("redis://u:sec/secret@db", "are written %2F"),
        ("redis://u:sec?secret@db", "are written %2F"),
        ("redis://u:sec#secret@db", "are written %2F"),
        ("redis://[u:secret@db", "cannot be read"),
        ("redis://u:secret", "is no port"),
    ],
)
def test_a_mistake_in_a_url_is_told_without_any_part_of_its_password(url, said):
    with pytest.raises(SetupError) as caught:
        StoreAddress.from_url(url)
    assert said in str(caught.value)
    assert "sec" not in str(caught.value).replace("seconds", "")


def test_a_password_may_come_beside_the_url_but_not_twice():
    assert StoreAddress.from_url("redis://me@db", password="pw").password == "pw"
    assert StoreAddress.from_url("redis://me@db", password="pw").username == "me"
    with pytest.raises(SetupError, match="stands both in its URL and in store_password") as caught:
        StoreAddress.from_url("redis://me:hunter2@db", password="hunter3")
    assert "hunter" not in str(caught.value)


def test_an_address_by_sentinels_shows_them_and_no_password():
    url = "rediss+sentinel://me:hunter2@a:1,b:2/m/4?sentinel_password=hunter3"
    address = StoreAddress.from_url(url)
    assert str(address) == "rediss+sentinel://a:1,b:2/m/4"
    assert "hunter" not in repr(address)
    assert StoreAddress.from_dict(json.loads(json.dumps(address.as_dict()))) == address


def test_it_passes_through_json_to_another_process():
    address = StoreAddress(
        (("a", 1), ("b", 2)), "shop", "me", "pw", 2, TlsOptions(ca_file="/ca.pem")
    )
    assert StoreAddress.from_dict(json.loads(json.dumps(address.as_dict()))) == address


def test_neither_repr_nor_str_shows_the_password():
    address = StoreAddress.from_url("rediss://me:hunter2@a:1,[::1]:2/4")
    assert "hunter2" not in repr(address)
    assert str(address) == "rediss://a:1,[::1]:2/4"


def test_verification_is_on_unless_switched_off():
    assert TlsOptions().context().check_hostname
    context = TlsOptions(verify="none").context()
    assert not context.check_hostname
