"""`kafka.security`: what fits together, and that no secret stands in settings or in what is said of them."""

import json
from itertools import product

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from config.load import load_bytes
from config.security import SecuritySettings
from config.watch import FileWatch, Rejected
from schemas.errors import ConfigurationException
from streams.cli.config import config

SECRET = "Xyzzy-1984"
SASL = {"protocol": "SASL_SSL", "username": "worker", "password_env": "PW"}
PAIR = {"certificate_file": "c.pem", "key_file": "k.pem"}

GOOD = {
    "nothing": {},
    "TLS, the system's authorities": {"protocol": "SSL"},
    "TLS": {"protocol": "SSL", "ca_file": "ca.pem"},
    "mutual TLS": {"protocol": "SSL", **PAIR},
    "mutual TLS, an encrypted key": {"protocol": "SSL", **PAIR, "key_password_env": "KEY_PW"},
    "SCRAM": SASL,
    "SCRAM, another mechanism, a file": {
        **{name: value for name, value in SASL.items() if name != "password_env"},
        "mechanism": "SCRAM-SHA-256",
        "password_file": "pw",
    },
    "SCRAM with a certificate too": {**SASL, **PAIR},
}
BAD = {
    "a mechanism that shows the password": ({**SASL, "mechanism": "PLAIN"}, "mechanism", "must be 'SCRAM-SHA-256'"),
    "no encryption": ({**SASL, "protocol": "SASL_PLAINTEXT"}, "protocol", "must be 'PLAINTEXT', 'SSL' or 'SASL_SSL'"),
    "a password for nothing": ({"username": "u"}, "username", "must be null unless protocol is SASL_SSL"),
    "a password and TLS alone": ({"protocol": "SSL", "password_env": "A"}, "password_env", "must be null unless"),
    "authorities for nothing": ({"ca_file": "ca.pem"}, "ca_file", "must be null without TLS (protocol)"),
    "a certificate for nothing": (PAIR, "certificate_file", "must be null without TLS (protocol)"),
    "no user": ({**SASL, "username": None}, "username", "must be given with SASL_SSL"),
    "no password": ({**SASL, "password_env": None}, "password_env", "or password_file must be given"),
    "two passwords": ({**SASL, "password_file": "pw"}, "password_file", "must be null where password_env is given"),
    "no key": ({"protocol": "SSL", "certificate_file": "c"}, "key_file", "must be given with a certificate"),
    "no certificate": ({"protocol": "SSL", "key_file": "k"}, "certificate_file", "must be given with a key"),
    "no key, its password": ({"protocol": "SSL", "key_password_file": "k"}, "key_file", "must be given with its"),
    "two key passwords": (
        {"protocol": "SSL", **PAIR, "key_password_file": "k", "key_password_env": "K"},
        "key_password_file",
        "must be null where key_password_env is given",
    ),
    "an empty user": ({**SASL, "username": ""}, "username", "String should have at least 1"),
    "an unknown key": ({"pasword_env": "A"}, "pasword_env", "is not a setting; did you mean password_env?"),
}


def text(security):
    return json.dumps({"kafka": {"security": security}}).encode()


def refused(security, env=None):
    with pytest.raises(ConfigurationException) as error:
        load_bytes(text(security), "f.yaml", env)
    return error.value


@pytest.mark.parametrize("security", GOOD.values(), ids=GOOD)
def test_what_fits_together_is_taken(security):
    taken = load_bytes(text(security), "f.yaml").settings.kafka.security
    assert taken == SecuritySettings(**security)
    assert {name: value for name, value in taken.model_dump().items() if name in security} == security


@pytest.mark.parametrize(("security", "field", "rule"), BAD.values(), ids=BAD)
def test_what_does_not_is_refused_with_place_and_rule(security, field, rule):
    error = refused(security)
    assert (error.file, error.key, error.line) == ("f.yaml", f"kafka.security.{field}", 1)
    assert error.rule.startswith(rule)


