"""Apache Kafka from its jars: one KRaft node on 127.0.0.1, for tests, benchmarks and `himari broker --kafka`.

Maven fetches the jars once into the cache folder; after that nothing is fetched.
"""

import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from schemas.errors import BrokerUnreachable
from streams.kafka.broker import HOST, BrokerProcess, free_port

KAFKA_VERSION = "4.4.0"
"""Default version; $HIMARI_KAFKA_VERSION overrides it, also with a Maven range such as [4.0,5.0)."""
LOGGER_VERSION = "1.7.36"
"""slf4j-simple for the slf4j-api of Kafka 4: warnings go to the log file without further configuration."""
JAVA_VERSION_MIN = 17
CLUSTER = b"himari, one node"
"""Cluster id of 16 bytes, as Kafka requires."""
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>himari</groupId><artifactId>kafka-jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{logger}</version>
    </dependency>
  </dependencies>
</project>
"""

PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}{listeners}
advertised.listeners=PLAINTEXT://{host}:{port}{listeners}
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


def apache_kafka(
    directory: Path,
    port: int = 0,
    *,
    more: str = "",
    listeners: str = "",
    passwords: Mapping[str, str] = MappingProxyType({}),
) -> BrokerProcess:
    """Return a one-node Apache Kafka with its data in `directory`; port 0 chooses a free one.

    Existing data of a node in the directory is kept. `more`: further lines of Kafka's properties; `listeners`: in
    addition to the plain-text one (",NAME://HOST:PORT…"); `passwords`: of users who log in with SCRAM.

    Raises:
        BrokerUnreachable: Java or Maven is missing, or the jars cannot be fetched.
    """
    java = find_java()
    classpath = str(resolve() / "*")
    port = port or free_port()
    properties = directory / "server.properties"
    properties.write_text(_properties(directory / "data", port, listeners) + more)
    if not (directory / "data" / "meta.properties").exists():
        _format(java, classpath, properties, passwords)
    options = ("-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")
    return BrokerProcess(
        "Apache Kafka",
        (java, *options, "-cp", classpath, "kafka.Kafka", str(properties)),
        port=port,
        log=directory / "apache-kafka.log",
        stop_signal=signal.SIGTERM,
    )


def find_java() -> str:
    """Return the path of a sufficiently new Java.

    Raises:
        BrokerUnreachable: none is installed; the text says what to install.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if java is None:
        msg = f"Apache Kafka needs Java {JAVA_VERSION_MIN} or newer: none was found (install a JRE)"
        raise BrokerUnreachable(msg)
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(\d+)', text)
    if found is None or int(found[1]) < JAVA_VERSION_MIN:
        msg = f"Apache Kafka needs Java {JAVA_VERSION_MIN} or newer: {java} is {text.splitlines()[0]}"
        raise BrokerUnreachable(msg)
    return java


def cache_folder() -> Path:
    """Return the folder of downloaded files: $HIMARI_CACHE, else ~/.cache/himari."""
    return Path(os.environ.get("HIMARI_CACHE") or Path.home() / ".cache" / "himari")


def resolve() -> Path:
    """Return the folder of Kafka's jars, fetched with Maven on first use.

    Raises:
        BrokerUnreachable: Maven is missing or fails.
    """
    version = os.environ.get("HIMARI_KAFKA_VERSION", KAFKA_VERSION)
    jars = cache_folder() / ("kafka-" + re.sub(r"[^\w.]+", "_", version))
    if not jars.exists():
        _fetch(version, jars)
    return jars


def _fetch(version: str, jars: Path) -> None:
    """Fetch into a temporary folder, then rename it to `jars`: safe if interrupted or run twice at once."""
    maven = shutil.which("mvn")
    if maven is None:
        msg = "Apache Kafka's jars are fetched with Maven: mvn was not found (install maven)"
        raise BrokerUnreachable(msg)
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        pom = Path(folder) / "pom.xml"
        pom.write_text(POM.format(kafka=version, logger=LOGGER_VERSION))
        command = [maven, "-q", "-B", "-f", str(pom), DEPENDENCY_PLUGIN, f"-DoutputDirectory={folder}/jars"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            msg = f"Maven could not fetch Apache Kafka {version}: {done.stdout.strip()[-500:]}"
            raise BrokerUnreachable(msg)
        if not jars.exists():
            Path(folder, "jars").rename(jars)


def _properties(data: Path, port: int, listeners: str) -> str:
    return PROPERTIES.format(host=HOST, port=port, controller=free_port(), data=data, listeners=listeners)


def _format(java: str, classpath: str, properties: Path, passwords: Mapping[str, str]) -> None:
    """Write the node's identity and users into its data folder, which KRaft requires before the first start."""
    cluster = base64.urlsafe_b64encode(CLUSTER).decode().rstrip("=")
    command = [java, "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    for name, password in passwords.items():
        command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        command += ["--add-scram", f"SCRAM-SHA-256=[name={name},password={password}]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        msg = f"Apache Kafka's storage could not be formatted: {done.stderr.strip()[-500:]}"
        raise BrokerUnreachable(msg)
