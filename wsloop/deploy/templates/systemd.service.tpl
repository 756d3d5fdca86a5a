# {{ site.name }}: /etc/systemd/system/{{ site.name }}.service
[Unit]
Description={{ site.name }}, a Django site with WebSockets
After=network-online.target redis-server.service postgresql.service
Wants=network-online.target

[Service]
# Started when the server listens: it says so.
Type=notify
NotifyAccess=main
User={{ site.name }}
Group={{ site.name }}
WorkingDirectory={{ site.place }}
Environment=DJANGO_SETTINGS_MODULE={{ site.settings }}
Environment=PYTHONUNBUFFERED=1
# Secrets: DJANGO_SECRET_KEY and what else the settings read. Root owns it, mode 0600.
EnvironmentFile=/etc/{{ site.name }}.env
# What is wrong with the site ends the start, with its reason.
ExecStartPre={{ site.programs }}/python -c "import {{ site.module }}"
ExecStart={{ command }}
ExecReload={{ reload }}
# The signal goes to the master, which lets its workers say goodbye to their sockets; what is left is killed.
KillMode=mixed
TimeoutStopSec={{ stop_seconds }}
TimeoutStartSec=90
Restart=always
RestartSec=1
# Sockets are descriptors.
LimitNOFILE=65536
RuntimeDirectory={{ site.name }}
UMask=0027

# Least privilege: nothing but its own files, and no new rights.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
{% for each in site.writable %}
ReadWritePaths=-{{ each }}
{% endfor %}
ProtectHome={{ protect_home }}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
