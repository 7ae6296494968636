"""A Django site for the tests: users in a session, views of every kind, settings that cannot all be used."""

# Django ships no types.
# mypy: disable-error-code="import-untyped"

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path

log = logging.getLogger("site")
log.setLevel(logging.INFO)

OURS = "otelweir.integrations.django.middleware.RequestContextMiddleware"

settings.configure(
    SECRET_KEY="only a test",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "otelweir.integrations.django",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        *([OURS] if os.environ.get("SITE_LISTS_OURS") else []),
        f"{__name__}.sync_only",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.file",
    SESSION_FILE_PATH=os.environ["SITE_SESSIONS"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_SESSIONS"] + "/db"}},
    WEIR={"service_name": "site", "log_first": "many", "log_rate": {"info": 1}, "LOG_SAMPLING": "off"},
)


def sync_only(get_response: Any) -> Any:
    """Middleware that cannot be asynchronous: Django runs it in a thread."""

    def middleware(request: HttpRequest) -> HttpResponse:
        log.info("before the view")
        return get_response(request)

    return middleware


def who(request: HttpRequest, part: str) -> HttpResponse:
    log.info("before asking")
    name = request.user.get_username()
    log.info("after asking")
    return JsonResponse({"user": name})


async def awho(request: HttpRequest, part: str) -> HttpResponse:
    log.info("before asking")
    name = (await request.auser()).get_username()
    log.info("after asking")
    return JsonResponse({"user": name})


def login(request: HttpRequest) -> HttpResponse:
    from django.contrib import auth

    auth.login(request, auth.get_user_model().objects.get(username="ann"))
    return HttpResponse()


def missing(request: HttpRequest, part: str) -> HttpResponse:
    raise Http404


async def stream(request: HttpRequest, part: str) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(3):
            log.info("part %d", number)
            yield str(number)

    return StreamingHttpResponse(parts())


def middleware(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"middleware": list(settings.MIDDLEWARE)})


urlpatterns = [
    path("login", login),
    path("middleware", middleware),
    path(
        "in/<slug:part>/",
        include([path("who", who), path("awho", awho), path("missing", missing), path("stream", stream)]),
    ),
]


def _prepare() -> None:
    """Users in a database."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    get_user_model().objects.get_or_create(id=77, username="ann")


django.setup()
if not Path(os.environ["SITE_SESSIONS"], "db").exists():
    _prepare()

application = get_wsgi_application()
asgi = get_asgi_application()
