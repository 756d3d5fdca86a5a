# What the site runs on.
{% for each in requirements %}
{{ each }}
{% endfor %}
