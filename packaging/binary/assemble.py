"""Puts the folder together that the one file unpacks: a Python, the libraries it needs, the project, and Nushell.

    bin/         provisioning, python and provisioning-orchestrator: the launcher; nu
    lib/         shared libraries, the C library among them; lib/python3.x: modules as bytecode
    libexec/     the loader that belongs to that C library, and the Python that it loads
    share/doc/   notices, SBOM, README
    SHA256SUMS   of all of it

Every file comes from a Debian package, from a wheel named with its digest in requirements.txt, from the npm package
that package-lock.json names, or from this project. Nothing in it depends on when, where or by whom it is built.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = Path("/usr/bin/python3")
"""Debian's: its files have packages, versions and copyright files, and its security updates."""

OMITTED_MODULES = {
    *("__pycache__", "test", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "ensurepip", "distutils"),
    *("venv", "pydoc_data", "curses", "dbm", "sqlite3", "crypt.py", "nis.py", "sitecustomize.py", "dist-packages"),
}
OMITTED_EXTENSIONS = re.compile(
    r"_?(test|xxtest|xxlimited|ctypes_test|readline|curses|dbm|gdbm|sqlite3|tkinter|nis|ossaudiodev|crypt)[a-z_0-9]*\."
)
"""What tests the interpreter, what nothing here uses, and what brings a library under the GPL (readline, gdbm)."""
OMITTED_FILES = re.compile(
    r"/(RECORD|INSTALLER|REQUESTED|WHEEL|direct_url\.json|py\.typed)$|\.pyi$|^bin/|/tests?/|/licenses?/"
)


class Origin(NamedTuple):
    """Where a part of the folder comes from: `deb` with the name of a package, or `pypi` with a dist-info folder."""

    kind: str
    name: str


