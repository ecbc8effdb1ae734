"""`provisioning manifest`: make a manifest ready for a door: sealed, signed, verified."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import click

from provisioning.cli.context import Context, on_stdout
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import NotFound, Refused, UsageError

existing_file = click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))


@click.group("manifest", cls=Noun, no_args_is_help=True)
def manifest() -> None:
    """Seal, sign and verify manifests, so that a drop door knows that they are whole, and whose they are."""


@manifest.command(exits=(0, 2, 4, 5, 6))
@existing_file
@click.option("--stdout", "to_stdout", is_flag=True, help="Write the sealed text to stdout, and leave FILE as it is.")
@json_option
@pass_context
def seal(context: Context, file: Path, *, to_stdout: bool) -> None:
    """Prove FILE whole: by a last line in TOML, by FILE.sha256 for JSON.

    \b
    Examples:
      provisioning manifest seal site.toml && scp site.toml host:
      provisioning manifest seal site.json && scp site.json site.json.sha256 host:
      provisioning manifest seal --stdout site.json | ssh provisioning@host
    """
    from provisioning.core.proof import seal as sealed
    from provisioning.storage.foreign import replace

    data = _read(file)
    if to_stdout:
        import sys

        with on_stdout():
            sys.stdout.buffer.write(sealed(data))
            sys.stdout.buffer.flush()
        context.answered = True
        return
    if file.suffix.lower() == ".json":
        made = file.with_name(f"{file.name}.sha256")
        text = f"{hashlib.sha256(data).hexdigest()}  {file.name}\n".encode()
    else:
        made, text = file, sealed(data)
    _refuse_link(made)
    mode = os.stat(file).st_mode & 0o7777
    replace(made.absolute(), text, mode)
    _answer(context, made, "sealed")


@manifest.command(exits=(0, 2, 4, 5, 6))
@existing_file
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), help="Private key; or a public one, of the agent."
)
@json_option
@pass_context
def sign(context: Context, file: Path, key: Path) -> None:
    """Sign FILE with an SSH key: the signature is FILE.sig, which also proves it whole.

    What is signed must say `id`, `expires_at` and `target_host`, or a door would refuse it.
    """
    from provisioning.execution.signing import sign as signed
    from provisioning.storage.foreign import replace

    data = _read(file)
    _refuse_unsaid(file, data)
    made = file.with_name(f"{file.name}.sig")
    _refuse_link(made)
    signature = signed(data, key.absolute(), context.config.paths.ssh_keygen, agent=context.config.ssh_agent)
    replace(made.absolute(), signature, 0o644)
    _answer(context, made, "signed")


@manifest.command(exits=(0, 2, 4, 5, 6))
@existing_file
@click.option("--as", "operator", required=True, metavar="OPERATOR", help="Whose signature it must be.")
@click.option("--signers", type=click.Path(path_type=Path), help="The allowed_signers file, instead of the config's.")
@json_option
@pass_context
def verify(context: Context, file: Path, operator: str, signers: Path | None) -> None:
    """Say whether FILE.sig is a signature of OPERATOR under FILE, as a door of this host would see it now."""
    from provisioning.execution.signing import Signers, check
    from provisioning.ownership import refuse_unless_ours

    paths = context.config.paths
    allowed = (signers or paths.signers).absolute()
    if not allowed.exists():
        raise NotFound(f"there is no {allowed}", hint="name the file of allowed signers: --signers FILE")
    refuse_unless_ours(allowed, "file of allowed signers", os.geteuid())
    revoked = str(paths.revoked) if paths.revoked else None
    signature = _read(file.with_name(f"{file.name}.sig"))
    reason = check(_read(file), signature, operator, Signers(str(paths.ssh_keygen), str(allowed), revoked))
    if reason is not None:
        refused = Refused(f"{reason.code}: {reason.message}", hint=reason.hint)
        refused.code = reason.code
        raise refused
    if context.json:
        context.answer_json({"verified": True, "operator": operator, "file": str(file)})
    else:
        context.answer(f"ok: signed by {operator}")


def _read(file: Path) -> bytes:
    limit = 64 << 20
    try:
        with open(file, "rb") as opened:
            data = opened.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}", hint="give the path of a manifest") from None
    except OSError as error:
        raise Refused(f"cannot read {file}: {error.strerror}", hint="give the path of a manifest") from None
    if len(data) > limit:
        raise UsageError(f"{file} has more than {limit} bytes", hint="is it the right file?")
    return data


def _refuse_unsaid(file: Path, data: bytes) -> None:
    """A signature without a name, an end and a place could be used again for ever, and everywhere."""
    from provisioning.core.locate import Limits, decode

    form = "json" if file.suffix.lower() == ".json" else "toml"
    _, document, _ = decode(data, form=form, file=str(file), limits=Limits())
    missing = [key for key in ("id", "expires_at", "target_host") if key not in document]
    if missing:
        raise Refused(f"{file} does not say {', '.join(missing)}", hint="add it, then sign: a door would refuse it so")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise Refused(f"{path} is a link", hint="name the file itself")


def _answer(context: Context, made: Path, deed: str) -> None:
    if context.json:
        context.answer_json({deed: str(made)})
    else:
        context.answer(str(made))
