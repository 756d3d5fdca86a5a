"""The table of the outbox."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("channels", models.JSONField()),
                ("payload", models.BinaryField()),
                ("expire", models.IntegerField()),
                ("facility", models.TextField()),
                ("key", models.TextField()),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("refused", models.TextField(default="")),
            ],
        ),
    ]
