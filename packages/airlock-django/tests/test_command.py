"""Management commands as boundaries, and what `--dry-run` shows."""

import io
from contextlib import suppress

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand, LabelCommand
from django.db.transaction import atomic

import airlock
from airlock.integrations.django import airlock_command


def call(command, *args, **options):
    """Call a command and return the lines it wrote."""
    out = io.StringIO()
    call_command(command, *args, stdout=out, **options)
    return out.getvalue().splitlines()


def effect(*args, **kwargs):
    """What the commands enqueue; it notes that it was carried out."""
    effects.append(*args)


effects = []


@pytest.fixture(autouse=True)
def _no_effects_so_far():
    effects.clear()


class Command(BaseCommand):
    @airlock_command
    def handle(self, *args, **options):
        airlock.enqueue(effect, 1)
        airlock.enqueue(effect, 2, _name="second")
        self.stdout.write(f"{effects} so far")


# In earnest


def test_effects_go_out_when_the_command_succeeds():
    assert call(Command()) == ["[] so far"]
    assert effects == [1, 2]


@pytest.mark.parametrize("error", [CommandError, ValueError, SystemExit, KeyboardInterrupt])
def test_command_that_fails_has_no_effects(error):
    class Fails(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            scopes.append(airlock.get_current_scope())
            airlock.enqueue(effect, 1)
            raise error

    scopes = []
    with pytest.raises(error):
        call(Fails())

    assert effects == []
    assert scopes[0].is_discarded


def test_transaction_that_the_command_rolls_back_has_no_effects(transactional_db):
    class RollsBack(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            with suppress(KeyError), atomic():
                airlock.enqueue(effect, 1)
                raise KeyError
            with atomic():
                airlock.enqueue(effect, 2)

    call(RollsBack())

    assert effects == [2]


def test_setting_decides_about_the_scope_of_commands(settings):
    settings.AIRLOCK = {"POLICY": airlock.BlockTasks(["second"])}

    call(Command())

    assert effects == [1]


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


@pytest.mark.parametrize("arguments", [{"args": ["--dry-run"]}, {"options": {"dry_run": True}}], ids=repr)
def test_dry_run_has_no_effects_and_lists_them(arguments):
    lines = call(Command(), *arguments.get("args", []), **arguments.get("options", {}))

    assert effects == []
    assert lines[0] == "[] so far"
    assert "2" in lines[1]
    assert [line.strip() for line in lines[2:]] == ["effect(1)", "second(2)"]


def test_dry_run_is_an_option_that_help_explains(capsys):
    with pytest.raises(SystemExit):
        Command().run_from_argv(["manage.py", "orders", "--help"])

    assert "--dry-run" in capsys.readouterr().out


def test_dry_run_does_not_list_what_was_rolled_back(transactional_db):
    class RollsBack(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            with suppress(KeyError), atomic():
                airlock.enqueue(effect, "rolled back")
                raise KeyError
            with atomic():
                airlock.enqueue(effect, "committed")

    alone = call(RollsBack(), dry_run=True)
    with airlock.scope():
        inside_a_scope = call(RollsBack(), dry_run=True)

    for lines in (alone, inside_a_scope):
        assert [line.strip() for line in lines[1:]] == ["effect('committed')"]
    assert effects == []


def test_dry_run_lists_what_local_policies_and_nested_scopes_would_let_pass():
    class Nests(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            with airlock.scope():
                airlock.enqueue(effect, "nested")
            with airlock.scope(airlock.DropAll()):
                airlock.enqueue(effect, "dropped by a scope")
            with airlock.policy(airlock.DropAll()):
                airlock.enqueue(effect, "dropped by a policy")
            with suppress(KeyError), airlock.scope():
                airlock.enqueue(effect, "discarded")
                raise KeyError

    lines = call(Nests(), dry_run=True)

    assert [line.strip() for line in lines[1:]] == ["effect('nested')"]
    assert effects == []


def test_policy_that_refuses_at_the_enqueue_call_does_so_in_a_dry_run_too(settings):
    settings.AIRLOCK = {"POLICY": "airlock.AssertNoEffects"}

    with pytest.raises(airlock.PolicyViolation):
        call(Command(), dry_run=True)


def test_dry_run_of_a_command_inside_a_scope_has_no_effects_either():
    with airlock.scope():
        airlock.enqueue(effect, "outside")
        lines = call(Command(), dry_run=True)
        assert [line.strip() for line in lines[2:]] == ["effect(1)", "second(2)"]

    assert effects == ["outside"]


def test_dry_run_covers_the_commands_that_the_command_calls():
    class Calls(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            call_command(Command(), stdout=io.StringIO())
            airlock.enqueue(effect, 3)

    lines = call(Calls(), dry_run=True)

    assert [line.strip() for line in lines[1:]] == ["effect(1)", "second(2)", "effect(3)"]
    assert effects == []


def test_dry_run_that_is_passed_on_lists_each_effect_once():
    class Calls(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            call_command(Command(), stdout=self.stdout, dry_run=options["dry_run"])

    lines = [line.strip() for line in call(Calls(), dry_run=True)]

    assert lines.count("effect(1)") == lines.count("second(2)") == 1
    assert not any(" 0 " in line for line in lines)
    assert effects == []


# Options and inheritance


def test_command_keeps_its_own_options():
    class Options(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument("--size", type=int)

        @airlock_command
        def handle(self, *args, **options):
            effects.append((options["size"], options["dry_run"]))

    call(Options(), "--size=3")
    call(Options(), "--size=4", "--dry-run")

    assert effects == [(3, False), (4, True)]


@pytest.mark.parametrize("arguments", [("--dry-run",), ("-n", "--dry-run")], ids=" ".join)
def test_command_that_has_a_dry_run_of_its_own_keeps_it(arguments):
    class Own(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument(*arguments, action="store_true", help="Look, do not touch.")

        @airlock_command
        def handle(self, *args, **options):
            airlock.enqueue(effect, options["dry_run"])

    lines = call(Own(), arguments[0])
    assert effects == []
    assert [line.strip() for line in lines[1:]] == ["effect(True)"]

    call(Own())
    assert effects == [False]


def test_dry_run_of_its_own_under_another_name_has_no_effects_either():
    class Own(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument("--dry-run", action="store_true", dest="pretend")

        @airlock_command
        def handle(self, *args, **options):
            airlock.enqueue(effect, 1)

    call(Own(), "--dry-run")

    assert effects == []


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

    lines = [line.strip() for line in call(Child(), dry_run=True)]
    assert effects == []
    assert lines.count("effect(1)") == lines.count("effect(3)") == 1
    assert any(" 3 " in line for line in lines)
    call(Child())
    assert effects == [1, 2, 3]


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
    class ByName(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            airlock.enqueue("effect")
            with pytest.raises(TypeError):
                airlock.enqueue(*task)

    settings.AIRLOCK = {"EXECUTOR": Names()}
    lines = call(ByName(), dry_run=True)
    assert lines[1].strip() == "effect()"
    assert effects == []


def test_dry_run_in_a_transaction_lists_what_waits_for_it(transactional_db):
    with atomic():
        lines = call(Command(), dry_run=True)

    assert [line.strip() for line in lines[2:]] == ["effect(1)", "second(2)"]
    assert effects == []


def test_command_that_forgets_a_scope_leaves_none_behind(log):
    class Forgets(BaseCommand):
        @airlock_command
        def handle(self, *args, **options):
            airlock.scope().enter()

    call(Forgets())

    assert airlock.get_current_scope() is None
    assert "never left" in log.text
