from django_tenants.models import TenantMixin


class Tenant(TenantMixin):
    pass