def run(*command: str | Path, **environment: str) -> str:
    """What a command prints; the build ends where it fails."""
    essential = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or "PIP" in name}
    done = subprocess.run(
        [str(part) for part in command],
        env=essential | proxies | environment,
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if done.returncode:
        sys.exit(f"packaging/binary: {command[0]} ended with {done.returncode}; its message is above")
    return done.stdout


def assemble(folder: Path, wheel: Path, nu: Path, scratch: Path) -> set[Origin]:
    """Make the folder; where its parts come from."""
    version = run(PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    for name in ("bin", "lib", "libexec", "share/doc"):
        (folder / name).mkdir(parents=True)
    modules = folder / "lib" / f"python{version}"
    distributions = _modules(modules, version, wheel, scratch)
    origins = {Origin("pypi", path) for path in distributions} | {Origin("deb", f"libpython{version}-stdlib")}
    executable = PYTHON.resolve()
    _place(executable, folder / "libexec" / "python")
    origins.add(Origin("deb", _package(executable)))
    for library in _libraries([folder / "libexec" / "python", *sorted(modules.rglob("*.so*"))], folder):
        _place(library.resolve(), folder / "lib" / library.name)
        origins.add(Origin("deb", _package(library)))
    loader = _loader(executable)
    _place(loader.resolve(), folder / "libexec" / "provisioning")  # by this name the processes are listed
    origins.add(Origin("deb", _package(loader)))
    _place(nu.resolve(), folder / "bin" / "nu")
    launcher(folder / "bin" / "provisioning")
    for name in ("python", "provisioning-orchestrator"):
        (folder / "bin" / name).symlink_to("provisioning")
    shutil.copyfile(ROOT / "README.md", folder / "share" / "doc" / "README.md")
    return origins


def launcher(target: Path) -> None:
    """Compile the launcher."""
    library = next(Path("/usr/lib").glob("*-linux-gnu/libzstd.a"), None)
    if library is None:
        sys.exit("packaging/binary: no libzstd.a: apt-get install libzstd-dev")
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-parentheses")
    # Built below the folder of its source, so that no path of this machine gets into it.
    run("musl-gcc", "-std=c11", "-static", "-Os", "-s", *warnings, "-idirafter", "/usr/include", "-o", target,
        HERE / "launcher.c", HERE / "unpack.c", library)  # fmt: skip
    target.chmod(0o755)


def _place(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _modules(modules: Path, version: str, wheel: Path, scratch: Path) -> list[str]:
    """The standard library, the wheels and the project, as bytecode; the dist-info folders of the wheels."""
    library = Path(run(PYTHON, "-c", "import os; print(os.path.dirname(os.__file__))").strip())
    sources: dict[str, Path] = {}
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library).as_posix()
        if not OMITTED_MODULES & set(name.split("/")) and not name.startswith("config-"):
            sources[name] = path
    installed = _installed(version, wheel, scratch)
    others: dict[str, Path] = {}
    for path in sorted(installed.rglob("*")):
        name = path.relative_to(installed).as_posix()
        if path.is_file() and not OMITTED_FILES.search(name):
            (sources if name.endswith(".py") else others)[name] = path
    for path in sorted((library / "lib-dynload").glob("*.so")):
        if not OMITTED_EXTENSIONS.match(path.name):
            others[f"lib-dynload/{path.name}"] = path
    for name, path in others.items():
        target = modules / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.resolve(), target)
    _compile(sources, modules)
    return sorted(str(path) for path in installed.glob("*.dist-info"))


def _installed(version: str, wheel: Path, scratch: Path) -> Path:
    """A folder with the wheels of requirements.txt, each of the digest that it names, and the project's own."""
    target = scratch / "installed"
    abi = "cp" + version.replace(".", "")
    run(
        *(
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
        ),
        *("--require-hashes", "--only-binary", ":all:", "--implementation", "cp", "--python-version", version),
        *("--abi", abi, "--abi", "abi3", "--abi", "none", "--platform", "manylinux2014_x86_64"),
        *("--target", target, "--requirement", HERE / "requirements.txt"),
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


COMPILE = """
import py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for line in sys.stdin:
    source, target, name = line.rstrip("\\n").split("\\t")
    py_compile.compile(source, target, name, doraise=True, invalidation_mode=mode)
"""


def _compile(sources: dict[str, Path], modules: Path) -> None:
    """Compile each module to where Python looks for one that has no source; their names are in tracebacks."""
    jobs = "".join(f"{path}\t{modules / name}c\t{name}\n" for name, path in sorted(sources.items()))
    for name in sources:
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
    # The order of a frozenset in the bytecode is that of its hashes.
    environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
    subprocess.run([PYTHON, "-sSP", "-c", COMPILE], input=jobs, env=environment, check=True, text=True)


def _loader(executable: Path) -> Path:
    """The dynamic loader that the Python asks for."""
    found = re.search(rb"/lib64/ld-linux-x86-64\.so\.2", executable.read_bytes()[:4096])
    if found is None:
        sys.exit(f"packaging/binary: {executable} is not a dynamic x86-64 program")
    return Path(found[0].decode())


def _libraries(programs: Iterable[Path], folder: Path) -> Iterator[Path]:
    """The shared libraries of the host that these need, those included that their libraries need."""
    found: dict[str, Path] = {}
    for program in programs:
        for line in run(_loader(PYTHON.resolve()), "--list", program).splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            path = Path(rest.rpartition(" (")[0])
            if arrow and "not found" in rest:
                sys.exit(f"packaging/binary: {program} needs {name}, which is not installed")
            if arrow and not path.is_relative_to(folder):
                found[name] = path
    yield from (path for _, path in sorted(found.items()))


def _package(path: Path) -> str:
    """The Debian package that a file belongs to."""
    real = path.resolve()
    # /lib may be /usr/lib, and a package names either.
    for candidate in (path, real, *(Path(str(place).removeprefix("/usr")) for place in (path, real))):
        done = subprocess.run(["dpkg-query", "-S", str(candidate)], capture_output=True, text=True, check=False)
        if not done.returncode:
            return done.stdout.split(":", 1)[0]
    sys.exit(f"packaging/binary: {path} belongs to no Debian package: its licence is not known")


def write_sums(folder: Path) -> None:
    """SHA256SUMS of all files in the folder, as `sha256sum -c` reads it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))
