"""What the names of installed packages are."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What a value is, as far as it matters here."""

    TASK = "a task"
    SIGNATURE = "a signature"
    APP = "an app"
    TASK_CLASS = "a class of tasks"
    APP_CLASS = "what returns an app"
    TASK_DECORATOR = "what makes a function a task"
    SIGNATURE_MAKER = "what returns a signature"
    TASK_REGISTRY = "the tasks of an app"
    TASK_REGISTRAR = "what takes and returns a task"
    EFFECT = "what has an effect when it is called"
    MESSAGE_CLASS = "a class of e-mails"
    MESSAGE = "an e-mail"
    CLIENT_CLASS = "a class of HTTP clients"
    CLIENT = "an HTTP client"
    ATOMIC = "django.db.transaction.atomic"
    RECEIVER = "django.dispatch.receiver"


def _named(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


WRITING_METHODS = ("post", "put", "patch", "delete", "request")

KNOWN: dict[str, Kind] = {
    **_named(
        Kind.TASK_DECORATOR,
        """celery.shared_task celery.app.shared_task celery.task celery.task.task celery.task.periodic_task
        celery.decorators.task celery.decorators.periodic_task""",
    ),
    **_named(
        Kind.TASK_CLASS,
        """celery.Task celery.app.task.Task celery.app.task.BaseTask celery.task.Task celery.task.PeriodicTask
        celery.task.base.Task celery.contrib.django.task.DjangoTask celery_once.QueueOnce celery_singleton.Singleton
        tenant_schemas_celery.task.TenantTask
        airlock.integrations.celery.AirlockTask airlock.integrations.celery.LegacyTaskShim""",
    ),
    **_named(
        Kind.APP_CLASS,
        """celery.Celery celery.app.Celery celery.app.base.Celery celery.app.app_or_default
        tenant_schemas_celery.app.CeleryApp""",
    ),
    **_named(Kind.APP, "celery.current_app celery.app.default_app"),
    **_named(Kind.TASK, "celery.current_task"),
    **_named(
        Kind.SIGNATURE_MAKER,
        " ".join(
            f"{module}.{name}"
            for module in ("celery", "celery.canvas")
            for name in [
                "chain",
                "group",
                "chord",
                "signature",
                "subtask",
                "maybe_signature",
                "Signature",
                "chunks",
                "xmap",
                "xstarmap",
            ]
        ),
    ),
    **_named(
        Kind.EFFECT,
        " ".join(
            [
                *(f"{module}.{method}" for module in ("requests", "httpx") for method in WRITING_METHODS),
                *(
                    f"django.core.mail.{name}"
                    for name in ["send_mail", "send_mass_mail", "mail_admins", "mail_managers"]
                ),
            ]
        ),
    ),
    **_named(
        Kind.MESSAGE_CLASS,
        " ".join(
            f"{module}.{name}"
            for module in ("django.core.mail", "django.core.mail.message")
            for name in ("EmailMessage", "EmailMultiAlternatives")
        ),
    ),
    **_named(Kind.CLIENT_CLASS, "requests.Session requests.session requests.sessions.Session httpx.Client"),
    **_named(Kind.ATOMIC, "django.db.transaction.atomic"),
    **_named(Kind.RECEIVER, "django.dispatch.receiver django.dispatch.dispatcher.receiver"),
}


def kind_of_installed(dotted: str) -> Kind | None:
    """What a name is that is not one of the project's.

    If the table does not know it, the name itself tells: `other_app.tasks.clean` is a task by convention, and
    `site_config.celery.app` is an app.
    """
    if known := KNOWN.get(dotted):
        return known
    *modules, last = dotted.split(".")
    if modules and modules[-1] == "tasks" and modules[0] != "celery" and last.islower():
        return Kind.TASK
    return Kind.APP if looks_like_app(dotted) else None


def looks_like_app(dotted: str) -> bool:
    """Whether a name is what projects call their app, such as `shop.celery.app` and `shop.celery_app`."""
    *modules, last = dotted.split(".")
    in_celery = bool(modules) and modules[0] != "celery" and any("celery" in part for part in modules)
    return last == "celery_app" or (last == "app" and in_celery)
