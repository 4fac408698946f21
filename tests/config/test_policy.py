"""Where a policy may be: ports that exist, no address of credentials, and no token in the clear without a word."""

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from config.policy import RlSettings
from streams.cli import cli


@pytest.mark.parametrize("field", ["endpoint", "proxy"])
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://policy:99999/v2", "must be a URL with a port of 1 to 65535"),
        ("http://policy:x/v2", "must be a URL with a port of 1 to 65535"),
        ("http://[::1/v2", "must be a URL with a port of 1 to 65535"),
        ("http://policy:0", "must not be port 0"),
        ("http://169.254.169.254/latest", "link-local"),
        ("http://[fe80::1]:8080/v2", "link-local"),
        ("http://[::ffff:169.254.169.254]/latest", "link-local"),
        ("http://2852039166/latest", "link-local"),
        ("http://0xA9FEA9FE/latest", "link-local"),
        ("http://169.254.43518/latest", "link-local"),
    ],
)
def test_what_no_policy_can_be_at_is_refused_with_the_value(field, url, rule):
    with pytest.raises(ValidationError, match=rule) as told:
        RlSettings.model_validate({field: url})
    assert url in str(told.value)


COMMANDS = {
    "rl check --url": ("--url", ["rl", "check", "--url"]),
    "rl check --proxy": ("--proxy", ["rl", "check", "--url", "http://127.0.0.1:1", "--proxy"]),
    "demo --rl": ("--rl", ["demo", "--rl"]),
}


@pytest.mark.parametrize(("option", "words"), COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://policy:99999/v2", "must be a URL with a port of 1 to 65535, was http://policy:99999/v2"),
        (
            "http://169.254.169.254/latest",
            "must not be port 0 or a link-local address, was http://169.254.169.254/latest",
        ),
        ("http://me:secret@policy/v2", "must be http(s)://HOST[:PORT][/PATH], without user, query, fragment"),
    ],
)
def test_commands_refuse_what_the_settings_refuse(option, words, url, rule):
    done = CliRunner().invoke(cli, [*words, url])
    assert done.exit_code == 2
    assert f"Error: {option} {rule}" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize(
    "url", ["http://policy:65535/v2", "https://[2001:db8::1]:443", "http://10.0.0.7", "http://localhost:1"]
)
def test_others_are_taken(url):
    assert RlSettings.model_validate({"endpoint": url}).endpoint == url


@pytest.mark.parametrize(
    ("url", "token", "told"),
    [
        ("http://10.0.0.7:8000", "TOKEN", True),
        ("http://policy.example", "TOKEN", True),
        ("https://policy.example", "TOKEN", False),
        ("http://policy.example", None, False),
        ("http://127.0.0.1:8000", "TOKEN", False),
        ("http://[::1]:8000", "TOKEN", False),
        ("http://localhost", "TOKEN", False),
    ],
)
def test_a_token_in_the_clear_is_known(url, token, told):
    assert RlSettings.model_validate({"endpoint": url, "token_env": token}).in_the_clear is told
