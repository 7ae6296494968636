"""Django: request context on every log, and spans by OpenTelemetry's own instrumentation.

In the settings::

    INSTALLED_APPS = ["otelweir.integrations.django", ...]
    WEIR = {"service_name": "shop"}

The app configures Weir when Django starts and puts its middleware first. To choose its place yourself, list
`otelweir.integrations.django.middleware.RequestContextMiddleware` in `MIDDLEWARE`.

`WEIR` takes what `otelweir.configure` takes. It may be missing: under `opentelemetry-instrument`, or when variables say
it all. What cannot be used is reported and passed over; the site starts in any case.
"""
