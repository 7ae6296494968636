"""A Django project that names its settings late, as `manage.py` does, is instrumented all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelweir.testing import Backend

pytest.importorskip("django", reason="pip install 'otelweir[django]'")

LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))

BY_MODULE = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
BY_ITSELF = """
import django
from django.conf import settings
settings.configure(ROOT_URLCONF="site_urls", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
django.setup()
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
REQUEST = """
from django.test import Client
print(Client().get("/hello/5").content.decode())
"""


@pytest.mark.parametrize("program", [BY_MODULE, BY_ITSELF], ids=["manage.py", "settings.configure"])
def test_each_request_is_one_span_with_its_route(program: str, tmp_path: Path) -> None:
    """Upstream's instrumentor would configure empty settings first, and the project's own would fail."""
    (tmp_path / "site_settings.py").write_text("ROOT_URLCONF = 'site_urls'\nALLOWED_HOSTS = ['*']\nSECRET_KEY = 'x'\n")
    (tmp_path / "site_urls.py").write_text(
        "from django.http import HttpResponse\nfrom django.urls import path\n"
        "urlpatterns = [path('hello/<int:n>', lambda request, n: HttpResponse(f'hello {n}'))]\n"
    )
    with Backend() as backend:
        done = subprocess.run(
            [LAUNCHER, sys.executable, "-c", program + REQUEST],
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
                "OTEL_PYTHON_DISTRO": "weir",
                "OTEL_PYTHON_CONFIGURATOR": "weir",
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("hello 5\n", "")
        assert [(span.name, span.kind) for span in backend.spans] == [("GET hello/<int:n>", "server")]
