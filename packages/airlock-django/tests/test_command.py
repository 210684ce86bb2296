"""Management commands as boundaries, and what `--dry-run` shows."""

import io
from contextlib import suppress

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand, LabelCommand
from django.db.transaction import atomic

import airlock
from airlock.integrations.django import airlock_command

effects = []


@pytest.fixture(autouse=True)
def _no_effects_so_far():
    effects.clear()


def effect(*args):
    """What the commands enqueue; it notes that it was carried out."""
    effects.append(*args)


def call(command, *args, **options):
    """Call a command and return the lines it wrote."""
    out = io.StringIO()
    call_command(command, *args, stdout=out, **options)
    return [line.strip() for line in out.getvalue().splitlines()]


def command(does, base=BaseCommand, **others):
    """A command whose `handle` does this."""

    def handle(self, *args, **options):
        return does(self, **options)

    return type("Command", (base,), {"handle": airlock_command(handle), **others})()


class Command(BaseCommand):
    @airlock_command
    def handle(self, *args, **options):
        airlock.enqueue(effect, 1)
        airlock.enqueue(effect, 2, _name="second")
        self.stdout.write(f"{effects} so far")


LISTED = ["effect(1)", "second(2)"]


# In earnest


def test_effects_go_out_when_the_command_succeeds():
    assert call(Command()) == ["[] so far"]
    assert effects == [1, 2]


@pytest.mark.parametrize("error", [CommandError, ValueError, SystemExit, KeyboardInterrupt])
def test_command_that_fails_has_no_effects(error):
    def fails(self, **options):
        scopes.append(airlock.get_current_scope())
        airlock.enqueue(effect, 1)
        raise error

    scopes = []
    with pytest.raises(error):
        call(command(fails))

    assert effects == []
    assert scopes[0].is_discarded


def test_commands_made_for_labels_are_boundaries_for_each_of_them():
    class Labels(LabelCommand):
        @airlock_command
        def handle_label(self, label, **options):
            airlock.enqueue(effect, label)
            if label == "bad":
                raise CommandError

    with pytest.raises(CommandError):
        call(Labels(), "good", "bad", "never")

    assert effects == ["good"]


# --dry-run


@pytest.mark.parametrize(("args", "options"), [(["--dry-run"], {}), ([], {"dry_run": True})], ids=repr)
def test_dry_run_lists_the_effects_and_has_none(args, options):
    lines = call(Command(), *args, **options)

    assert lines == ["[] so far", "Dry run: 2 effects would have gone out.", *LISTED]
    assert effects == []


def test_dry_run_is_an_option_that_help_explains(capsys):
    with pytest.raises(SystemExit):
        Command().run_from_argv(["manage.py", "orders", "--help"])

    assert "--dry-run" in capsys.readouterr().out


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_the_command_rolls_back_is_no_effect(transactional_db, rolled_back, dry_run):
    def rolls_back(self, **options):
        with rolled_back():
            airlock.enqueue(effect, "rolled back")
        with atomic():
            airlock.enqueue(effect, "committed")

    alone = call(command(rolls_back), dry_run=dry_run)
    with airlock.scope():
        inside_a_scope = call(command(rolls_back), dry_run=dry_run)

    assert alone[1:] == inside_a_scope[1:] == (["effect('committed')"] if dry_run else [])
    assert effects == ([] if dry_run else ["committed"] * 2)


def test_dry_run_lists_what_policies_and_nested_scopes_let_pass():
    def nests(self, **options):
        with airlock.scope():
            airlock.enqueue(effect, "nested")
        with airlock.scope(airlock.DropAll()):
            airlock.enqueue(effect, "dropped by a scope")
        with airlock.policy(airlock.DropAll()):
            airlock.enqueue(effect, "dropped by a policy")
        with suppress(KeyError), airlock.scope():
            airlock.enqueue(effect, "discarded")
            raise KeyError

    assert call(command(nests), dry_run=True)[1:] == ["effect('nested')"]
    assert effects == []


