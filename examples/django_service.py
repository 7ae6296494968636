"""A shop's orders, in Django: a whole project in one file.

    pip install 'otelweir[django,dev]'
    weir dev                                  # in another terminal: shows what arrives
    python examples/django_service.py runserver --noreload
    curl -H 'X-Request-ID: try-1' http://127.0.0.1:8000/orders/7

Or with a server of your choice: `gunicorn --chdir examples django_service:application`, or asynchronously
`uvicorn --app-dir examples django_service:asgi`.

Every log record of a request carries `http.route`, `http.request.method`, `weir.request.id` and the ids of its trace.
"""

# Django ships no types.
# mypy: disable-error-code="import-untyped"

import asyncio
import logging
import sys
import time
from collections.abc import Iterator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

log = logging.getLogger("shop")

settings.configure(
    SECRET_KEY="only an example",
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["otelweir.integrations.django"],
    WEIR={"service_name": "shop", "log_rates": {"debug": 0.1}},
    LOGGING={"version": 1, "disable_existing_loggers": False, "loggers": {"shop": {"level": "INFO"}}},
)


def show(request: HttpRequest, order: int) -> JsonResponse:
    log.info("looking up order %d", order, extra={"shop": {"order": order}})
    time.sleep(0.01)
    if order == 13:
        raise LookupError("order 13 is lost")
    log.info("found order %d", order)
    return JsonResponse({"order": order})


async def invoice(request: HttpRequest, order: int) -> JsonResponse:
    await asyncio.sleep(0.01)
    log.info("invoice for order %d", order)
    return JsonResponse({"order": order})


def export(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for order in range(3):
            log.info("exporting order %d", order)
            yield f"{order}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


urlpatterns = [
    path("orders/<int:order>", show),
    path("orders/<int:order>/invoice", invoice),
    path("export", export),
]

application = get_wsgi_application()
asgi = get_asgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
