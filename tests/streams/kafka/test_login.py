"""What clients log in with, from files and variables; tried in memory by two ends of TLS that shake hands."""

import ssl
from datetime import timedelta

import pytest
from certificates import Authority

from config.security import SecuritySettings
from config.settings import Settings
from schemas.errors import ConfigurationException
from streams.kafka.login import connect, login

SECRET = "Xyzzy-1984"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def refused(env=(), **given):
    with pytest.raises(ConfigurationException) as error:
        login(SecuritySettings(**given), dict(env))
    assert SECRET not in str(error.value)
    return error.value.key, error.value.rule


def mutual(authority, pair, **given):
    files = {"certificate_file": str(pair.certificate), "key_file": str(pair.key)}
    return {"protocol": "SSL", "ca_file": str(authority.file), **files, **given}


def scram(**given):
    return {"protocol": "SASL_SSL", "username": "worker", **given}


def shake(client: ssl.SSLContext, server: ssl.SSLContext, host="127.0.0.1"):
    """Let both ends talk until they agree; return whom each takes the other for."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting
    return [dict(part[0] for part in end.getpeercert()["subject"])["commonName"] for end in reversed(ends)]


def server(authority, pair):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*pair)
    return context


def test_without_a_protocol_nothing_is_said():
    assert dict(login(SecuritySettings(), {"PW": SECRET})) == {}
    assert connect(Settings()).options() == {"bootstrap_servers": ["127.0.0.1:9092"]}


@pytest.mark.parametrize("password", [None, SECRET])
def test_each_end_knows_the_other_by_its_certificate(tmp_path, authority, password):
    pair = authority.vouch("worker", password=password)
    (tmp_path / "pw").write_text(f"{SECRET}\n")
    given = {"key_password_file": str(tmp_path / "pw")} if password else {}
    made = login(SecuritySettings(**mutual(authority, pair, **given)), {})
    assert made.keys() == {"security_protocol", "ssl_context"}
    assert shake(made["ssl_context"], server(authority, authority.vouch("broker"))) == ["worker", "broker"]


BROKERS = {
    "it is over": (lambda ours, _: ours.vouch("broker", ends=timedelta(hours=-1)), "certificate has expired"),
    "it is of another name": (lambda ours, _: ours.vouch("broker", host="192.0.2.1"), "IP address mismatch"),
    "nobody we know vouches for it": (lambda _, other: other.vouch("broker"), "unable to get local issuer"),
}


@pytest.mark.parametrize(("certify", "why"), BROKERS.values(), ids=BROKERS)
def test_a_broker_that_cannot_be_believed_is_not_talked_to(tmp_path, authority, certify, why):
    pair = certify(authority, Authority(tmp_path, "stranger"))
    made = login(SecuritySettings(**mutual(authority, authority.vouch("worker"))), {})
    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        shake(made["ssl_context"], server(authority, pair))


def test_old_tls_is_not_spoken(authority):
    made = login(SecuritySettings(**mutual(authority, authority.vouch("worker"))), {})
    assert made["ssl_context"].minimum_version >= ssl.TLSVersion.TLSv1_2
    assert made["ssl_context"].check_hostname
    assert made["ssl_context"].verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_comes_from_a_variable_or_a_file_without_the_lines_end(tmp_path, end):
    file = tmp_path / "pw"
    file.write_bytes(f" {SECRET} {end}".encode())
    of_file = login(SecuritySettings(**scram(password_file=str(file))), {})
    of_variable = login(SecuritySettings(**scram(password_env="PW")), {"PW": f" {SECRET} {end}"})
    for made in (of_file, of_variable):
        told = {name: value for name, value in made.items() if name != "ssl_context"}
        assert told == {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "worker",
            "sasl_plain_password": f" {SECRET} ",
        }


def test_a_connection_shows_nothing_of_its_login():
    given = {"kafka": {"bootstrap_servers": "b:1", "security": scram(password_env="PW")}}
    made = connect(Settings.model_validate(given), {"PW": SECRET})
    assert made.options()["sasl_plain_password"] == SECRET
    for text in (repr(made), str(made), f"{made}", repr(made.security), str(made.security), f"{[made]}"):
        assert SECRET not in text
    assert repr(made) == "Connection(b:1)"


def test_what_cannot_be_read_is_named(tmp_path, authority):
    pair, other = authority.vouch("worker"), authority.vouch("other")
    sealed = authority.vouch("sealed", password=SECRET)
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.write_text("\n")
    text.write_text("no PEM\n")
    long = tmp_path / "long"
    long.write_text("x" * 1025)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    gone = str(tmp_path / "gone")
    ours = mutual(authority, pair)
    table = [
        (scram(password_env="PW"), "password_env", "must name a variable that is set"),
        (scram(password_file=gone), "password_file", "must name a file that can be read: No such file or directory"),
        (scram(password_file=str(tmp_path)), "password_file", "must name a file that can be read: Is a directory"),
        (scram(password_file=str(empty)), "password_file", "must name a file that is not empty"),
        (scram(password_file=str(long)), "password_file", "must name at most 1024 bytes"),
        (mutual(authority, sealed, key_password_file=str(long)), "key_password_file", "must name at most 1024 byt"),
        (scram(password_file=str(binary)), "password_file", "must name a file with UTF-8 text"),
        ({**ours, "ca_file": gone}, "ca_file", "must name a file that can be read: No such file or directory"),
        ({**ours, "ca_file": str(text)}, "ca_file", "must hold certificates in PEM"),
        ({**ours, "ca_file": str(binary)}, "ca_file", "must hold certificates in PEM"),
        ({**ours, "ca_file": str(empty)}, "ca_file", "must hold certificates in PEM"),
        ({**ours, "certificate_file": gone}, "certificate_file", "must name a file that can be read: No such file"),
        ({**ours, "key_file": gone}, "key_file", "must name a file that can be read: No such file or directory"),
        ({**ours, "key_file": str(text)}, "key_file", "must be the PEM key of certificate_file"),
        ({**ours, "certificate_file": str(text)}, "key_file", "must be the PEM key of certificate_file"),
        ({**ours, "key_file": str(other.key)}, "key_file", "KEY_VALUES_MISMATCH"),
        (mutual(authority, sealed), "key_file", "is encrypted: key_password_env or key_password_file must be given"),
        (mutual(authority, sealed, key_password_env="KPW"), "key_password_env", "must name a variable that is set"),
        (mutual(authority, sealed, key_password_file=str(text)), "key_file", "under its password"),
    ]
    for given, field, rule in table:
        key, told = refused(**given)
        assert (key, rule in told) == (f"kafka.security.{field}", True), (given, told)
