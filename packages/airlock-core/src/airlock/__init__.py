"""Say what should happen anywhere; let the boundary around the code decide whether and when it does.

def process(order):
    order.save()
    airlock.enqueue(notify_warehouse, order.id)  # an intent: nothing happens yet

with airlock.scope():  # the boundary
    process(order)
# left normally: dispatched; left by an exception: never
"""

from pkgutil import extend_path

# The integrations are distributions of their own. Installed as wheels they lie beside this file; installed as editable
# source trees they do not, and this makes Python look there too.
__path__ = extend_path(__path__, __name__)

#: Tells this module from the `airlock` of another project; `airlock.integrations.executors.sync` looks.
__distribution__ = "airlock-core"

from airlock._api import detached, enqueue, get_current_scope, scope
from airlock._configuration import Configuration, configure, get_configuration, reset_configuration
from airlock._context import policy
from airlock._errors import (
    AirlockError,
    DispatchError,
    NoScopeError,
    PolicyEnqueueError,
    PolicyViolation,
    ScopeStateError,
    UsageError,
)
from airlock._executors import Executor, OutcomeUnknown
from airlock._intent import Intent
from airlock._policies import (
    AllowAll,
    AllowTasks,
    AssertNoEffects,
    BlockTasks,
    DropAll,
    LogOnFlush,
    Policy,
)
from airlock._scope import Scope
from airlock._scoped import scoped

__all__ = [
    "AirlockError",
    "AllowAll",
    "AllowTasks",
    "AssertNoEffects",
    "BlockTasks",
    "Configuration",
    "DispatchError",
    "DropAll",
    "Executor",
    "Intent",
    "LogOnFlush",
    "NoScopeError",
    "OutcomeUnknown",
    "Policy",
    "PolicyEnqueueError",
    "PolicyViolation",
    "Scope",
    "ScopeStateError",
    "UsageError",
    "configure",
    "detached",
    "enqueue",
    "get_configuration",
    "get_current_scope",
    "policy",
    "reset_configuration",
    "scope",
    "scoped",
]
