# {{ site.name }} and its Redis: docker compose up --build
services:
  site:
    build: .
    # For the proxy of this machine, deploy/nginx.conf.
    ports: ["127.0.0.1:{{ site.port }}:{{ site.port }}"]
    # Secrets: DJANGO_SECRET_KEY and what else the settings read. Keep the file out of the repository.
    env_file: {{ site.name }}.env
    environment:
      REDIS_URL: redis://redis:6379/0
{% if container_data %}
    volumes: [{% for each in container_data %}"data{{ forloop.counter }}:{{ each }}"{% if not forloop.last %}, {% endif %}{% endfor %}]
{% endif %}
    depends_on:
      redis: {condition: service_healthy}
    init: true
    restart: unless-stopped
    stop_grace_period: {{ stop_seconds }}s
    ulimits: {nofile: 65536}
    read_only: true
    tmpfs: ["/tmp"]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]

  redis:
    image: redis:7-alpine
    # Nothing on the disk, and no port outside of this network. Messages that are lost with it are reported to clients.
    command: ["redis-server", "--save", "", "--appendonly", "no"]
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      interval: 5s
      timeout: 3s
    restart: unless-stopped
    read_only: true
    cap_drop: [ALL]
    user: "999"
    security_opt: ["no-new-privileges:true"]
{% if container_data %}

volumes:
{% for each in container_data %}
  data{{ forloop.counter }}: {}
{% endfor %}
{% endif %}
