from django.db import models


class Order(models.Model):
    number = models.CharField(max_length=40, unique=True)
    # The database checks it at COMMIT (PostgreSQL and SQLite).
    follows = models.ForeignKey("self", models.CASCADE, null=True)
