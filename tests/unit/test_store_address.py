"""A store's address: read from a URL, passed on as plain values, shown without its password."""

from __future__ import annotations

import json

import pytest

from mesh.errors import SetupError
from mesh.store.address import StoreAddress, TlsOptions


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
        ("http://u:secret@db", "begins with redis://, rediss://, redis+sentinel:// or rediss+sentinel://, not 'http'"),
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
