"""The pages of the admin, with the permissions that each of them needs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods, require_safe

from nats_consumer.exceptions import ConfigurationError

from . import acts, letters, overview
from .models import Fleet

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Fleet]
else:
    _ModelAdmin = admin.ModelAdmin

_APP = Fleet._meta.app_label
_OUTBOX = "nats_consumer.contrib.outbox"

_View = Callable[..., HttpResponse]


@admin.register(Fleet)
class FleetAdmin(_ModelAdmin):
    """The pages. For an admin site of your own, register it there with the model."""

    def has_add_permission(self, *_: Any) -> bool:
        """There are no rows."""
        return False

    def has_change_permission(self, *_: Any, **__: Any) -> bool:
        """There are no rows."""
        return False

    def has_delete_permission(self, *_: Any, **__: Any) -> bool:
        """There are no rows."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Each page with the permissions it needs beside `view_fleet`."""
        pages = [
            path("", self._reading(overview.page), name="nats_admin_fleet_changelist"),
            path("table/", self._reading(overview.table), name="nats_admin_table"),
            path("dead-letters/", self._reading(letters.page), name="nats_admin_letters"),
            path(
                "dead-letters/<str:using>/<str:stream>/<int:number>/",
                self._reading(letters.one),
                name="nats_admin_letter",
            ),
            path("dead-letters/act/", self._changing(acts.page), name="nats_admin_act"),
            path(
                "durables/<str:using>/<str:stream>/<str:durable>/",
                self._changing(overview.durable_page),
                name="nats_admin_durable",
            ),
        ]
        if apps.is_installed(_OUTBOX):
            # On first use: without the app, its models cannot be imported.
            from . import outbox

            pages.append(path("outbox/", self._reading(outbox.page), name="nats_admin_outbox"))
        return pages

    def may(self, request: HttpRequest, codename: str) -> bool:
        """Whether the user has this permission of the app."""
        user: Any = request.user  # the project's class
        return bool(user.has_perm(f"{_APP}.{codename}"))

    def url(self, name: str) -> str:
        """The address of a page on this admin site."""
        return reverse(f"admin:{name}", current_app=self.admin_site.name)

    def render(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        """A page in the look of this admin site."""
        shown = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "may_operate": self.may(request, "operate_fleet"),
            "may_see_payloads": self.may(request, "view_payload"),
            "has_outbox": apps.is_installed(_OUTBOX),
            **context,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"nats_admin/{template}.html", shown)

    def _reading(self, view: _View) -> _View:
        return self._guarded(require_safe(self._bound(view)), "view_fleet")

    def _changing(self, view: _View) -> _View:
        """GET asks, and only POST changes something."""
        asking = require_http_methods(["GET", "POST"])(self._bound(view))
        return self._guarded(asking, "view_fleet", "operate_fleet")

    def _bound(self, view: _View) -> _View:
        def bound(request: HttpRequest, **arguments: Any) -> HttpResponse:
            return view(self, request, **arguments)

        return bound

    def _guarded(self, view: _View, *codenames: str) -> _View:
        def guarded(request: HttpRequest, **arguments: Any) -> HttpResponse:
            if not all(self.may(request, each) for each in codenames):
                raise PermissionDenied
            try:
                return view(request, **arguments)
            except ConfigurationError as error:
                return self.render(request, "base", "Consumers", mistake=str(error))

        return self.admin_site.admin_view(guarded)
