"""A model without a table: Django's admin and its permissions belong to models."""

from django.db import models


class Fleet(models.Model):
    """All consumers of the project. It has permissions, and no rows."""

    class Meta:
        """A change of the permissions needs a migration."""

        managed = False
        default_permissions = ()
        permissions = [
            ("view_fleet", "Can see consumers and dead letters"),
            ("view_payload", "Can see payloads and headers of dead letters"),
            ("operate_fleet", "Can pause consumers, and replay and discard dead letters"),
        ]
        verbose_name = "consumer"
        verbose_name_plural = "consumers and dead letters"
