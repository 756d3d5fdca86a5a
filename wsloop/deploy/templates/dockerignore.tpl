# What the image does not need, and secrets that it must not have.
.git
.venv
venv
**/__pycache__
**/*.py[cod]
*.env
.env*
*.sqlite3
{% for each in not_in_image %}
{{ each }}
{% endfor %}
node_modules
deploy
Dockerfile
compose.yaml
.dockerignore
