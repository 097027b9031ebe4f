"""Two views that publish: where servers fork, the connection must be each child's own."""

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import path
from orders.publishing import apublished, published


def order(request: HttpRequest, name: str) -> JsonResponse:
    """Publish from `def`."""
    return JsonResponse(published(name))


async def async_order(request: HttpRequest, name: str) -> JsonResponse:
    """Publish from `async def`."""
    return JsonResponse(await apublished(name))


urlpatterns: list[Any] = [path("order/<name>", order), path("async/<name>", async_order)]
