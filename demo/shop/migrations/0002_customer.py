from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Customer",
            fields=[
                (
                    "name",
                    models.CharField(max_length=100, primary_key=True, serialize=False),
                ),
                ("orders", models.PositiveIntegerField(default=0)),
                ("spent_cents", models.PositiveBigIntegerField(default=0)),
            ],
        ),
    ]
