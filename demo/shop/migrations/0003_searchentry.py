from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_customer")]

    operations = [
        migrations.CreateModel(
            name="SearchEntry",
            fields=[
                (
                    "order_number",
                    models.PositiveIntegerField(primary_key=True, serialize=False),
                ),
                ("text", models.CharField(max_length=200)),
            ],
        ),
    ]
