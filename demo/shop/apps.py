"""The shop as a Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """nats_consumer finds this app's consumers in `shop/consumers.py` by itself."""

    name = "shop"
    default_auto_field = "django.db.models.BigAutoField"