def test_policy_that_refuses_at_the_enqueue_call_does_so_in_a_dry_run_too(settings):
    settings.AIRLOCK = {"POLICY": "airlock.AssertNoEffects"}

    with pytest.raises(airlock.PolicyViolation):
        call(Command(), dry_run=True)


def test_dry_run_of_a_command_inside_a_scope_has_no_effects_either():
    with airlock.scope():
        airlock.enqueue(effect, "outside")
        assert call(Command(), dry_run=True)[2:] == LISTED

    assert effects == ["outside"]


def test_dry_run_in_a_transaction_lists_what_waits_for_it(transactional_db):
    with atomic():
        assert call(Command(), dry_run=True)[2:] == LISTED

    assert effects == []


@pytest.mark.parametrize("passed_on", [{}, {"dry_run": True}], ids=["alone", "passed on"])
def test_dry_run_covers_the_commands_that_the_command_calls(passed_on):
    def calls(self, **options):
        call_command(Command(), stdout=io.StringIO(), **passed_on)
        airlock.enqueue(effect, 3)

    lines = call(command(calls), dry_run=True)

    assert lines == ["Dry run: 3 effects would have gone out.", *LISTED, "effect(3)"]
    assert effects == []


class Names:
    """An executor that takes names, of which it knows one."""

    def __call__(self, intent):
        effects.append(intent.task)

    def accepts(self, task):
        return task == "effect"

    def check(self, intent):
        if intent.args:
            raise TypeError("no arguments")


@pytest.mark.parametrize("task", [("unknown",), ("effect", 1)], ids=repr)
def test_dry_run_refuses_what_the_executor_refuses(settings, task):
    def by_name(self, **options):
        airlock.enqueue("effect")
        with pytest.raises(TypeError):
            airlock.enqueue(*task)

    settings.AIRLOCK = {"EXECUTOR": Names()}
    assert call(command(by_name), dry_run=True)[1] == "effect()"
    assert effects == []


# Options and inheritance


def add_size(self, parser):
    BaseCommand.add_arguments(self, parser)
    parser.add_argument("--size", type=int)


def test_command_keeps_its_own_options():
    def notes(self, **options):
        effects.append((options["size"], options["dry_run"]))

    call(command(notes, add_arguments=add_size), "--size=3")
    call(command(notes, add_arguments=add_size), "--size=4", "--dry-run")

    assert effects == [(3, False), (4, True)]


@pytest.mark.parametrize(
    ("arguments", "dest"),
    [(["--dry-run"], "dry_run"), (["-n", "--dry-run"], "dry_run"), (["--dry-run"], "pretend")],
    ids=repr,
)
def test_command_that_has_a_dry_run_of_its_own_keeps_it(arguments, dest):
    def add_arguments(self, parser):
        parser.add_argument(*arguments, action="store_true", dest=dest, help="Look, do not touch.")

    def notes(self, **options):
        airlock.enqueue(effect, options[dest])

    own = command(notes, add_arguments=add_arguments)
    assert call(own, arguments[0])[1:] == ["effect(True)"]
    assert effects == []

    call(own)
    assert effects == [False]


def test_command_that_inherits_is_a_boundary_with_a_dry_run():
    class Child(Command):
        def add_arguments(self, parser):
            super().add_arguments(parser)
            parser.add_argument("--size", type=int)

    call(Child(), "--size=3", "--dry-run")
    assert effects == []
    call(Child(), "--size=3")
    assert effects == [1, 2]


def test_command_that_calls_the_inherited_one_has_one_boundary():
    class Child(Command):
        @airlock_command
        def handle(self, *args, **options):
            super().handle(*args, **options)
            assert effects == []
            airlock.enqueue(effect, 3)

    assert call(Child(), dry_run=True)[1:] == ["Dry run: 3 effects would have gone out.", *LISTED, "effect(3)"]
    assert effects == []
    call(Child())
    assert effects == [1, 2, 3]
