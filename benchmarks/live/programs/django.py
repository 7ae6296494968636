"""Django through its WSGI handler with SQLite: queries, errors of every kind, templates, sessions, migrations."""

# needs: django
# mypy: ignore-errors
# ruff: noqa: E402
import io
import logging
import sys

import django
from django.conf import settings

settings.configure(
    DEBUG=True,
    SECRET_KEY="not secret" * 6,
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.exceptions import BadRequest, DisallowedRedirect, PermissionDenied, SuspiciousOperation
from django.core.management import call_command
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.template import Context, Template
from django.test import Client
from django.urls import path
from django.views import View


def item(request, number):
    Group.objects.get_or_create(name=f"group {number}")
    return HttpResponse(Template("{{ a.missing }} {{ b|default:1 }}").render(Context({"a": number})))


def forbidden(request):
    raise PermissionDenied("no")


def broken(request, number):
    return HttpResponse(str(1 / 0))


def suspicious(request):
    raise SuspiciousOperation("odd")


def bad(request):
    raise BadRequest("bad")


def away(request):
    raise DisallowedRedirect("javascript:")


def rollback(request):
    try:
        with transaction.atomic():
            Group.objects.create(name="never")
            with transaction.atomic():
                raise ValueError
    except ValueError:
        pass
    return HttpResponseRedirect("/items/1/")


class OnlyGet(View):
    def get(self, request):
        return HttpResponse("got")


urlpatterns = [
    path("items/<int:number>/", item),
    path("forbidden/", forbidden),
    path("broken/<int:number>/", broken),
    path("suspicious/", suspicious),
    path("bad/", bad),
    path("away/", away),
    path("rollback/", rollback),
    path("only-get/", OnlyGet.as_view()),
    path("admin/", admin.site.urls),
]


def main() -> None:
    sys.modules[settings.ROOT_URLCONF] = sys.modules[__name__]
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("ann", "ann@example.com", "pass")
    client = Client(raise_request_exception=False)
    for number in range(80):
        client.get(f"/items/{number}/")
        client.get(f"/absent/{number}/")
        if number % 4 == 0:
            for url in ("forbidden", "suspicious", "bad", "away", "rollback", f"broken/{number}", "only-get", "admin"):
                client.get(f"/{url}/")
            client.post("/only-get/")
    client.get("/items/1/", headers={"host": "evil.example"})
    strict = Client(enforce_csrf_checks=True)
    strict.post("/items/1/")
    strict.get("/admin/login/")
    strict.post("/admin/login/", {"csrfmiddlewaretoken": "x" * 64})
    strict.post("/items/2/", headers={"origin": "http://evil.example"})
    client.login(username="ann", password="wrong")
    client.login(username="ann", password="pass")
    for name in ("", "auth/user/", "auth/user/add/", "auth/group/", "auth/group/?q=1", "auth/user/1/change/"):
        client.get(f"/admin/{name}")
    client.post("/admin/auth/group/add/", {"name": "new"})
    call_command("check", stdout=io.StringIO())


if __name__ == "__main__":
    main()
