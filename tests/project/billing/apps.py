from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "tests.project.billing"
