"""Says what is in the folder: a bill of materials (CycloneDX 1.6) and the notices that the licences ask for."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path

from assemble import ROOT, Origin, run
from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

COMMON_LICENSES = Path("/usr/share/common-licenses")
LICENSE_FILES = re.compile(r"(?i)^(licen[cs]e|copying|notice|authors|copyright)")
NUSHELL = ROOT / "packaging" / "nushell" / "node_modules" / "@nushell" / "linux-x64"


class Part:
    """One thing inside: as the bill lists it, and the texts that go with it."""

    def __init__(self, component: Component, texts: Iterable[str], remark: str = "") -> None:
        self.component = component
        self.texts = [text.strip() for text in texts]
        self.remark = remark
        if not self.texts:
            sys.exit(f"packaging/binary: {component.name} comes without a licence")


def parts(origins: set[Origin]) -> list[Part]:
    """Everything inside that is not the project's own, by name."""
    linked = {Origin("deb", "musl-dev"), Origin("deb", "libzstd-dev")}  # in the launcher
    found = [_debian(name) for kind, name in origins | linked if kind == "deb"]
    wheels = [Path(name) for kind, name in origins if kind == "pypi"]
    found += [_wheel(info) for info in wheels if not info.name.startswith("provisioning-")]
    return sorted([*found, _nushell()], key=lambda part: (part.component.name, str(part.component.purl)))


def _licenses(expression: str) -> list[LicenseExpression | DisjunctiveLicense]:
    return [LicenseFactory().make_from_string(expression)] if expression else []


def _debian(package: str) -> Part:
    query = ["dpkg-query", "-W", "-f", "${Version}\t${Architecture}\t${source:Package}\t${source:Version}", package]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    # Where several architectures are installed, each is listed.
    version, architecture, source, source_version = done.stdout.split("\t")[:4] if done.stdout else ("", "", "", "")
    text = Path("/usr/share/doc", package, "copyright").read_text("utf-8", errors="replace")
    names = sorted(set(re.findall(r"(?m)^License: *(\S.*)$", text)))
    if not names:  # an older copyright file: by the texts that it refers to, and the exception that lets one link
        names = sorted({name.rstrip(".") for name in re.findall(rf"{COMMON_LICENSES}/([A-Za-z0-9.-]+)", text)})
        names += ["GCC Runtime Library Exception"] if "Runtime Library Exception" in " ".join(text.split()) else []
    component = Component(
        name=package,
        version=version,
        purl=PackageURL("deb", "debian", package, version, {"arch": architecture}),
        licenses=[DisjunctiveLicense(name=name) for name in names],
    )
    return Part(
        component, [text], f"Debian package; its source is the Debian source package {source} {source_version}."
    )


def _wheel(info: Path) -> Part:
    metadata: Message = email.message_from_string((info / "METADATA").read_text("utf-8"))
    name, version = str(metadata["Name"]), str(metadata["Version"])
    classified = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    stated = metadata["License-Expression"] or metadata["License"] or " and ".join(classified)
    files = sorted(path for path in info.rglob("*") if path.is_file() and LICENSE_FILES.match(path.name))
    nested = [_crate(crate) for path in sorted(info.glob("sboms/*.json")) for crate in _crates(path)]
    component = Component(
        name=name,
        version=version,
        purl=PackageURL("pypi", None, name.lower().replace("_", "-"), version),
        licenses=_licenses(str(stated).partition("\n")[0][:200]),
        components=nested,
    )
    return Part(component, [path.read_text("utf-8", errors="replace") for path in files])


def _crates(bill: Path) -> list[dict[str, str]]:
    """The Rust crates that a wheel says are compiled into it."""
    listed = json.loads(bill.read_text("utf-8")).get("components", [])
    crates = {(one["name"], one.get("version", "")) for one in listed if one.get("purl", "").startswith("pkg:cargo/")}
    return [{"name": name, "version": version} for name, version in sorted(crates)]


def _crate(crate: dict[str, str]) -> Component:
    purl = PackageURL("cargo", None, crate["name"], crate["version"])
    return Component(name=crate["name"], version=crate["version"], purl=purl)


def _nushell() -> Part:
    package = json.loads((NUSHELL / "package.json").read_text("utf-8"))
    component = Component(
        name="nushell",
        type=ComponentType.APPLICATION,
        version=package["version"],
        purl=PackageURL("npm", "@nushell", "linux-x64", package["version"]),
        licenses=_licenses(package["license"]),
    )
    texts = [path.read_text("utf-8") for path in sorted(NUSHELL.iterdir()) if LICENSE_FILES.match(path.name)]
    remark = "One static program. The crates linked into it are those of the Cargo.lock of this Nushell release."
    return Part(component, texts, remark)


def bill(found: list[Part], version: str, moment: int) -> str:
    """The bill of materials as JSON; the same for the same parts. `moment` is Unix time."""
    project = Component(
        name="provisioning",
        version=version,
        type=ComponentType.APPLICATION,
        purl=PackageURL("pypi", None, "provisioning", version),
        licenses=_licenses("MIT"),
        bom_ref="provisioning",
    )
    for part in found:
        part.component.bom_ref.value = str(part.component.purl)
        for crate in part.component.components:
            crate.bom_ref.value = f"{part.component.purl}#{crate.purl}"
    bom = Bom(components=[part.component for part in found])
    bom.metadata.component = project
    bom.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    bom.register_dependency(project, [part.component for part in found])
    purls = " ".join(sorted(str(part.component.purl) for part in found))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"provisioning {version} {moment} {purls}")
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2) + "\n"


def notices(found: list[Part]) -> str:
    """Each part with its licence, then the licence texts that Debian's copyright files refer to."""
    sections = ["provisioning contains the following, each under its own licence."]
    for part in found:
        component = part.component
        head = f"{component.name} {component.version}"
        sections.append("\n\n".join(filter(None, [f"{'=' * 100}\n{head}", part.remark, *part.texts])))
    text = "\n\n".join(sections)
    for name in sorted({name.rstrip(".") for name in re.findall(rf"{COMMON_LICENSES}/([A-Za-z0-9.-]+)", text)}):
        if (COMMON_LICENSES / name).is_file():
            license_text = (COMMON_LICENSES / name).read_text("utf-8", errors="replace")
            text += f"\n\n{'=' * 100}\n{COMMON_LICENSES / name}\n\n{license_text.strip()}"
    return text + "\n"


def moment_of_build(environment: str | None) -> int:
    """SOURCE_DATE_EPOCH, or else the time of the commit: never that of the build."""
    return int(environment or run("git", "-C", ROOT, "log", "-1", "--format=%ct"))
