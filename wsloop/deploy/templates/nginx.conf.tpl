# {{ site.name }}: nginx in front of the site, which ends TLS. For the block `http`: /etc/nginx/conf.d/{{ site.name }}.conf

# Requests that ask for an upgrade to a WebSocket keep their connection.
map $http_upgrade ${{ site.variable }}_connection {
    default upgrade;
    '' close;
}
# Without query strings, which may hold tokens.
log_format {{ site.variable }} '$remote_addr [$time_local] "$request_method $uri" $status $body_bytes_sent';

server {
    listen 80;
    listen [::]:80;
    server_name {{ server_names }};
    access_log /var/log/nginx/{{ site.name }}.log {{ site.variable }};

    # Certificates of Let's Encrypt come and are renewed through this directory (certbot --webroot).
    location /.well-known/acme-challenge/ {
        root /var/www/html;
    }
    location / {
        return 301 https://$host$request_uri;
    }
}

server {
    listen 443 ssl;
    listen [::]:443 ssl;
    # http2 on;  # nginx 1.25.1 and later; WebSockets go on coming by HTTP/1.1
    server_name {{ server_names }};
    access_log /var/log/nginx/{{ site.name }}.log {{ site.variable }};

    ssl_certificate /etc/letsencrypt/live/{{ site.host }}/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/{{ site.host }}/privkey.pem;
    # "Intermediate" of Mozilla's recommendations (ssl-config.mozilla.org), without DHE, which needs parameters.
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
    ssl_prefer_server_ciphers off;
    ssl_session_timeout 1d;
    ssl_session_cache shared:{{ site.variable }}:10m;
    ssl_session_tickets off;
    # Once all of the site works with TLS, let browsers insist on it: SECURE_HSTS_SECONDS of Django.

    # Bytes of a request's body; 1m is nginx's default, and uploads are refused beyond it.
    client_max_body_size 10m;

    # What the client says about itself is replaced, not handed on: the site trusts these headers.
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header Forwarded "";
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection ${{ site.variable }}_connection;
    proxy_http_version 1.1;
    # Seconds of silence. The server pings each socket every {{ ping_interval }} s, so that only dead ones are cut.
    proxy_read_timeout {{ site.silence }}s;
    proxy_send_timeout {{ site.silence }}s;

    location / {
        proxy_pass http://127.0.0.1:{{ site.port }};
    }
{% if site.url != "/" %}
    # Also Server-Sent Events: each as soon as it comes.
    location {{ site.url }} {
        proxy_buffering off;
        proxy_pass http://127.0.0.1:{{ site.port }};
    }
{% endif %}
{% if static %}
    location {{ site.static_url }} {
        alias {{ site.static_root }}/;
    }
{% endif %}
}
