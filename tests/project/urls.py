"""The admin and an admin site of its own, with a policy for content that allows nothing inline."""

from collections.abc import Callable

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path

from nats_consumer.contrib.admin.admin import FleetAdmin
from nats_consumer.contrib.admin.models import Fleet

operations = admin.AdminSite(name="operations")
operations.register(Fleet, FleetAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("operations/", operations.urls)]


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware: browsers load scripts and styles from this site, and obey none in pages."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        return response

    return respond
