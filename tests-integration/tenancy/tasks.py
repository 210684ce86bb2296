from tenant_schemas_celery.task import TenantTask

from airlock.integrations.celery import AirlockTask


class TenantAirlockTask(AirlockTask, TenantTask):
    """A scope around each run, in the schema of its tenant."""

    abstract = True
