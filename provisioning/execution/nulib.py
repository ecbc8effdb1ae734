"""The operations that can run here: the Nushell that runs them, the merged tree and its catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.config import Config
from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.infra import settings_problems
from provisioning.core.tasks import Sources
from provisioning.errors import Invalid
from provisioning.execution.nushell import Nushell, Tree, find_nu, load_catalogue, snapshot
from provisioning.execution.planning import ask_for_plan
from provisioning.infra import Folder, load
from provisioning.ownership import refuse_unless_ours
from provisioning.resources import data_dir, schema
from provisioning.storage.spool import Spool


class Nulib(NamedTuple):
    """What one look at the installation found."""

    nu: Nushell
    catalogue: Catalogue
    tree: Tree
    config: Config

    def sources(self, spool: Callable[[], Spool]) -> Sources:
        """Where what a manifest refers to comes from; the spool is asked for where an operation has to plan."""

        def plan(operation: Operation, params: dict[str, Any]) -> Any:
            kept = spool()
            self.keep(kept)
            argv = entry_command(self.nu, kept, self.catalogue.digest, operation.name)
            return ask_for_plan(self.config, argv, operation, params, settings_variables(self.config))

        has_cluster = self.config.slurm.directory is not None
        return Sources(lambda name: sound_settings(self.config.paths.infra, name), plan, slurm=has_cluster)

    def keep(self, spool: Spool) -> None:
        """Put the tree and its entries into the spool: what is planned with them does not change when they do."""
        snapshot(self.nu, self.catalogue, self.tree, spool.nulib / self.catalogue.digest, spool.scratch)


def infra_folders(configured: Sequence[Path]) -> list[Folder]:
    """Where infras are looked for: the config's folders, then those that came with the program."""
    return [*map(Folder, configured), Folder(data_dir("nulib") / "infra", shipped=True)]


def settings_variables(config: Config) -> dict[str, str]:
    """The variables by which operations find the settings of an infra, and the secrets that these name."""
    return {
        "PROVISIONING_INFRA": ":".join(str(folder.path) for folder in infra_folders(config.paths.infra)),
        "PROVISIONING_CREDENTIALS": str(config.paths.credentials),
    }


def sound_settings(configured: Sequence[Path], name: str) -> dict[str, Any]:
    """The settings of the infra of that name; Invalid where the schema speaks against them."""
    found = load(infra_folders(configured), name)
    if problems := settings_problems(found.document, schema=schema("infra"), catalogue=None, file=str(found.file)):
        raise Invalid(problems)
    return found.document


def entry_command(nu: Nushell, spool: Spool, digest: str, operation: str) -> tuple[str, ...]:
    """The argv that runs an operation's entry from a tree that was kept."""
    return (str(nu.path), "--no-config-file", "--no-std-lib", f"{spool.nulib}/{digest}/entries/{operation}.nu")


def load_nulib(config: Config) -> Nulib:
    """Find Nushell and read the catalogue, from the cache while nothing has changed."""
    for path, what in ((config.paths.nu, "Nushell"), *((root, "folder of operations") for root in config.paths.nulib)):
        if path is not None and os.path.isabs(path) and os.path.lexists(path):
            refuse_unless_ours(Path(path), what, os.geteuid())
    roots = [*config.paths.nulib, data_dir("nulib")]
    nu = find_nu(config.paths.nu, search=config.search, cache_dir=config.paths.cache)
    catalogue, tree = load_catalogue(nu, roots, config.paths.cache)
    return Nulib(nu, catalogue, tree, config)
