from django.db import models


class Order(models.Model):
    email = models.EmailField()
    paid = models.BooleanField(default=False)


class Parcel(models.Model):
    """What the warehouse has packed."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE)
