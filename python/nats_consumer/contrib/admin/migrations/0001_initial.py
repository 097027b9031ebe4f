from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Fleet",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
            options={
                "verbose_name": "consumer",
                "verbose_name_plural": "consumers and dead letters",
                "permissions": [
                    ("view_fleet", "Can see consumers and dead letters"),
                    ("view_payload", "Can see payloads and headers of dead letters"),
                    ("operate_fleet", "Can pause consumers, and replay and discard dead letters"),
                ],
                "managed": False,
                "default_permissions": (),
            },
        ),
    ]
