"""What `import airlock` offers."""

import inspect

import pytest

import airlock

FUNCTIONS = {
    "configure",
    "detached",
    "enqueue",
    "get_configuration",
    "get_current_scope",
    "policy",
    "reset_configuration",
    "scope",
    "scoped",
}
WHEN_WHAT_HOW = {"Configuration", "Executor", "Intent", "OutcomeUnknown", "Policy", "Scope"}
POLICIES = {"AllowAll", "AllowTasks", "AssertNoEffects", "BlockTasks", "DropAll", "LogOnFlush"}
ERRORS = {
    "AirlockError",
    "DispatchError",
    "NoScopeError",
    "PolicyEnqueueError",
    "PolicyViolation",
    "ScopeStateError",
    "UsageError",
}


def test_all_public_names_are_exported_and_no_others():
    assert set(airlock.__all__) == FUNCTIONS | WHEN_WHAT_HOW | POLICIES | ERRORS


@pytest.mark.parametrize("name", sorted(airlock.__all__))
def test_every_public_name_and_what_it_offers_is_documented(name):
    public = getattr(airlock, name)
    undocumented = [
        f"{name}.{attribute}"
        for attribute, value in vars(public).items()
        if not attribute.startswith("_") and (callable(value) or isinstance(value, property))
        if not inspect.getdoc(getattr(public, attribute))
    ]

    assert inspect.getdoc(public)
    assert undocumented == []
