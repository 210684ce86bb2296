from django.db import models


class Order(models.Model):
    number = models.CharField(max_length=40)
    # Checked at COMMIT, and not before.
    follows = models.ForeignKey("self", models.CASCADE, null=True)
