"""The clients: what each needs, how its program is built, and the command that runs it.

Builds go to a cache outside the sources, ${FOLIO_CLIENT_CACHE} or target/clients, and are repeated only when
the sources or the client's version change.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
JAVA = {"java-5.3": "5.3.3", "java-4.9": "4.9.8"}
GO_CLIENT = "v2.1.2"
PYTHON_CLIENT = "0.4.4"
BUILD_LIMIT_S = 900


class Unavailable(Exception):
    """This machine cannot run the client; the reason is printed behind SKIP."""


class BuildFailed(Exception):
    """The client could be built here, but was not."""


class Command:
    """How a client program is started. "{home}" in a word becomes the directory of its logs."""

    def __init__(self, argv, env=None):
        self.argv = [str(word) for word in argv]
        self.env = env or {}


class Client:
    def __init__(self, name, prepare):
        self.name = name
        self._prepare = prepare

    def prepare(self, logs):
        """Builds the program if needed and returns its Command."""
        return self._prepare(logs)


def clients():
    """All clients, in the order in which they are run."""
    java = [Client(name, lambda logs, n=name, v=version: _java(n, v, logs)) for name, version in JAVA.items()]
    return java + [Client("go-v2", _go), Client("python-0.4", _python)]


def _cache():
    configured = os.environ.get("FOLIO_CLIENT_CACHE")
    return Path(configured).resolve() if configured else HERE.parent.parent / "target" / "clients"


def _tool(name):
    found = shutil.which(name)
    if not found:
        raise Unavailable(f"no toolchain '{name}'")
    return found


def _built(out, sources, version, steps, log):
    """Runs the build steps unless `out` was built from exactly these sources and this version."""
    digest = hashlib.sha256(f"{version} {sys.version}".encode())
    for path in sorted(p for p in sources.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{path.relative_to(sources)}\0".encode())
        digest.update(path.read_bytes())
    stamp = out / "built-from"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for argv, cwd, env in steps:
        try:
            with open(log, "ab") as sink:
                subprocess.run([str(word) for word in argv], cwd=cwd, env=dict(os.environ, **env), check=True,
                               stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=BUILD_LIMIT_S)
        except (subprocess.SubprocessError, OSError) as e:
            raise BuildFailed(f"{Path(str(argv[0])).name} failed ({e.__class__.__name__}), see {log}") from e
    stamp.write_text(digest.hexdigest())


def _java(name, version, logs):
    java, mvn = _tool("java"), _tool("mvn")
    _tool("javac")
    out = _cache() / name
    sources = HERE / "java"
    maven = [mvn, "-q", "-B", "-f", sources / "pom.xml", f"-Drocketmq.version={version}", f"-Dfolio.out={out}",
             "compile", "dependency:copy-dependencies", f"-DoutputDirectory={out / 'lib'}"]
    _built(out, sources, version, [(maven, out, {})], logs / f"{name}-build")
    # Compiling little is quicker than compiling well: a run is over in seconds.
    return Command([java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-Djava.net.preferIPv4Stack=true",
                    "-Duser.home={home}", "-Drocketmq.client.logRoot={home}", "-cp",
                    f"{out / 'classes'}{os.pathsep}{out / 'lib' / '*'}", "folio.clients.Main"])


def _go(logs):
    go = _tool("go")
    out = _cache() / "go-v2"
    sources = HERE / "go"
    _built(out, sources, GO_CLIENT, [([go, "build", "-o", out / "client", "."], sources, {"GOFLAGS": "-mod=readonly"})],
           logs / "go-v2-build")
    return Command([out / "client"])


def _python(logs):
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Unavailable("its wheel holds a library for Linux on x86-64 only")
    out = _cache() / "python-0.4"
    python = out / "venv" / "bin" / "python"
    steps = [([sys.executable, "-m", "venv", out / "venv"], None, {}),
             ([python, "-m", "pip", "install", "-q", f"rocketmq=={PYTHON_CLIENT}"], None, {})]
    _built(out, HERE / "python", PYTHON_CLIENT, steps, logs / "python-0.4-build")
    loaded = subprocess.run([python, "-c", "import rocketmq.client"], capture_output=True, text=True, check=False)
    if loaded.returncode != 0:
        raise Unavailable("its library does not load here: " + (loaded.stderr.strip().splitlines() or ["?"])[-1])
    return Command([python, HERE / "python" / "client.py"])