IN_THE_CLEAR = {
    "a password": ({**SASL, "password": SECRET}, "password", "name a variable in password_env, or a file in"),
    "a password, in capitals": ({**SASL, "PASSWORD": SECRET}, "PASSWORD", "must not be in settings: name a vari"),
    "a key's password": ({"key_password": SECRET}, "key_password", "name a variable in key_password_env, or a fil"),
    "instead of the variable": ({**SASL, "password_env": SECRET}, "password_env", "must name an environment variable"),
    "a number instead of it": ({**SASL, "password_env": 19_841_984}, "password_env", "must name an environment variab"),
    "a list instead of it": ({**SASL, "password_env": [SECRET]}, "password_env", "must name an environment variable"),
    "below it": ({**SASL, "password_env": {"x": SECRET}}, "password_env", "must name an environment variable, in"),
    "instead of the file": ({**SASL, "password_env": None, "password_file": 19_841_984}, "password_file", "must be t"),
    "under a word we do not know": ({"sasl_pw": SECRET}, "sasl_pw", "is not a setting"),
    "instead of the section": (SECRET, "", "must be a section of settings, was a value that is not shown"),
}


@pytest.mark.parametrize(("security", "field", "rule"), IN_THE_CLEAR.values(), ids=IN_THE_CLEAR)
def test_a_secret_in_the_clear_is_refused_and_not_repeated(tmp_path, security, field, rule):
    error = refused(security)
    assert error.key == ".".join(filter(None, ("kafka.security", field)))
    assert rule in error.rule
    file = tmp_path / "f.yaml"
    file.write_bytes(text({}))
    watch = FileWatch(file)
    watch.poll()
    file.write_bytes(text(security))
    found = watch.poll() or watch.poll()
    assert isinstance(found, Rejected)
    for arguments in (("validate",), ("validate", "--json"), ("show",), ("show", "--origin", "--json")):
        told = CliRunner().invoke(config, [*arguments, "--config", str(file)])
        assert told.exit_code == 5
        for said in (str(error), repr(error), str(found.error), told.stdout, told.stderr):
            assert SECRET not in said
            assert "19841984" not in said


def test_a_secret_in_the_variable_of_a_setting_is_refused_with_the_variable_and_not_repeated():
    error = refused({}, {"HIMARI__KAFKA__SECURITY__PASSWORD": SECRET})
    assert (error.file, error.key) == ("environment HIMARI__KAFKA__SECURITY__PASSWORD", "kafka.security.password")
    assert "password_env" in error.rule
    assert SECRET not in str(error)


@pytest.mark.parametrize("value", [f"!{SECRET}", f"'{SECRET}", f"*{SECRET}", f"{SECRET}: {SECRET}", f"[{SECRET}", "@x"])
def test_a_secret_that_breaks_the_file_is_not_repeated(value):
    with pytest.raises(ConfigurationException) as error:
        load_bytes(f"kafka:\n  security:\n    password: {value}\n".encode(), "f.yaml")
    assert SECRET not in str(error.value)


VALUES = {
    "protocol": ["PLAINTEXT", "SSL", "SASL_SSL"],
    **{name: [None, "f"] for name in ("ca_file", "certificate_file", "key_file", "key_password_file", "password_file")},
    **{name: [None, "F"] for name in ("key_password_env", "password_env")},
    "username": [None, "u"],
}


def test_every_combination_that_is_taken_uses_all_that_it_names():
    """The oracle says it the other way round: what a login needs, and nothing else."""
    taken = 0
    for values in product(*VALUES.values()):
        given_ = dict(zip(VALUES, values, strict=True))
        named = {name for name, value in given_.items() if value is not None} - {"protocol"}
        needs, may = set(), set()
        if given_["protocol"] != "PLAINTEXT":
            may |= {"ca_file"}
            if "certificate_file" in named:
                needs |= {"certificate_file", "key_file"}
                may |= {"key_password_env"} if "key_password_file" not in named else {"key_password_file"}
        if given_["protocol"] == "SASL_SSL":
            needs |= {"username", "password_file" if "password_env" not in named else "password_env"}
        try:
            load_bytes(text(given_), "f.yaml")
        except ConfigurationException:
            assert not needs <= named <= needs | may, given_
        else:
            assert needs <= named <= needs | may, given_
            taken += 1
    assert taken > 20


@given(st.sampled_from(["password_env", "key_password_env"]), st.text().map(lambda tail: SECRET + tail))
def test_no_error_repeats_what_stands_in_place_of_a_variable(name, value):
    assert SECRET not in str(refused({**SASL, name: value}))
