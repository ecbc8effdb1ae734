"""Builds what is released into a folder: the one file, an archive, wheel, sdist, bill, notices, SHA256SUMS."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import assemble
import notices
import pack
from assemble import ROOT, run

PLATFORM = "linux-x86_64"


def make(target: Path, nu: Path, moment: int, *, only_file: bool) -> list[Path]:
    """Build into `target`; the files made, those of an earlier build replaced."""
    with tempfile.TemporaryDirectory(prefix="provisioning-build-") as scratch:
        made = _make(Path(scratch), nu, moment, only_file=only_file)
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.move(path, target / path.name)) for path in made]


def _make(scratch: Path, nu: Path, moment: int, *, only_file: bool) -> list[Path]:
    out, folder = scratch / "out", scratch / "folder"
    out.mkdir()
    _hatch(out, moment, "wheel", *(() if only_file else ("sdist",)))
    wheel = next(out.glob("*.whl"))
    version = wheel.name.split("-")[1]
    found = notices.parts(assemble.assemble(folder, wheel, nu, scratch))
    documents = {
        "THIRD_PARTY_NOTICES": notices.notices(found),
        "sbom.cdx.json": notices.bill(found, version, moment),
    }
    for name, text in documents.items():
        (folder / "share" / "doc" / name).write_text(text)
    assemble.write_sums(folder)
    name = f"provisioning-{version}-{PLATFORM}"
    pack.one_file(folder / "bin" / "provisioning", folder, version, moment, out / name)
    if only_file:
        return [out / name]
    pack.tarball(folder, f"provisioning-{version}", moment, out / f"{name}.tar.xz")
    (out / "THIRD_PARTY_NOTICES").write_text(documents["THIRD_PARTY_NOTICES"])
    (out / f"{name}.cdx.json").write_text(documents["sbom.cdx.json"])
    made = sorted(out.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (out / "SHA256SUMS").write_text("".join(sums))
    return [*made, out / "SHA256SUMS"]


def _hatch(out: Path, moment: int, *kinds: str) -> None:
    targets = [part for kind in kinds for part in ("-t", kind)]
    run(sys.executable, "-m", "hatchling", "build", "-d", out, *targets, SOURCE_DATE_EPOCH=str(moment))


def main() -> None:
    parser = argparse.ArgumentParser(prog="packaging/dev binary", description=__doc__)
    parser.add_argument("--only-file", action="store_true", help="build nothing but the one file")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", metavar="DIR", help="where to (dist/)")
    options = parser.parse_args()
    if not os.environ.get("PROVISIONING_NU"):
        sys.exit("packaging/binary: PROVISIONING_NU must name the Nushell that is put in")
    os.umask(0o022)
    os.chdir(ROOT)
    moment = notices.moment_of_build(os.environ.get("SOURCE_DATE_EPOCH"))
    nushell = Path(os.environ["PROVISIONING_NU"])
    for path in make(options.to.absolute(), nushell, moment, only_file=options.only_file):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path}")


if __name__ == "__main__":
    main()
