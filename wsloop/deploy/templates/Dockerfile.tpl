# {{ site.name }}: docker build --tag {{ site.name }} .
FROM python:{{ site.python }}-slim AS packages
# With a copy of the interpreter: uWSGI's wheel finds its packages after a reload, too.
RUN python -m venv --copies /venv
WORKDIR /app
{% if site.wheels %}
COPY wheels wheels
{% endif %}
{% if site.requirements == "." %}
COPY . .
RUN /venv/bin/pip install --no-cache-dir{% if site.wheels %} --find-links wheels{% endif %} {{ server_package }} .
{% else %}
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir{% if site.wheels %} --find-links wheels{% endif %} -r requirements.txt
{% endif %}

FROM python:{{ site.python }}-slim
# No root: a user without a home, a shell, or files of its own.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin {{ site.name }}
WORKDIR /app
COPY --from=packages /venv /venv
COPY . .
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DJANGO_SETTINGS_MODULE={{ site.settings }} \
    LISTEN=0.0.0.0:{{ site.port }}
{% if has_static %}
# The key is for this command alone; that of the site comes from the environment of the container.
RUN DJANGO_SECRET_KEY=only-for-collectstatic python manage.py collectstatic --no-input
{% endif %}
{% if container_data %}
# All that the site may write to; the files there belong into volumes.
RUN install --directory --owner=10001 {{ container_data|join:" " }}
{% endif %}
USER 10001
EXPOSE {{ site.port }}
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:{{ site.port }}/healthz', headers={{ probe_headers }}))"]
# SIGTERM: goodbye to every socket. Give the container more than {{ site.mercy }} s to stop (docker stop --time {{ stop_seconds }}).
STOPSIGNAL SIGTERM
CMD {{ container_command }}
