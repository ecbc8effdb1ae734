"""The tasks of a manifest: its tables made into `Task` values, `for_each` and planning operations expanded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from provisioning.core.catalogue import Catalogue, Operation, nearest_hint
from provisioning.core.clauses import condition, undo
from provisioning.core.conformity import credential_of, param_findings
from provisioning.core.expansion import Each, dependencies, instances, without
from provisioning.core.identifiers import TASK_ID
from provisioning.core.infra import Infras
from provisioning.core.locate import Finding, Limits, field, shown
from provisioning.core.planning import planned_tasks
from provisioning.core.policies import policies
from provisioning.core.references import (
    HEADS,
    UNKNOWN,
    BadReference,
    LookUp,
    Reference,
    literal,
    named,
    parts,
    references,
    substituted,
    templates,
    value_at,
)
from provisioning.core.tokens import Path
from provisioning.core.workflow import Task
from provisioning.errors import InvalidManifest, Problem, ProvisioningError

TOLD = 3
"""So many problems of one kind are told of the tasks that one table makes."""


def no_settings(_infra: str) -> Mapping[str, Any]:
    """Of an infra without settings."""
    return {}


class Sources(NamedTuple):
    """Where the values come from that a manifest refers to and does not have."""

    settings: Callable[[str], Mapping[str, Any]] = no_settings
    """The settings of an infra, by its name."""
    plan: Callable[[Operation, dict[str, Any]], Any] | None = None
    """What a planning operation makes of these params: a list of tasks, as a manifest has them. Raises a
    ProvisioningError where it fails."""
    slurm: bool = True
    """Whether there is a cluster that tasks may ask for."""


class Sound:
    """Leaves out of tables and lists what findings so far speak against."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self._bad: defaultdict[Path, set[str | int]] = defaultdict(set)
        for path in (each.path for each in findings):
            for end in range(len(path)):
                self._bad[path[:end]].add(path[end])

    def part(self, table: object, path: Path) -> dict[str, Any]:
        """A table without its bad keys."""
        if not isinstance(table, dict):
            return {}
        bad = self._bad.get(path)
        return {key: item for key, item in table.items() if key not in bad} if bad else table

    def texts(self, table: object, path: Path) -> tuple[str, ...]:
        """A list in a table without its bad items; `path` is the list's."""
        items = table.get(path[-1]) if isinstance(table, dict) else None
        bad = self._bad.get(path, ())
        return tuple(item for k, item in enumerate(items) if k not in bad) if isinstance(items, list) else ()


class Look(NamedTuple):
    """What a manifest is read with."""

    schema: dict[str, Any]
    limits: Limits
    catalogue: Catalogue | None
    sources: Sources
    plans: list[str]
    """The planning operations that were asked so far; only their number counts."""
    level: int = 0
    """So many planning operations are around what is read."""


class Head(NamedTuple):
    """What tasks may refer to of their workflow."""

    name: str
    infra: str


