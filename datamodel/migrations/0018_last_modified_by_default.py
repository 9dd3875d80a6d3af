"""A harvested page is copied into `artifact` as it is, and COPY takes no expressions: the time of a row is ours by default."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("datamodel", "0017_harvested_page")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE artifact ALTER last_modified SET DEFAULT inventory_now()",
            "ALTER TABLE artifact ALTER last_modified DROP DEFAULT",
        ),
    ]
