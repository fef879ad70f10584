"""Keys: found by their hash, never shown, never guessed."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UnknownKey
from gateway.policy.policy import Policy
from gateway.tenants.tenants import Tenant, Tenants, bearer, hashed, new_key, weakness

PEPPER = b"p" * 32
SHOP = Tenant("shop", Policy("shop", "0"), frozenset({"demo"}))


def test_a_key_leads_to_its_tenant_and_to_no_other() -> None:
    keys = {new_key(): Tenant(f"t{n}", Policy("p", "0"), frozenset()) for n in range(200)}
    tenants = Tenants({hashed(key, PEPPER): tenant for key, tenant in keys.items()}, PEPPER)
    assert all(tenants.find(key) is tenant for key, tenant in keys.items())
    assert sorted(tenant.id for tenant in tenants) == sorted(f"t{n}" for n in range(200))


def test_an_unknown_key_is_refused_in_the_same_words_and_never_repeated() -> None:
    key = new_key()
    tenants = Tenants({hashed(key, PEPPER): SHOP}, PEPPER)
    words = set()
    for wrong in ("", key[:-1], key + "a", key.upper(), hashed(key, PEPPER), "sk-test", "钥匙", "\ud800"):
        with pytest.raises(UnknownKey) as caught:
            tenants.find(wrong)
        words.add(caught.value.message)
        assert caught.value.status == 401
    assert words == {"The API key is not known here."}


def test_a_hash_is_no_key_and_changes_with_the_pepper() -> None:
    key = new_key()
    assert hashed(key, PEPPER) != hashed(key, b"q" * 32)
    with pytest.raises(UnknownKey):
        Tenants({hashed(key, PEPPER): SHOP}, b"q" * 32).find(key)


def test_a_tenant_with_two_keys_is_one_tenant() -> None:
    tenants = Tenants({hashed("a", PEPPER): SHOP, hashed("b", PEPPER): SHOP}, PEPPER)
    assert tenants.find("a") is tenants.find("b")
    assert [tenant.id for tenant in tenants] == ["shop"]


def test_a_tenant_uses_the_models_it_was_given() -> None:
    assert SHOP.may_use("demo")
    assert not SHOP.may_use("gpt")


def test_new_keys_are_long_random_and_strong() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    for key in keys:
        assert key.startswith("lg-")
        assert len(key) == 46
        assert set(key) <= set(string.ascii_letters + string.digits + "-_")
        assert weakness(key) is None


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "is empty"),
        ("demo", "is one that everybody knows"),
        ("sk-test", "is one that everybody knows"),
        ("sk-test-0000000000000000000000", "is one that everybody knows"),
        ("lg-demo-key", "is one that everybody knows"),
        ("changeme", "is one that everybody knows"),
        ("CHANGE-ME-please-1234567890abcdef", "is one that everybody knows"),
        ("your-api-key-goes-here-1234567890", "is one that everybody knows"),
        ("password", "is one that everybody knows"),
        ("my-example-key-0123456789abcdefgh", "is one that everybody knows"),
        ("Zr8fK2p", "has 7 characters: it needs 24 to 256"),
        ("Zr8fK2pQ" * 40, "has 320 characters: it needs 24 to 256"),
        ("abcabcabcabcabcabcabcabcabc", "uses fewer than 10 different characters: it can be guessed"),
        ("Zr8f K2pQw7Lm5Nx9Vb3Jd6Ht", "has a blank or a character outside ASCII in it"),
        ("Zr8f\nK2pQw7Lm5Nx9Vb3Jd6Ht", "has a blank or a character outside ASCII in it"),
        ("Zr8fK2pQw7Lm5Nx9Vb3Jd6Ht密", "has a blank or a character outside ASCII in it"),
    ],
)
def test_a_weak_key_is_refused_without_being_repeated(key: str, why: str) -> None:
    assert weakness(key) == why
    assert not key or key not in why


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER abc", "Bearer   abc", "Bearer abc  "])
def test_a_bearer_header_gives_its_key_however_the_scheme_is_written(header: str) -> None:
    assert bearer([header]) == "abc"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["abc"],
        ["Basic abc"],
        ["Bearer a b"],
        ["Bearer\tabc"],
        [" Bearer abc"],
        ["Bearer abc\n"],
        ["Bearer a\x00c"],
        ["Bearer ab\x7f"],
        ["Bearer kéy"],
        ["Bearer " + "a" * 10_000],
        ["Bearer abc", "Bearer abc"],
        ["Bearer abc, Bearer def"],
    ],
)
def test_any_other_header_is_refused_without_being_repeated(headers: list[str]) -> None:
    with pytest.raises(UnknownKey) as caught:
        bearer(headers)
    assert "abc" not in caught.value.message


@given(st.text(max_size=300))
def test_no_header_breaks_the_reading(text: str) -> None:
    try:
        key = bearer([text])
    except UnknownKey:
        return
    assert key in text
    assert key.isascii()
    assert " " not in key