class Tasks:
    """The tasks read so far, and where each comes from."""

    def __init__(self, head: Head, findings: list[Finding], look: Look) -> None:
        self.found: list[Task] = []
        self._ids: list[str] = []
        self._origins: list[int] = []
        self._head = head
        self._findings = findings
        self._look = look
        self._infras = Infras(look.sources.settings)
        self._empty: set[str] = set()
        """The names of tasks that are none, `for_each` of nothing: who waits for them waits for nothing."""
        self._planning: set[int] = set()
        """The tables that an operation has planned more from: what is wrong with that is in none of their keys."""

    def read(self, raw: object, index: int, sound: Sound, defaults: dict[str, Any]) -> None:
        """Take in the table at that index of the manifest's tasks."""
        path: Path = ("tasks", index)
        table = sound.part(raw, path)
        said = raw if isinstance(raw, dict) else {}
        task_id: str = table.get("id", "")
        self._ids.append(task_id)
        fields = {"operation": table.get("operation", ""), **policies(table, defaults, path, self._findings)}
        fields |= {key: table[key] for key in ("on_failure", "preserve", "group", "executor") if key in table}
        waits = {key: sound.texts(raw, (*path, key)) for key in ("depends_on", "after")}
        params = said["params"] if isinstance(said.get("params"), dict) else {}
        made = _Template(params, (*path, "params"), self._findings)
        if "for_each" not in table:
            self._add(index, made, task_id, None, waits, fields, table)
            return
        found = self._instances(table["for_each"], (*path, "for_each"))
        if not found:
            self._empty.add(task_id)
        for each in found:
            self._add(index, made, f"{task_id}.{each.key}" if task_id else "", each, waits, fields, table)

    def _instances(self, items: object, path: Path) -> list[Each]:
        look_up = self._look_up(None)
        try:
            if any(True for _ in templates(items)):
                items = substituted(items, look_up)
                if left := references(items):
                    hint = "write the values, or refer to ${infra.…}"
                    raise BadReference(f"{named(left[0])} is not known before the workflow runs", hint)
                items = literal(items)
        except BadReference as error:
            self._findings.append(Finding("bad-reference", error.message, error.hint, path))
            return []
        return instances(items, path, self._findings)

    def _add(  # noqa: PLR0913 - the parts of a task
        self,
        index: int,
        made: _Template,
        task_id: str,
        each: Each | None,
        waits: Mapping[str, tuple[str, ...]],
        fields: dict[str, Any],
        table: dict[str, Any],
    ) -> None:
        if task_id and not TASK_ID.match(task_id):
            hint = "shorten it, or the keys of its for_each"
            self._findings.append(Finding("bad-value", f"the id {shown(task_id)} is too long", hint, ("tasks", index)))
            return
        look_up = self._look_up(each)
        params, names = made.filled(look_up)
        found: dict[str, Any] = {}
        for key, listed in waits.items():
            try:
                found[key] = dependencies(listed, each, look_up)
            except BadReference as error:
                self._findings.append(Finding("bad-reference", error.message, error.hint, ("tasks", index, key)))
                found[key] = ()
        for key in [key for key in ("when", "undo") if key in table]:
            try:
                found[key] = (
                    condition(table, each, look_up)
                    if key == "when"
                    else undo(table, look_up, ("tasks", index, key), self._findings)
                )
            except BadReference as error:
                self._findings.append(Finding("bad-reference", error.message, error.hint, ("tasks", index, key)))
        operation = self._look.catalogue.operations.get(fields["operation"]) if self._look.catalogue else None
        if operation is not None:
            try:
                params = self._infras.layered(params, operation, self._head.infra, templates=bool(names))
            except ProvisioningError as error:
                place: Path = ("tasks", index, "params", "infra") if "infra" in params else ("infra",)
                if (refused := Finding("unknown-infra", error.message, error.hint, place)) not in self._findings:
                    self._findings.append(refused)
        task = Task(id=task_id, params=params, references=names, **found, **fields)
        if operation is not None and operation.plans and self._look.sources.plan is not None:
            self._plan(task, operation, index)
            return
        self._take([task], index)

    def _take(self, tasks: Sequence[Task], index: int) -> None:
        self.found += tasks
        self._origins += [index] * len(tasks)
        if len(self.found) > self._look.limits.tasks:
            hint = "split it into several manifests"
            message = f"the manifest has more than the {self._look.limits.tasks} tasks that are allowed"
            raise InvalidManifest([Problem("too-large", message, hint, "", None, "tasks")])

    def _plan(self, task: Task, operation: Operation, index: int) -> None:
        """Put in the task's place what its operation plans."""
        path: Path = ("tasks", index)
        if task.references:
            message = f"{operation.name} plans before any task has run: it cannot refer to {task.references[0]}"
            hint = "write the value, or refer to ${infra.…}"
            self._findings.append(Finding("bad-reference", message, hint, (*path, "params")))
            return
        if refused := list(param_findings(operation, task.params, (*path, "params"))):
            self._findings += refused
            return
        planned: list[Finding] = []
        found = planned_tasks(task, operation, self._head, planned, self._look)
        message = f"what {operation.name} plans"
        for finding in planned[:TOLD]:
            place = field(finding.path, {}) if finding.path else ""
            self._findings.append(finding._replace(message=f"{message}: {place} {finding.message}", path=path))
        self._planning.add(index)
        if not found:
            self._empty.add(task.id)
        self._take(found, index)

    def _look_up(self, each: Each | None) -> LookUp:
        """The values that are known before a task runs."""

        def value_of(reference: Reference) -> Any:
            head = reference[0]
            if head == "each" and each is not None:
                return each.look_up(reference)
            if head == "each":
                raise BadReference(f"{named(reference)} is only known in a task with for_each", "add for_each")
            if head == "infra":
                return self._setting(reference)
            if head == "workflow" and reference[1:] in (("name",), ("infra",)):
                return self._head._asdict()[reference[1]]
            if head == "tasks" or reference == ("workflow", "id"):
                return UNKNOWN
            hint = nearest_hint(head, HEADS) or f"begin with {', '.join(HEADS)}"
            hint = "write workflow.id, workflow.name or workflow.infra" if head == "workflow" else hint
            raise BadReference(f"{named(reference)} names nothing", hint)

        return value_of

    def _setting(self, reference: Reference) -> Any:
        try:
            found = self._infras.settings(self._head.infra)
        except ProvisioningError as error:
            raise BadReference(error.message, error.hint) from None
        try:
            return value_at(found, reference[1:], reference)
        except BadReference as error:
            hint = f"it is looked for in the settings of infra {shown(self._head.infra)}; {error.hint}"
            raise BadReference(error.message, hint) from None

    def names(self) -> dict[int, str]:
        """The ids by which messages name the tables; of two with one id only the first has it."""
        first = {name: index for index, name in reversed([*enumerate(self._ids)]) if name}
        return {index: name for name, index in first.items()}

    def finished(self) -> list[Task]:
        """All tasks; nobody waits for those that are none."""
        if self._empty:
            self.found = [without(task, self._empty) for task in self.found]
        return self.found

    def placed(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Findings about the tasks by their numbers, as findings about the tables that made them."""
        many = {index for index, count in Counter(self._origins).items() if count > 1}
        told: Counter[tuple[str, Path]] = Counter()
        for finding in findings:
            if finding.path[:1] != ("tasks",) or len(finding.path) < 2:
                yield finding
                continue
            number = int(finding.path[1])
            index = self._origins[number]
            path = ("tasks", index) if index in self._planning else ("tasks", index, *finding.path[2:])
            if index not in many and index not in self._planning:
                yield finding._replace(path=path)
                continue
            told[finding.code, path] += 1
            if told[finding.code, path] <= TOLD:
                yield finding._replace(path=path, message=f"{self.found[number].id}: {finding.message}")


class _Template:
    """The params that a table has, to be filled for each task that it makes."""

    def __init__(self, params: dict[str, Any], path: Path, findings: list[Finding]) -> None:
        self._params = params
        self._path = path
        self._findings = findings
        self._told = 0
        self._texts: list[tuple[Path, str]] = []
        self._scan(params, path)
        for at, text in self._texts:
            try:
                parts(text)
            except BadReference as error:
                findings.append(Finding("bad-reference", error.message, error.hint, at))
                self._told = TOLD

    def _scan(self, value: Any, path: Path) -> None:
        """Find the texts with references or escapes, and credentials that are none."""
        if isinstance(value, str):
            if "${" in value:
                self._texts.append((path, value))
        elif isinstance(value, dict):
            if value.keys() == {"credential"} and (credential_of(value) is None or len(path) != len(self._path) + 1):
                hint = 'as a whole param: { credential = "name" }, with letters, digits, ".", "_" and "-"'
                self._findings.append(Finding("bad-value", "this is no credential", hint, path))
            for key, item in value.items():
                self._scan(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._scan(item, (*path, index))

    def filled(self, look_up: LookUp) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The params with all values that are known, and the references that are left in them."""
        if not self._texts or self._told >= TOLD:
            return self._params, ()
        try:
            template = substituted(self._params, look_up)
        except BadReference:
            self._tell(look_up)
            return self._params, ()
        left = references(template)
        return (template if left else literal(template)), tuple(".".join(words) for words in left)

    def _tell(self, look_up: LookUp) -> None:
        for at, text in self._texts:
            try:
                substituted(text, look_up)
            except BadReference as error:
                self._findings.append(Finding("bad-reference", error.message, error.hint, at))
                self._told += 1


def with_infra(params: dict[str, Any], operation: Operation, infra: str) -> dict[str, Any]:
    """A task's params; one called `infra` is the workflow's where the task does not say it."""
    takes = any(param.name == "infra" for param in operation.params)
    return {"infra": infra, **params} if takes else params
